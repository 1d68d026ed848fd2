"""How expected counts differ from those that a model generates: effects, depth, new donors."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr

from scld.errors import RequestError, one_line


class Rows(NamedTuple):
    """A table with few different rows: ``table[of]`` has one row per cell."""

    table: np.ndarray  # [different rows, columns]
    of: np.ndarray  # [cells]

    def some(self, cells: slice | np.ndarray) -> Rows:
        """Those of some cells."""
        return Rows(self.table, self.of[cells])

    def dense(self) -> np.ndarray:
        """One row per cell."""
        rows: np.ndarray = self.table[self.of]
        return rows


@dataclass(frozen=True)
class Depth:
    """Another sequencing depth.

    Parameters
    ----------
    factor
        By which expected counts are multiplied.
    totals
        Or the total counts of cells to be like, sorted: the cell with the median library size of
        training gets the median of these, and so on for each quantile, as if library sizes were
        log-normal.

    Examples
    --------
    >>> Depth.of(0.5).factors(np.log([1000.0]), 6.9, 0.5).tolist()
    [0.5]
    >>> Depth.of([100, 200, 300]).factors(np.log([1000.0]), np.log(1000.0), 0.5).round(9).tolist()
    [0.2]
    """

    factor: float = 1.0
    totals: np.ndarray | None = None

    @classmethod
    def of(cls, value: Any) -> Depth:
        """From a number, or total counts; `RequestError` for anything else."""
        number = isinstance(value, Real) and not isinstance(value, bool)
        if number and 0.001 <= float(value) <= 1000:
            return cls(float(value))
        totals = np.empty(0)
        if not isinstance(value, str | Real):
            with contextlib.suppress(TypeError, ValueError):
                totals = np.sort(np.asarray(value, dtype=float).ravel())
        if not len(totals) or not (np.isfinite(totals) & (totals >= 1)).all():
            allowed = "a factor from 0.001 to 1000, or the total counts of cells to be like"
            raise RequestError(f"depth: got {one_line(value)}; allowed are {allowed}")
        return cls(totals=totals)

    def factors(self, log_library: np.ndarray, mean: float, sd: float) -> np.ndarray:
        """The factor of each cell, of log library sizes and their mean and sd in training."""
        if self.totals is None:
            return np.full(len(log_library), self.factor)
        wanted = np.quantile(self.totals, ndtr((log_library - mean) / sd))
        factors: np.ndarray = wanted / np.exp(log_library)
        return factors


@dataclass(frozen=True)
class Changes:
    """What is changed in each cell; None where nothing is.

    Parameters
    ----------
    effects
        Factors ``[cells, genes]`` of expected counts.
    fixed_depth
        Whether the total expected counts of a cell stay as they are: then those of other genes
        change a little. Otherwise those of other genes stay.
    depth
        Another sequencing depth.
    latent_shifts
        Of new donors: added to standardised latent points ``[cells, dims]``.
    donor_weights
        Of new donors: weights ``[cells, fitted donors]`` of expression profiles in place of
        memberships; they add up to one. Not a number for other cells.
    donor_column
        The label of donors.
    """

    effects: Rows | None = None
    fixed_depth: bool = False
    depth: Depth | None = None
    latent_shifts: Rows | None = None
    donor_weights: Rows | None = None
    donor_column: int = 0

    def some(self, cells: slice | np.ndarray) -> Changes:
        """Those of some cells."""
        names = ("effects", "latent_shifts", "donor_weights")
        given = {name: getattr(self, name) for name in names}
        return replace(self, **{n: rows.some(cells) for n, rows in given.items() if rows})

    def expected(self, mean: np.ndarray) -> np.ndarray:
        """Expected counts ``[cells, genes]`` after effects."""
        if self.effects is None:
            return mean
        changed: np.ndarray = mean * self.effects.dense()
        if self.fixed_depth:
            changed *= mean.sum(axis=1, keepdims=True) / changed.sum(axis=1, keepdims=True)
        return changed
