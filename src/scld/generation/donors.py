"""Donors that were never there, drawn from the variation between fitted donors.

What a donor does to latent points, expression profiles and composition is a deviation from the mean
of the fitted donors. A new donor has a random combination of their deviations, with normal weights
such that its expected covariance is the sample covariance of the fitted donors. So new donors vary
in the directions in which the fitted ones do, and in no other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from scld.errors import RequestError, check_int
from scld.generation.changes import Rows
from scld.generation.latent_shift import CombinationMeans
from scld.schema import MISSING, Schema, unique_rows

_FEWEST = 3  # fitted donors


@dataclass(frozen=True)
class DonorVariation:
    """How the categories of one label differ.

    Parameters
    ----------
    schema
        The labels.
    means
        Where combinations of labels lie in latent space.
    label
        Name of the label of donors.
    """

    schema: Schema
    means: CombinationMeans
    label: str

    def __post_init__(self) -> None:
        if self.schema.sizes[self.column] < _FEWEST:
            seen = f"label {self.label!r} has {self.schema.sizes[self.column]} categories"
            raise RequestError(f"new_donors: {seen}; at least {_FEWEST} donors show a variation")

    @cached_property
    def column(self) -> int:
        """Position of the label."""
        return self.schema.column(self.label, "new_donors")

    @property
    def size(self) -> int:
        """Number of fitted donors."""
        return self.schema.sizes[self.column]

    def weights(self, name: str, seed: int) -> np.ndarray:
        """Standard normal weights ``[donors]`` of a new donor; they depend on name and seed."""
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        return np.random.default_rng(np.frombuffer(digest, np.uint32)).standard_normal(self.size)

    def table(self, donors: int, cells: int, where: Any, seed: int) -> pd.DataFrame:
        """Labels of the cells of new donors: see `Synthesizer.donor_table`."""
        fixed = self.schema.fixed({} if where is None else where)
        if self.column in fixed:
            seen = f"{self.label!r} is the label of the new donors"
            raise RequestError(f"where: {seen}; leave it out")
        chosen = np.ones(len(self.schema.cells), bool)
        for column, codes in fixed.items():
            chosen &= np.isin(self.schema.combinations[:, column], codes)
        if not chosen.any():
            raise RequestError(f"where: no training cell has {dict(where)!r}")
        contexts, cells_of = self._composition(chosen)
        has = cells_of.sum(axis=1) > 0
        random = np.random.default_rng([seed, 7])
        tables = []
        for number in range(1, check_int("donors", donors, 1) + 1):
            name = self._new_name(number)
            shares = _shares(cells_of[has], self.weights(name, seed)[has])
            rows = random.choice(len(contexts), check_int("cells", cells, 1), p=shares)
            tables.append(self.schema.frame(contexts[rows]).assign(**{self.label: name}))
        whole = pd.concat(tables, ignore_index=True)
        return whole.set_axis([f"cell_{i}" for i in range(len(whole))])

    def _new_name(self, number: int) -> str:
        known = set(map(str, self.schema.labels[self.column].categories))
        name = f"new_{number}"
        while name in known:
            name += "_"
        return name

    def _composition(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Contexts (the other labels), and the cells ``[donors, contexts]`` that they have."""
        codes = self.schema.combinations[chosen].copy()
        donors = codes[:, self.column].copy()
        codes[:, self.column] = MISSING
        contexts, context = unique_rows(codes)
        cells = np.zeros((self.size, len(contexts)))
        known = donors != MISSING
        np.add.at(cells, (donors[known], context[known]), self.schema.cells[chosen][known])
        return contexts, cells

    def profiles(self, of_all: np.ndarray) -> np.ndarray:
        """The rows ``[donors, genes]`` of this label, of the profiles of all labels."""
        first = sum(self.schema.sizes[: self.column])
        rows: np.ndarray = of_all[first : first + self.size]
        return rows

    def known(self, obs: pd.DataFrame) -> np.ndarray:
        """Which cells of a table have a fitted donor, or none that is named."""
        label = self.schema.labels[self.column]
        names = obs[self.label].astype(object)
        return np.array([pd.isna(name) or label.knows(name) for name in names], bool)

    def starts(self, obs: pd.DataFrame, seed: int) -> pd.DataFrame:
        """The table with a fitted donor in place of each new one.

        A random one of those that have most of the combinations of labels that the new one has.
        """
        if not isinstance(obs, pd.DataFrame) or self.label not in obs:
            advice = "pass a table with this column, such as from donor_table"
            raise RequestError(f"new_donors: no column {self.label!r} in obs; {advice}")
        names, new = obs[self.label].astype(object), ~self.known(obs)
        others = self.schema.codes(obs.drop(columns=self.label))
        for name in pd.unique(names[new]):
            cells = (names == name).to_numpy()
            code = self._start(others[cells], str(name), seed)
            names = names.mask(cells, self.schema.labels[self.column].categories[code])
        return obs.assign(**{self.label: names})

    def _start(self, others: np.ndarray, name: str, seed: int) -> int:
        contexts, row_of = unique_rows(others)
        weights, found = np.bincount(row_of), np.zeros(self.size)
        for donor in range(self.size):
            has = self.schema.combinations[self.schema.combinations[:, self.column] == donor]
            for context, cells in zip(contexts, weights, strict=True):
                agrees = (has == context) | (context == MISSING)
                found[donor] += cells * agrees.all(axis=1).any()
        best = np.flatnonzero(found == found.max())
        return int(best[np.abs(self.weights(name, seed)).argsort()[0] % len(best)])

    def latent_shifts(self, codes: np.ndarray, names: np.ndarray, seed: int) -> Rows:
        """Shifts ``[cells, dims]`` from the fitted donors in ``codes`` to the new ones.

        ``names`` is empty where a cell keeps its donor.
        """
        unique, name_of = np.unique(names.astype(str), return_inverse=True)
        pairs, of = unique_rows(np.column_stack([codes, name_of]))
        shifts = [self._shift(pair[:-1], str(unique[pair[-1]]), seed) for pair in pairs]
        return Rows(np.stack(shifts).astype(np.float32), of)

    def _shift(self, row: np.ndarray, name: str, seed: int) -> np.ndarray:
        """From the mean of a fitted donor to that of a new one, with the same other labels."""
        others = np.arange(len(row)) != self.column
        same = (self.means.combinations[:, others] == row[others]).all(axis=1)
        same &= self.means.combinations[:, self.column] != MISSING
        donors = self.means.combinations[same, self.column]
        if not name or len(donors) < 2 or row[self.column] not in donors:
            return np.zeros(self.means.points.shape[1])
        points, cells = self.means.points[same].astype(float), self.means.cells[same]
        deviations = _true_part(points, np.tile(1 / cells[:, None], points.shape[1]))
        new = self.weights(name, seed)[donors] @ deviations / np.sqrt(len(donors) - 1)
        shift: np.ndarray = new - (points - points.mean(axis=0))[donors == row[self.column]][0]
        return shift

    def logit_shifts(
        self, profiles: np.ndarray, codes: np.ndarray, names: np.ndarray, seed: int
    ) -> Rows:
        """What is added to logits ``[cells, genes]``, of the profiles ``[donors, genes]``."""
        unique, name_of = np.unique(names.astype(str), return_inverse=True)
        pairs, of = unique_rows(np.column_stack([codes[:, self.column], name_of]))
        centred = profiles - profiles.mean(axis=0)
        shifts = np.zeros((len(pairs), profiles.shape[1]), np.float32)
        for i, (start, number) in enumerate(pairs):
            if unique[number]:
                weights = self.weights(str(unique[number]), seed) / np.sqrt(self.size - 1)
                shifts[i] = weights @ centred - centred[start]
        return Rows(shifts, of)


def _true_part(values: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Deviations ``[donors, columns]`` from their mean, without the part that is sampling error.

    ``errors`` are variances. Each column is scaled so that its variance is what is left without the
    mean of these.
    """
    deviations = values - values.mean(axis=0)
    variance = deviations.var(axis=0, ddof=1)
    left = (variance - errors.mean(axis=0)).clip(0) / variance.clip(1e-12)
    scaled: np.ndarray = deviations * np.sqrt(left)
    return scaled


def _shares(cells: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Shares ``[contexts]`` of a new donor, of cells ``[donors, contexts]``; in log-ratios."""
    smoothed = cells + 0.5
    ratios = np.log(smoothed) - np.log(smoothed).mean(axis=1, keepdims=True)
    deviations = _true_part(ratios, 1 / smoothed)
    new = ratios.mean(axis=0) + weights @ deviations / np.sqrt(max(len(cells) - 1, 1))
    shares: np.ndarray = np.exp(new - new.max())
    shares /= shares.sum()
    return shares
