"""Where the cells of each combination of labels lie in latent space, also of one that training never saw: what a label shifts adds up.

A combination that was never seen is made of the nearest one that was, moved by the mean shift between the two categories of a label, over all
contexts (categories of the other labels) that have both: the latent arithmetic of scGen (Lotfollahi, Wolf & Theis 2019, Nature Methods 16:715).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from scld.schema import MISSING


@dataclass(frozen=True)
class Way:
    """How to make cells of some combinations.

    Parameters
    ----------
    origin
        ``[cells, labels]``, the seen combination whose latent points to generate.
    shift
        ``[cells, dims]``, what to add to these.
    decoded
        ``[cells, labels]``, the labels to decode them under.
    """

    origin: np.ndarray
    shift: np.ndarray
    decoded: np.ndarray


@dataclass(frozen=True, eq=False)
class Means:
    """The mean latent point of every combination that training saw.

    Parameters
    ----------
    combinations
        ``[combinations, labels]`` codes, each row once; `MISSING` where a cell had no label.
    cells
        ``[combinations]`` number of training cells of each.
    points
        ``[combinations, dims]`` mean latent points, standardised.

    Examples
    --------
    >>> import numpy as np
    >>> seen = np.array([[0, 0], [0, 1], [1, 0]])  # type, condition
    >>> means = Means.of(np.array([[0.0, 0], [0, 3], [2, 0]]), seen)
    >>> means.point(np.array([1, 1])).tolist()
    [2.0, 3.0]
    >>> means.ways(np.array([[1, 1]])).origin.tolist()
    [[0, 1]]
    """

    combinations: np.ndarray
    cells: np.ndarray
    points: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, codes: np.ndarray, cells: np.ndarray | None = None) -> Means:
        """From latent points ``[cells, dims]`` and their codes ``[cells, labels]``; of as many cells each as ``cells`` says, or one."""
        combinations, which = _unique(codes)
        weights = np.ones(len(codes)) if cells is None else cells
        total = np.bincount(which, weights)
        sums = np.zeros((len(combinations), points.shape[1]))
        np.add.at(sums, which, points * weights[:, None])
        return cls(combinations, total.astype(np.int64), (sums / total[:, None]).astype(np.float32))

    @cached_property
    def _place(self) -> dict[tuple[int, ...], int]:
        return {tuple(row): place for place, row in enumerate(self.combinations.tolist())}

    def ways(self, codes: np.ndarray) -> Way:
        """How to make cells with these codes ``[cells, labels]``: as they are where training saw the combination, or where no shift is known."""
        rows, which = _unique(codes)
        found = [self._way(tuple(row)) for row in rows.tolist()]
        return Way(*(np.stack(part)[which] for part in zip(*found, strict=True)))

    def point(self, row: np.ndarray) -> np.ndarray | None:
        """The mean latent point ``[dims]`` of a combination, or what it should be if training never saw it; None if no shift is known."""
        known = row != MISSING
        table = self._of_labels(tuple(known.tolist()))
        found = table._from_nearest(row[known])
        if found is None:
            return None
        point: np.ndarray = table._mean(found[0]) + found[1]
        return point

    def completed(self, points: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Codes ``[cells, labels]`` without gaps: a cell that lacks labels counts as of the combination with the nearest mean, given ``[cells, dims]``."""
        full, complete = codes.copy(), (self.combinations != MISSING).all(axis=1)
        for cell in np.flatnonzero((codes == MISSING).any(axis=1)):
            fits = complete & ((self.combinations == codes[cell]) | (codes[cell] == MISSING)).all(axis=1)
            if fits.any():
                distance = np.square(self.points - points[cell]).sum(axis=1)
                full[cell] = self.combinations[np.where(fits, distance, np.inf).argmin()]
        return full

    def moves(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """From one combination's mean to the other's ``[cells, dims]``, given codes ``[cells, labels]`` of both; zero where either is not known."""
        pairs, which = _unique(np.concatenate([before, after], axis=1))
        ends = [[self.point(row) for row in np.split(pair, 2)] for pair in pairs]
        nothing = np.zeros(self.points.shape[1], np.float32)
        moves: np.ndarray = np.stack([nothing if a is None or b is None else b - a for a, b in ends])[which]
        return moves

    @cached_property
    def _way(self) -> Callable[[tuple[int, ...]], tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The way to one combination, looked for once: every page asks for the same ones."""
        return cache(self._found_way)

    def _found_way(self, codes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        row = np.array(codes, np.int64)
        known, nothing = row != MISSING, np.zeros(self.points.shape[1], np.float32)
        table = self._of_labels(tuple(known.tolist()))
        found = table._from_nearest(row[known])
        if found is None or (found[0] == row[known]).all():
            return row, nothing, row
        origin, decoded = row.copy(), row.copy()
        origin[known], decoded[known] = found[0], table._largest_seen_part(row[known])
        return origin, found[1], decoded

    @cached_property
    def _of_labels(self) -> Callable[[tuple[bool, ...]], Means]:
        """The table of some labels alone, made once: of the cells that have them, whatever the others are."""
        return cache(self._made_of_labels)

    def _made_of_labels(self, known: tuple[bool, ...]) -> Means:
        has = (self.combinations[:, known] != MISSING).all(axis=1)
        if all(known) and has.all():
            return self
        return Means.of(self.points[has], self.combinations[has][:, known], self.cells[has])

    def _mean(self, row: np.ndarray) -> np.ndarray:
        mean: np.ndarray = self.points[self._place[tuple(row.tolist())]]
        return mean

    def _from_nearest(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The seen combination that differs in the fewest labels, of several the one from which it is the shortest way, and that way."""
        differ = (self.combinations != row).sum(axis=1)
        for count in range(len(row) + 1):
            ways = [(origin, shift) for origin in self.combinations[differ == count] if (shift := self._shift(origin, row)) is not None]
            if ways:
                return min(ways, key=lambda way: float(np.square(way[1]).sum()))
        return None

    def _shift(self, origin: np.ndarray, row: np.ndarray) -> np.ndarray | None:
        """What the labels in which they differ shift, one after another."""
        at = self._mean(origin)
        for column in np.flatnonzero(origin != row).tolist():
            contexts = list(self._contexts(column, origin[column], row[column]))
            if not contexts:
                return None
            before, after = np.array(contexts).T
            at = at + self._weights(at, before, after) @ (self.points[after] - self.points[before])
        shift: np.ndarray = at - self._mean(origin)
        return shift

    def _contexts(self, column: int, old: int, new: int) -> Iterator[tuple[int, int]]:
        """Places in the table of pairs that differ in this label alone."""
        for before in np.flatnonzero(self.combinations[:, column] == old):
            other = self.combinations[before].copy()
            other[column] = new
            after = self._place.get(tuple(other.tolist()))
            if after is not None:
                yield int(before), after

    def _weights(self, at: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """A context says the more the nearer it is: it counts by the inverse square of its squared distance, to which its own error is added."""
        error = self.points.shape[1] * (1 / self.cells[before] + 1 / self.cells[after])  # of the difference of two means of points with variance 1
        weights = (np.square(self.points[before] - at).sum(axis=1) + error) ** -2.0
        shares: np.ndarray = (weights / weights.sum()).astype(np.float32)
        return shares

    def _largest_seen_part(self, row: np.ndarray) -> np.ndarray:
        """The combination with as few labels left open as it takes for training to have seen it; of several the one with the most cells."""
        for count in range(1, len(row) + 1):
            parts = [np.where(np.isin(np.arange(len(row)), columns), MISSING, row) for columns in itertools.combinations(range(len(row)), count)]
            cells = [self.cells[((self.combinations == part) | (part == MISSING)).all(axis=1)].sum() for part in parts]
            if max(cells):
                return parts[int(np.argmax(cells))]
        return row


def _unique(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows, each once, and which of them each row of codes is."""
    if not codes.shape[1]:
        return codes[:1], np.zeros(len(codes), np.int64)
    rows, which = np.unique(codes, axis=0, return_inverse=True)
    return rows, which.ravel()
