"""Real cells of several donors, and disjoint sets of donors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.errors import DataError, RequestError, listed
from scld.io.counts import count_matrix
from scld.io.read import Source, read
from scld.preprocessing import log_normalise
from scld.schema import label_column

if TYPE_CHECKING:
    from anndata import AnnData

LEAST_DONORS = 5  # two in training, two non-members, one auxiliary
LEAST_CELLS = 100  # of the training donors together, half of which are compared with the others
GENERATED = "cells from generate"  # how errors call them


class Split(NamedTuple):
    """Disjoint sets of donors."""

    training: list[str]
    held_out: list[str]
    auxiliary: list[str]  # what an attacker knows of other people


def split_donors(donors: Sequence[str], rng: np.random.Generator) -> Split:
    """Two fifths of the donors for training, as many non-members, the others auxiliary.

    Examples
    --------
    >>> split = split_donors(list("abcdef"), np.random.default_rng(0))
    >>> [len(names) for names in split], sorted(sum(split, []))
    ([2, 2, 2], ['a', 'b', 'c', 'd', 'e', 'f'])
    """
    shuffled = [donors[i] for i in rng.permutation(len(donors))]
    size = 2 * len(donors) // 5
    return Split(shuffled[:size], shuffled[size : 2 * size], shuffled[2 * size :])


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells as the attacks take them.

    Parameters
    ----------
    counts
        ``[cells, genes]`` raw counts.
    types
        ``[cells]`` types, as text.
    donors
        ``[cells]`` donors, as text; empty texts for generated cells.
    """

    counts: sp.csr_matrix
    types: np.ndarray
    donors: np.ndarray

    def __len__(self) -> int:
        return len(self.types)

    @cached_property
    def log(self) -> sp.csr_matrix:
        """Log-normalised values ``[cells, genes]``."""
        return log_normalise(self.counts)

    def __getitem__(self, rows: np.ndarray) -> Cells:
        return Cells(self.counts[rows], self.types[rows], self.donors[rows])

    def of(self, donors: Sequence[str]) -> Cells:
        """The cells of some donors."""
        return self[np.isin(self.donors, donors)]


@dataclass(frozen=True, eq=False)
class RealCells:
    """The cells of an audit, validated.

    Parameters
    ----------
    adata
        Raw counts, and nothing in obs but type and donor.
    cells
        The same for the attacks.
    label, donor
        Names of the obs columns.
    """

    adata: AnnData
    cells: Cells
    label: str
    donor: str

    @classmethod
    def of(cls, source: Source, donor: str, label: str, layer: str | None) -> RealCells:
        """Read and validate; `DataError` for too few donors or a missing label."""
        from anndata import AnnData

        if donor == label:
            raise RequestError(f"donor: got {donor!r}, which is the label of types, too; name both")
        adata = read(source, layer)
        columns = {name: label_column(adata.obs, name, complete=True) for name in (label, donor)}
        obs = pd.DataFrame({name: column.astype(str) for name, column in columns.items()})
        counts, var = count_matrix(adata), pd.DataFrame(index=adata.var_names)
        cells = Cells(counts, obs[label].to_numpy(str), obs[donor].to_numpy(str))
        found = cls(AnnData(counts, obs=obs.astype("category"), var=var), cells, label, donor)
        if len(found.donors) < LEAST_DONORS:
            seen = f"{donor!r} has {len(found.donors)} donors ({listed(found.donors)})"
            allowed = f"{LEAST_DONORS} or more: two in training, two non-members, one auxiliary"
            raise DataError(f"donor: {seen}; allowed are {allowed}; pass cells of more donors")
        return found

    @property
    def donors(self) -> list[str]:
        """The donors, in alphabetical order."""
        return [str(name) for name in np.unique(self.cells.donors)]

    def adata_of(self, donors: Sequence[str]) -> AnnData:
        """A copy of the cells of some donors, as a generator gets them."""
        some: AnnData = self.adata[np.isin(self.cells.donors, donors)].copy()
        if some.n_obs < LEAST_CELLS:
            seen = f"{some.n_obs} cells of the donors {listed(list(donors))}"
            advice = "pass more cells, or donors with more"
            raise DataError(f"cells: {seen} to train on; allowed are {LEAST_CELLS} up; {advice}")
        for name in (self.label, self.donor):
            some.obs[name] = some.obs[name].cat.remove_unused_categories()
        return some

    def generated(self, adata: Any) -> tuple[AnnData, Cells]:
        """What a generator returned, with genes in the order of the real cells."""
        from anndata import AnnData

        if not isinstance(adata, AnnData):
            seen = f"returned {type(adata).__name__}"
            raise RequestError(f"generate: {seen}; let it return an AnnData of synthetic cells")
        order = pd.Index(adata.var_names.astype(str)).get_indexer(self.adata.var_names)
        if (order < 0).any() or len(order) < adata.n_vars:
            missing = list(self.adata.var_names[order < 0])
            seen = f"{len(missing):,} genes are missing ({listed(missing, 3) or 'none'})"
            advice = f"return the {self.adata.n_vars:,} genes that it was given"
            raise DataError(f"{GENERATED}: {seen} of {adata.n_vars:,}; {advice}")
        kinds = label_column(adata.obs, self.label, place=GENERATED, complete=True).astype(str)
        counts = sp.csr_matrix(count_matrix(adata, GENERATED)[:, order])
        obs = pd.DataFrame({self.label: kinds.astype("category")})
        tidy = AnnData(counts, obs=obs, var=pd.DataFrame(index=self.adata.var_names))
        return tidy, Cells(counts, kinds.to_numpy(str), np.full(len(kinds), ""))
