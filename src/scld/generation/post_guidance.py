"""Post-guidance: a discriminator of finished cells, and the selection among candidates by its odds.

The discriminator is boosted trees that separate real from generated cells. It sees counts, where
the errors of a decoder show: principal components, depth and genes detected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from scld.config import DiscriminatorConfig
from scld.kernels.trees import Trees, sum_of_trees, validate_trees
from scld.preprocessing import log_normalise, principal_components


class LabelledCells(NamedTuple):
    """Cells to separate."""

    counts: sp.csr_matrix  # [cells, genes]
    codes: np.ndarray  # labels [cells, labels]


class Examples(NamedTuple):
    """Real and generated cells to learn to separate, or to validate on."""

    real: LabelledCells
    generated: LabelledCells


@dataclass(frozen=True)
class Discriminator:
    """Log-odds that a cell is real, given its counts and labels.

    Parameters
    ----------
    loadings
        ``[genes, components]`` of log-normalised counts.
    library
        Library size that counts are scaled to.
    trees
        Boosted trees on components, log depth, log genes detected and label codes.
    clip
        Largest log-odds.
    """

    loadings: np.ndarray
    library: float
    trees: Trees
    clip: float

    @classmethod
    def fit(
        cls,
        reference: sp.csr_matrix,
        training: Examples,
        held_out: Examples,
        config: DiscriminatorConfig,
        seed: int,
    ) -> Discriminator:
        """Train on real cells that the networks were trained on, stop by cells that they were not.

        Real cells that the networks have seen differ from generated ones also in what the networks
        remember of them. So the number of trees is the one that separates held-out cells best, and
        no trees are kept if they are no better than a guess by one standard error.

        The components are those of ``reference``, generated cells of their own: components fitted
        to the cells on either side would tell which cells they were fitted to.
        """
        from sklearn.ensemble import GradientBoostingClassifier

        library = float(np.exp(np.log(np.asarray(reference.sum(axis=1))).mean()))
        matrix = log_normalise(reference, library)
        loadings = principal_components(matrix, config.components, seed).loadings
        model = GradientBoostingClassifier(
            n_estimators=config.trees,
            learning_rate=config.rate,
            max_depth=config.depth,
            subsample=config.share,
            max_features=0.3,
            min_samples_leaf=config.leaf,
            random_state=seed % 2**32,
        )
        tables = [_features(side, loadings, library) for side in training]
        is_real = np.repeat([1, 0], [len(table) for table in tables])
        model.fit(np.concatenate(tables), is_real)
        prior = np.log(len(tables[0]) / len(tables[1]))  # log-odds by the numbers of cells alone
        stages = [
            _staged_log_odds(model, _features(side, loadings, library)) - prior for side in held_out
        ]
        number = _best_stage(*(stage.clip(-config.clip, config.clip) for stage in stages))
        trees = _as_arrays([tree.tree_ for tree in model.estimators_[:number, 0]], config.rate)
        return cls(loadings.astype(np.float32), library, trees, config.clip)

    @property
    def active(self) -> bool:
        """Whether it separates held-out cells better than a guess."""
        return len(self.trees.feature) > 0

    def log_odds(self, cells: LabelledCells) -> np.ndarray:
        """Log-odds ``[cells]`` at equal numbers of real and generated cells."""
        table = _features(cells, self.loadings, self.library)
        return sum_of_trees(table, self.trees).clip(-self.clip, self.clip)

    def tensors(self) -> dict[str, Tensor]:
        """As tensors, for a checkpoint."""
        numbers = {"library": np.array([self.library]), "clip": np.array([self.clip])}
        arrays = {"loadings": self.loadings, **numbers, **self.trees._asdict()}
        return {
            name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], genes: int, labels: int) -> Discriminator:
        """The inverse of `tensors`; `ValueError` if they do not fit the model or each other."""
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
        loadings, library, clip = arrays["loadings"], arrays["library"], arrays["clip"]
        if loadings.ndim != 2 or len(loadings) != genes or loadings.dtype != np.float32:
            raise ValueError(f"discriminator: loadings {loadings.shape} for {genes} genes")
        if library.size != 1 or clip.size != 1 or not (library > 0 and clip > 0):
            raise ValueError("discriminator: library size or largest log-odds not above 0")
        trees = Trees(*(arrays[name] for name in Trees._fields))
        validate_trees(trees, loadings.shape[1] + 2 + labels)
        return cls(loadings, library.item(), trees, clip.item())


def select(log_odds: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Select one candidate per cell with probability proportional to its odds ``[cells]``.

    This is sampling by importance resampling.

    Parameters
    ----------
    log_odds
        ``[candidates, cells]``.
    quantiles
        ``[cells]`` in [0, 1), at which the cumulative probabilities are read off.

    Examples
    --------
    >>> import numpy as np
    >>> select(np.log([[1.0, 1.0], [3.0, 3.0]]), np.array([0.2, 0.3]))
    array([0, 1])
    """
    odds = np.exp(log_odds - log_odds.max(axis=0))
    below = odds.cumsum(axis=0) <= quantiles * odds.sum(axis=0)
    selected: np.ndarray = below.sum(axis=0).clip(max=len(odds) - 1)
    return selected


def _features(cells: LabelledCells, loadings: np.ndarray, library: float) -> np.ndarray:
    """What the trees see, ``[cells, components + 2 + labels]``."""
    components = log_normalise(cells.counts, library) @ loadings
    depth = np.log(np.asarray(cells.counts.sum(axis=1)))
    detected = np.log(np.diff(cells.counts.indptr))[:, None]
    return np.hstack([components, depth, detected, cells.codes]).astype(np.float32)


def _staged_log_odds(model: Any, table: np.ndarray) -> np.ndarray:
    """Log-odds ``[trees, cells]`` after each tree."""
    return np.stack(list(model.staged_decision_function(table)))[:, :, 0]


def _best_stage(real: np.ndarray, generated: np.ndarray) -> int:
    """Number of trees that separates cells best, given log-odds ``[stages, cells]``.

    0 if they are better than a guess by less than a standard error.
    """
    losses = [np.logaddexp(0, -real), np.logaddexp(0, generated)]
    gains = np.log(2) - sum(loss.mean(axis=1) for loss in losses) / 2
    best = int(gains.argmax())
    error = np.sqrt(sum(loss[best].var() / loss.shape[1] for loss in losses)) / 2
    return best + 1 if gains[best] > error else 0


def _as_arrays(trees: list[Any], rate: float) -> Trees:
    """Trees of scikit-learn as arrays ``[trees, nodes]``, a leaf its own child.

    Nodes beyond those of a tree are leaves that no cell reaches.
    """
    nodes = max((tree.node_count for tree in trees), default=1)
    own = np.arange(nodes)
    arrays = Trees(
        feature=np.zeros((len(trees), nodes), np.int64),
        threshold=np.zeros((len(trees), nodes)),
        left=np.tile(own, (len(trees), 1)),
        right=np.tile(own, (len(trees), 1)),
        value=np.zeros((len(trees), nodes)),
    )
    for i, tree in enumerate(trees):
        count = tree.node_count
        leaf = tree.children_left < 0
        arrays.feature[i, :count] = tree.feature.clip(0)
        arrays.threshold[i, :count] = tree.threshold
        arrays.left[i, :count] = np.where(leaf, own[:count], tree.children_left)
        arrays.right[i, :count] = np.where(leaf, own[:count], tree.children_right)
        arrays.value[i, :count] = rate * tree.value[:, 0, 0]
    return arrays
