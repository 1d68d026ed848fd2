"""The critic of finished cells: boosted trees that tell real cells from generated ones, and the choice among candidates by their odds.

It looks at counts, where what a decoder gets wrong shows: principal components, depth and genes detected.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from scld.compiled import exact
from scld.components import log_normalised, principal_components
from scld.config import SelectorConfig


class Sides(NamedTuple):
    """Real and generated cells, to be told apart."""

    real: sp.csr_matrix  # counts [cells, genes]
    generated: sp.csr_matrix
    real_codes: np.ndarray  # labels [cells, labels]
    generated_codes: np.ndarray


@dataclass(frozen=True)
class Selector:
    """Log-odds that a cell is real, given its counts and labels.

    Parameters
    ----------
    loadings
        ``[genes, components]`` of log-normalised counts.
    library
        The library size that counts are scaled to, a single number.
    feature, threshold, left, right, value
        ``[trees, nodes]``: at a node, go left where the feature is at most the threshold; a leaf leads to itself and adds its value.
    clip
        Largest log-odds, a single number.
    """

    loadings: np.ndarray
    library: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    clip: np.ndarray

    @classmethod
    def of(cls, reference: sp.csr_matrix, cells: Sides, held_out: Sides, config: SelectorConfig, seed: int) -> Selector:
        """Learn from real cells that the networks were trained on, and stop by ones that they were not.

        Real cells that the networks have seen differ from generated ones also in what the networks remember of them. So as many trees are
        kept as tell held-out cells best, and none if they tell them no better than a guess does, by one standard error.

        The components are those of ``reference``, generated cells of their own: components fitted to the real cells, or to the generated
        ones, would tell which cells they were fitted to.
        """
        from sklearn.ensemble import GradientBoostingClassifier

        library = np.exp(np.log(np.asarray(reference.sum(axis=1))).mean())
        loadings = principal_components(log_normalised(reference, library), config.components, seed)[0]
        model = GradientBoostingClassifier(
            n_estimators=config.trees,
            learning_rate=config.rate,
            max_depth=config.depth,
            subsample=config.share,
            max_features=0.3,
            min_samples_leaf=config.leaf,
            random_state=seed % 2**32,
        )
        table = _tables(cells, loadings, library)
        model.fit(np.concatenate(table), np.repeat([1, 0], [len(part) for part in table]))
        own = np.log(len(table[0]) / len(table[1]))  # log-odds by the numbers of cells alone
        stages = [np.stack(list(model.staged_decision_function(part)))[:, :, 0] - own for part in _tables(held_out, loadings, library)]
        trees = [estimator.tree_ for estimator in model.estimators_[: _best_stage(*(part.clip(-config.clip, config.clip) for part in stages)), 0]]
        nodes = max((tree.node_count for tree in trees), default=1)
        at = np.arange(nodes)
        left, right = (_padded([np.where(side < 0, at[: len(side)], side) for side in sides], nodes, at) for sides in _sides(trees))
        feature = _padded([tree.feature.clip(0) for tree in trees], nodes, np.zeros(nodes, int))
        threshold = _padded([tree.threshold for tree in trees], nodes, np.zeros(nodes))
        value = _padded([config.rate * tree.value[:, 0, 0] for tree in trees], nodes, np.zeros(nodes))
        return cls(loadings.astype(np.float32), np.array(library), feature, threshold, left, right, value, np.array(config.clip))

    @property
    def silent(self) -> bool:
        """Whether it has nothing to say."""
        return len(self.feature) == 0

    def log_odds(self, counts: sp.csr_matrix, codes: np.ndarray) -> np.ndarray:
        """Log-odds ``[cells]`` at equal numbers of real and generated cells."""
        table = _portraits(counts, codes, self.loadings, self.library)
        total: np.ndarray = _outcomes(table, self.feature, self.threshold, self.left, self.right, self.value)
        return total.clip(-self.clip, self.clip)

    def tensors(self) -> dict[str, Tensor]:
        """As tensors, for a checkpoint."""
        return {entry.name: torch.from_numpy(np.ascontiguousarray(getattr(self, entry.name))) for entry in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Selector:
        """The inverse of `tensors`."""
        return cls(**{name: tensor.numpy() for name, tensor in tensors.items()})


def choose(log_odds: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """One candidate for each cell ``[cells]``, with a chance that is proportional to its odds (sampling by importance resampling).

    Parameters
    ----------
    log_odds
        ``[candidates, cells]``.
    quantiles
        ``[cells]`` in [0, 1), at which the cumulative chances are read off.

    Examples
    --------
    >>> import numpy as np
    >>> choose(np.log([[1.0, 1.0], [3.0, 3.0]]), np.array([0.2, 0.3]))
    array([0, 1])
    """
    odds = np.exp(log_odds - log_odds.max(axis=0))
    chosen: np.ndarray = (odds.cumsum(axis=0) <= quantiles * odds.sum(axis=0)).sum(axis=0).clip(max=len(odds) - 1)
    return chosen


@exact
def _outcomes(table: np.ndarray, feature: np.ndarray, threshold: np.ndarray, left: np.ndarray, right: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Sums over trees ``[cells]`` of the values of the leaves that cells come to."""
    total = np.zeros(len(table))
    for cell in range(len(table)):
        for tree in range(len(feature)):
            node, last = 0, -1
            while node != last:
                last = node
                node = left[tree, node] if table[cell, feature[tree, node]] <= threshold[tree, node] else right[tree, node]
            total[cell] += value[tree, node]
    return total


def _best_stage(real: np.ndarray, generated: np.ndarray) -> int:
    """How many trees tell cells best, from their log-odds ``[stages, cells]``; 0 if by less than a standard error better than a guess."""
    losses = [np.logaddexp(0, -real), np.logaddexp(0, generated)]
    gains = np.log(2) - sum(loss.mean(axis=1) for loss in losses) / 2
    best = int(gains.argmax())
    error = np.sqrt(sum(loss[best].var() / loss.shape[1] for loss in losses)) / 2
    return best + 1 if gains[best] > error else 0


def _tables(sides: Sides, loadings: np.ndarray, library: float) -> tuple[np.ndarray, np.ndarray]:
    real, generated, *codes = sides
    return _portraits(real, codes[0], loadings, library), _portraits(generated, codes[1], loadings, library)


def _portraits(counts: sp.csr_matrix, codes: np.ndarray, loadings: np.ndarray, library: float | np.ndarray) -> np.ndarray:
    """What the trees look at, ``[cells, components + 2 + labels]``."""
    components = log_normalised(counts, library) @ loadings
    depth = np.log(np.asarray(counts.sum(axis=1)))
    detected = np.log(np.diff(counts.indptr))[:, None]
    return np.hstack([components, depth, detected, codes]).astype(np.float32)


def _sides(trees: list) -> tuple[list[np.ndarray], list[np.ndarray]]:  # type: ignore[type-arg]
    return [tree.children_left for tree in trees], [tree.children_right for tree in trees]


def _padded(rows: list[np.ndarray], nodes: int, filling: np.ndarray) -> np.ndarray:
    """Trees of different sizes as one array; what is beyond a tree's own nodes is never reached."""
    padded = [np.concatenate([row, filling[len(row) : nodes]]) for row in rows]
    return np.stack(padded) if padded else filling[None][:0]
