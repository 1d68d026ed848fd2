"""Donors that were never there, drawn from the variation between fitted donors.

What a donor does to latent points, expression profiles and composition is a deviation from the mean
of the fitted donors. A new donor has a random combination of their deviations, with normal weights
such that its expected covariance is the sample covariance of the fitted donors. So new donors vary
in the directions in which the fitted ones do, and in no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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
_SHARED = 0.5  # share of the cells of a donor whose other labels its peers have, at least


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

    def table(self, donors: int, cells: int, where: Any, name: str, seed: int) -> pd.DataFrame:
        """Labels of the cells of new donors: see `Synthesizer.donor_table`."""
        check_int("donors", donors, 1)
        check_int("cells", cells, 1)
        contexts, cells_of = self._contexts(self._chosen({} if where is None else where))
        random = np.random.default_rng([seed, 7])
        tables = []
        for number in range(1, donors + 1):
            donor = self._new_name(f"{name}_{number}")
            peers = self._peers_of_start(cells_of, donor, seed)
            shares = np.zeros(len(contexts))
            has = cells_of[peers].sum(axis=0) > 0
            weights = self.weights(donor, seed)[peers]
            shares[has] = _shares(cells_of[np.ix_(peers, has)], weights)
            rows = random.choice(len(contexts), cells, p=shares)
            tables.append(self.schema.frame(contexts[rows]).assign(**{self.label: donor}))
        return pd.concat(tables, ignore_index=True)

    def _new_name(self, name: str) -> str:
        known = set(map(str, self.schema.labels[self.column].categories))
        while name in known:
            name += "_"
        return name

    def _chosen(self, where: Any) -> np.ndarray:
        """Which combinations of labels have these categories ``[combinations]``."""
        if self.column in self.schema.fixed(where):
            seen = f"{self.label!r} is the label of the new donors"
            raise RequestError(f"where: {seen}; leave it out")
        return self.schema.having(where)

    def _contexts(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Contexts (the other labels), and the cells ``[donors, contexts]`` that they have."""
        codes = self.schema.combinations[chosen].copy()
        donors = codes[:, self.column].copy()
        codes[:, self.column] = MISSING
        contexts, context = unique_rows(codes)
        cells, known = np.zeros((self.size, len(contexts))), donors != MISSING
        np.add.at(cells, (donors[known], context[known]), self.schema.cells[chosen][known])
        return contexts, cells

    def _peers_of_start(self, cells: np.ndarray, name: str, seed: int) -> np.ndarray:
        """A random donor and those that have most of its contexts, of cells of all donors."""
        own = cells.sum(axis=1)
        candidates = np.flatnonzero(own > 0)
        start = candidates[self._draw(name, seed) % len(candidates)]
        overlap = (cells[start] * (cells > 0)).sum(axis=1) / own[start]
        return self._enough(np.flatnonzero(overlap > _SHARED), name)

    def _enough(self, peers: np.ndarray, name: str) -> np.ndarray:
        if len(peers) < 2:
            seen = f"{name!r}: fewer than two donors of training have the same other labels"
            advice = "fit without the label that differs between all donors, or ask for others"
            raise RequestError(f"new_donors: {seen}, so that no variation is known; {advice}")
        return peers

    def _draw(self, name: str, seed: int) -> int:
        """A random number of a new donor."""
        return int(np.abs(self.weights(name, seed)[0]) * 1e9)

    def known(self, obs: pd.DataFrame) -> np.ndarray:
        """Which cells of a table have a fitted donor, or none that is named."""
        label = self.schema.labels[self.column]
        names = obs[self.label].astype(object)
        return np.array([pd.isna(name) or label.knows(name) for name in names], bool)

    def starts(self, obs: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """The table with a fitted donor in place of each new one, and the peers of each.

        Peers are the fitted donors that have most of the combinations of other labels that the new
        donor has; a random one of these takes its place.
        """
        if not isinstance(obs, pd.DataFrame) or list(obs.columns).count(self.label) != 1:
            advice = "pass a table with this column once, such as from donor_table"
            raise RequestError(f"new_donors: no column {self.label!r} in obs; {advice}")
        names, new = obs[self.label].astype(object), ~self.known(obs)
        others = self.schema.codes(obs.drop(columns=self.label))
        peers = {}
        for name in pd.unique(names[new]):
            cells, text = (names == name).to_numpy(), str(name)
            found = self._shared(others[cells])
            peers[text] = self._enough(np.flatnonzero(found > _SHARED * found.max()), text)
            start = peers[text][self._draw(text, seed) % len(peers[text])]
            names = names.mask(cells, self.schema.labels[self.column].categories[start])
        return obs.assign(**{self.label: names}), peers

    def _shared(self, others: np.ndarray) -> np.ndarray:
        """Number ``[donors]`` of cells with other labels that a donor has."""
        contexts, row_of = unique_rows(others)
        found = np.zeros(self.size)
        for donor in range(self.size):
            has = self.schema.combinations[self.schema.combinations[:, self.column] == donor]
            for context, cells in zip(contexts, np.bincount(row_of), strict=True):
                agrees = (has == context) | (context == MISSING)
                found[donor] += cells * agrees.all(axis=1).any()
        return found

    def latent_shifts(
        self, codes: np.ndarray, names: np.ndarray, peers: Mapping[str, np.ndarray], seed: int
    ) -> Rows:
        """Shifts ``[cells, dims]`` from the fitted donors in ``codes`` to the new ones.

        ``names`` is empty where a cell keeps its donor.
        """
        unique, name_of = np.unique(names.astype(str), return_inverse=True)
        pairs, of = unique_rows(np.column_stack([codes, name_of]))
        shifts = [self._shift(pair[:-1], str(unique[pair[-1]]), peers, seed) for pair in pairs]
        return Rows(np.stack(shifts).astype(np.float32), of)

    def _shift(
        self, row: np.ndarray, name: str, peers: Mapping[str, np.ndarray], seed: int
    ) -> np.ndarray:
        """From the mean of a fitted donor to that of a new one, with the same other labels."""
        others = np.arange(len(row)) != self.column
        same = (self.means.combinations[:, others] == row[others]).all(axis=1)
        same &= np.isin(self.means.combinations[:, self.column], peers.get(name, []))
        donors = self.means.combinations[same, self.column]
        if len(donors) < 2 or row[self.column] not in donors:
            return np.zeros(self.means.points.shape[1])
        points, cells = self.means.points[same].astype(float), self.means.cells[same]
        deviations = _true_part(points, np.tile(1 / cells[:, None], points.shape[1]))
        new = self.weights(name, seed)[donors] @ deviations / np.sqrt(len(donors) - 1)
        shift: np.ndarray = new - (points - points.mean(axis=0))[donors == row[self.column]][0]
        return shift

    def profile_weights(
        self, names: np.ndarray, peers: Mapping[str, np.ndarray], seed: int
    ) -> Rows:
        """Weights ``[cells, donors]`` of profiles; not a number where a cell keeps its donor."""
        unique, of = np.unique(names.astype(str), return_inverse=True)
        weights = np.full((len(unique), self.size), np.nan, np.float32)
        for number, name in enumerate(unique):
            if name:
                own = peers[name]
                normal = self.weights(name, seed)[own]
                weights[number] = 0
                deviation = (normal - normal.mean()) / np.sqrt(len(own) - 1)
                weights[number, own] = 1 / len(own) + deviation
        return Rows(weights, of)


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
