"""Synthetic cells, equally many training and test cells: input of privacy metrics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from scld.evaluation.cells import Cells, View
from scld.evaluation.metrics.privacy import nearest_distance
from scld.evaluation.metrics.space import Space
from scld.evaluation.subsets import sample_rows

DonorDistances = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Memorisation:
    """Components of three sets of cells, and distances of the synthetic ones.

    Parameters
    ----------
    synthetic, training, held_out
        ``[cells, components]``.
    to_training, to_held_out
        ``[synthetic cells]`` distances to the nearest training and to the nearest test cell.
    by_donor
        Arguments of `donor_membership_auc`; None without donors on both sides.
    """

    synthetic: np.ndarray
    training: np.ndarray
    held_out: np.ndarray
    to_training: np.ndarray
    to_held_out: np.ndarray
    by_donor: DonorDistances | None


@dataclass(frozen=True, eq=False)
class HeldOutSpace:
    """Equally many training and test cells of each type, in a space fitted on both."""

    space: Space
    train: View
    test: View

    @classmethod
    def of(cls, train: Cells, test: Cells, rng: np.random.Generator, seed: int) -> HeldOutSpace:
        """Sample both sets and fit the space."""
        sizes = {
            int(t): int(min((train.codes == t).sum(), (test.codes == t).sum()))
            for t in np.unique(test.codes)
        }
        a = train[sample_rows(train.codes, sizes, rng)]
        b = test[sample_rows(test.codes, sizes, rng)]
        space = Space.fit(sp.vstack([a.log, b.log], format="csr"), seed=seed)
        return cls(space, View.of(a, space), View.of(b, space))

    def of_synthetic(self, cells: Cells) -> Memorisation:
        """Synthetic cells and both sets."""
        x = self.space.project(self.space.dense(cells.log))
        training, held_out = self.train.components, self.test.components
        return Memorisation(
            synthetic=x,
            training=training,
            held_out=held_out,
            to_training=nearest_distance(x, training),
            to_held_out=nearest_distance(x, held_out),
            by_donor=self._by_donor(x),
        )

    def of_held_out(self, sizes: dict[int, int], rng: np.random.Generator) -> Memorisation:
        """The baseline: test cells in place of synthetic ones, at most half of each type.

        None of them is its own nearest neighbour, or among the cells that are attacked.
        """
        codes, held_out = self.test.cells.codes, self.test.components
        at_most_half = {t: min(n, int((codes == t).sum()) // 2) for t, n in sizes.items()}
        rows = sample_rows(codes, at_most_half, rng)
        x = held_out[rows]
        return Memorisation(
            synthetic=x,
            training=self.train.components,
            held_out=np.delete(held_out, rows, axis=0),
            to_training=nearest_distance(x, self.train.components),
            to_held_out=nearest_distance(x, held_out, rank=1),
            by_donor=self._by_donor(x),
        )

    def _by_donor(self, synthetic: np.ndarray) -> DonorDistances | None:
        """None unless two donors at least are in training, and two in the test cells only."""
        train, test = self.train.cells, self.test.cells
        if train.donors is None or test.donors is None:
            return None
        unseen = ~np.isin(test.donors, train.donors)
        if min(len(np.unique(train.donors)), len(np.unique(test.donors[unseen]))) < 2:
            return None
        cells = np.concatenate([self.train.components, self.test.components[unseen]])
        codes = np.concatenate([train.codes, test.codes[unseen]])
        donors = np.concatenate([train.donors, test.donors[unseen]])
        is_member = np.arange(len(codes)) < len(train)
        return nearest_distance(cells, synthetic), codes, donors, is_member
