"""Where each combination of labels lies in latent space, including unseen ones.

The cells of an unseen combination are those of the nearest one in training, shifted by the mean
difference between the two categories of a label over all contexts (categories of the other labels)
that have both: the latent arithmetic of scGen (Lotfollahi, Wolf & Theis 2019, Nature Methods
16:715).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scld.schema import MISSING, unique_rows


@dataclass(frozen=True)
class LatentShifts:
    """How to generate some cells: from which combination, with which shift, decoded as what.

    Parameters
    ----------
    origin
        ``[combinations, labels]`` the seen combination to generate latent points of.
    shift
        ``[combinations, dims]`` added to these points.
    decode_labels
        ``[combinations, labels]`` the labels that the decoder sees.
    row_of
        ``[cells]`` row of each cell in these tables.
    """

    origin: np.ndarray
    shift: np.ndarray
    decode_labels: np.ndarray
    row_of: np.ndarray

    def of_cells(self, cells: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Origin, shift and labels to decode of some cells."""
        rows = self.row_of[cells]
        return self.origin[rows], self.shift[rows], self.decode_labels[rows]


@dataclass(frozen=True, eq=False)
class CombinationMeans:
    """The mean latent point of every combination of labels in training.

    Parameters
    ----------
    combinations
        ``[combinations, labels]`` codes, unique rows; `MISSING` where a cell had no label.
    cells
        ``[combinations]`` number of training cells.
    points
        ``[combinations, dims]`` mean latent points, standardised.

    Examples
    --------
    >>> import numpy as np
    >>> seen = np.array([[0, 0], [0, 1], [1, 0]])  # type, condition
    >>> means = CombinationMeans.of(np.array([[0.0, 0], [0, 3], [2, 0]]), seen)
    >>> means.point(np.array([1, 1])).tolist()
    [2.0, 3.0]
    >>> means.shifts(np.array([[1, 1]])).origin.tolist()
    [[0, 1]]
    """

    combinations: np.ndarray
    cells: np.ndarray
    points: np.ndarray

    @classmethod
    def of(
        cls, points: np.ndarray, codes: np.ndarray, cells: np.ndarray | None = None
    ) -> CombinationMeans:
        """From latent points ``[rows, dims]``, codes ``[rows, labels]`` and cells per row (1)."""
        combinations, row_of = unique_rows(codes)
        weights = np.ones(len(codes)) if cells is None else cells
        total = np.bincount(row_of, weights)
        sums = np.zeros((len(combinations), points.shape[1]))
        np.add.at(sums, row_of, points * weights[:, None])
        means = (sums / total[:, None]).astype(np.float32)
        return cls(combinations, total.astype(np.int64), means)

    @cached_property
    def _row_of(self) -> dict[tuple[int, ...], int]:
        return {tuple(row): i for i, row in enumerate(self.combinations.tolist())}

    def rows(self, codes: np.ndarray) -> np.ndarray:
        """The row ``[cells]`` of each cell's combination in this table, -1 if it is not there."""
        found, row_of = unique_rows(codes)
        rows = [self._row_of.get(tuple(row), -1) for row in found.tolist()]
        of_cells: np.ndarray = np.array(rows, dtype=np.int64)[row_of]
        return of_cells

    def shifts(self, codes: np.ndarray) -> LatentShifts:
        """How to generate cells with these codes ``[cells, labels]``.

        As they are if training had the combination, or if no shift is known.
        """
        rows, row_of = unique_rows(codes)
        parts = zip(*(self._shift_to(row) for row in rows), strict=True)
        origin, shift, decode_labels = (np.stack(part) for part in parts)
        return LatentShifts(origin, shift, decode_labels, row_of)

    def shifts_from(self, before: np.ndarray, after: np.ndarray) -> LatentShifts:
        """How to generate cells with codes ``before``, shifted to codes ``after``.

        The shift is the difference of the means; the library size stays.
        """
        pairs, row_of = unique_rows(np.concatenate([before, after], axis=1))
        old, new = np.split(pairs, 2, axis=1)
        start, end = self.shifts(old), self.shifts(new)
        difference = self.differences(old, new)
        difference[:, -1] = 0
        shift = start.shift[start.row_of] + difference
        decode_labels = end.decode_labels[end.row_of]
        return LatentShifts(start.origin[start.row_of], shift, decode_labels, row_of)

    def point(self, row: np.ndarray) -> np.ndarray | None:
        """The mean ``[dims]`` of a combination, seen or not; None if no shift is known."""
        known = row != MISSING
        table = self._marginal(known)
        found = table._nearest(row[known])
        if found is None:
            return None
        origin, shift = found
        point: np.ndarray = table._mean(origin) + shift
        return point

    def completed(self, points: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Codes ``[cells, labels]`` with gaps filled.

        A cell with a missing label gets the labels of the combination whose mean is nearest to its
        latent point, among those that agree with the labels it has.
        """
        full, complete = codes.copy(), (self.combinations != MISSING).all(axis=1)
        for cell in np.flatnonzero((codes == MISSING).any(axis=1)):
            agrees = (self.combinations == codes[cell]) | (codes[cell] == MISSING)
            possible = complete & agrees.all(axis=1)
            if possible.any():
                distance = np.square(self.points - points[cell]).sum(axis=1)
                full[cell] = self.combinations[np.where(possible, distance, np.inf).argmin()]
        return full

    def differences(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Differences ``[cells, dims]`` of means, for codes ``[cells, labels]``.

        Zero where either mean is unknown.
        """
        pairs, row_of = unique_rows(np.concatenate([before, after], axis=1))
        zero = np.zeros(self.points.shape[1], np.float32)
        differences = []
        for pair in pairs:
            start, end = (self.point(row) for row in np.split(pair, 2))
            differences.append(zero if start is None or end is None else end - start)
        of_cells: np.ndarray = np.stack(differences)[row_of]
        return of_cells

    def _shift_to(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Origin, shift and labels to decode of one combination."""
        known = row != MISSING
        table = self._marginal(known)
        found = table._nearest(row[known])
        if found is None or (found[0] == row[known]).all():
            return row, np.zeros(self.points.shape[1], np.float32), row
        origin, decode_labels = row.copy(), row.copy()
        origin[known], decode_labels[known] = found[0], table._largest_seen_part(row[known])
        return origin, found[1], decode_labels

    def _marginal(self, known: np.ndarray) -> CombinationMeans:
        """The table of some labels, over the training cells that have them."""
        has = (self.combinations[:, known] != MISSING).all(axis=1)
        if known.all() and has.all():
            return self
        codes = self.combinations[has][:, known]
        return CombinationMeans.of(self.points[has], codes, self.cells[has])

    def _mean(self, row: np.ndarray) -> np.ndarray:
        mean: np.ndarray = self.points[self._row_of[tuple(row.tolist())]]
        return mean

    def _nearest(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The seen combination that differs in the fewest labels, and the shift from it.

        Of several, the one with the shortest shift.
        """
        differing = (self.combinations != row).sum(axis=1)
        for count in range(len(row) + 1):
            origins = self.combinations[differing == count]
            shifts = [(origin, self._shift(origin, row)) for origin in origins]
            known = [(origin, shift) for origin, shift in shifts if shift is not None]
            if known:
                return min(known, key=lambda pair: float(np.square(pair[1]).sum()))
        return None

    def _shift(self, origin: np.ndarray, row: np.ndarray) -> np.ndarray | None:
        """The sum of the shifts of the labels that differ, one after another."""
        at = self._mean(origin)
        for column in np.flatnonzero(origin != row).tolist():
            contexts = list(self._contexts(column, origin[column], row[column]))
            if not contexts:
                return None
            before, after = np.array(contexts).T
            weights = self._context_weights(at, before, after)
            at = at + weights @ (self.points[after] - self.points[before])
        shift: np.ndarray = at - self._mean(origin)
        return shift

    def _contexts(self, column: int, old: int, new: int) -> Iterator[tuple[int, int]]:
        """Rows of pairs of combinations that differ in this label alone."""
        for before in np.flatnonzero(self.combinations[:, column] == old):
            other = self.combinations[before].copy()
            other[column] = new
            after = self._row_of.get(tuple(other.tolist()))
            if after is not None:
                yield int(before), after

    def _context_weights(self, at: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Weights of contexts: the inverse square of the squared distance plus its own error.

        The error is that of the difference of two means of points with variance 1.
        """
        error = self.points.shape[1] * (1 / self.cells[before] + 1 / self.cells[after])
        weights = (np.square(self.points[before] - at).sum(axis=1) + error) ** -2.0
        normalised: np.ndarray = (weights / weights.sum()).astype(np.float32)
        return normalised

    def _largest_seen_part(self, row: np.ndarray) -> np.ndarray:
        """The combination with the fewest labels unspecified that training has seen.

        Of several, the one with the most cells.
        """
        positions = np.arange(len(row))
        for count in range(1, len(row) + 1):
            dropped = itertools.combinations(range(len(row)), count)
            parts = [np.where(np.isin(positions, columns), MISSING, row) for columns in dropped]
            agree = [(self.combinations == part) | (part == MISSING) for part in parts]
            cells = [self.cells[rows.all(axis=1)].sum() for rows in agree]
            if max(cells):
                return parts[int(np.argmax(cells))]
        return row
