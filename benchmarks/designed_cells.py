"""Cells of designed.py: real ones with their donors, groups of donors, thinned genes, and fits."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from common import LABEL, SHIPPED, fitted, load_cells

import scld

DONOR, CONDITION, GROUP = "donor", "condition", "group"
LABELS = [LABEL, DONOR]
CONTROL, TREATED = "control", "treated"
CONTROLS = ("ctrl", "healthy")  # categories of the condition that count as control
COUNTED = 0.02  # genes with counts in a smaller share of cells are left out
MADE_UP_DONORS = list("ABCDEF")  # of the cells that ship with scld
MADE_UP_GENES, MADE_UP_FOLD = 60, -2.0  # and what their made-up condition does
Folds = Mapping[str, pd.Series]  # type -> log2 fold change by gene


class Study(NamedTuple):
    """Cells of donors in two groups."""

    counts: sp.csr_matrix
    types: np.ndarray  # [cells]
    donor: np.ndarray  # [cells], from 0
    treated: np.ndarray  # [donors]

    def of_type(self, kind: str) -> Study:
        """The cells of one type."""
        rows = np.flatnonzero(self.types == kind)
        return Study(self.counts[rows], self.types[rows], self.donor[rows], self.treated)


def load(name: str, given: argparse.Namespace) -> AnnData:
    """The cells of a dataset, in the genes that enough of them have."""
    made_up = [CONDITION] if name == SHIPPED else []
    cells = load_cells(name, given, made_up)
    cells = with_made_up_design(cells) if name == SHIPPED else cells
    counts = sp.csr_matrix(cells.X)
    counted = np.bincount(counts.indices, minlength=cells.n_vars) >= COUNTED * cells.n_obs
    cells = cells[:, counted].copy()
    for column in {LABEL, DONOR, CONDITION} & set(cells.obs):
        cells.obs[column] = cells.obs[column].astype(str)
    print(f"{name}: {cells.n_obs:,} cells x {cells.n_vars:,} genes", flush=True)
    return cells


def with_made_up_design(cells: AnnData) -> AnnData:
    """The cells with random donors, and with a condition that lowers some genes."""
    rng = np.random.default_rng(1)
    cells.obs[DONOR] = rng.choice(MADE_UP_DONORS, cells.n_obs)
    print(f"{DONOR}: made up at random, so the results below mean nothing", flush=True)
    total = np.asarray(cells.X.sum(axis=0)).ravel()
    genes = cells.var_names[np.argsort(-total)[:MADE_UP_GENES]]
    kinds = cells.obs[LABEL].astype(str)
    folds = {kind: pd.Series(MADE_UP_FOLD, index=genes) for kind in kinds.unique()}
    changed = cells.obs[CONDITION].to_numpy(str) == "stim"
    counts = sp.csr_matrix(cells.X)
    cells.X = thinned(counts, kinds.to_numpy(str), changed, cells.var_names, folds, rng)
    return cells


def thinned(
    counts: sp.csr_matrix,
    types: np.ndarray,
    changed: np.ndarray,
    genes: pd.Index,
    folds: Folds,
    rng: np.random.Generator,
) -> sp.csr_matrix:
    """Each molecule of the changed genes of the changed cells is kept with its probability.

    So expected counts change by exactly these fold changes, which must not be above zero.
    """
    kinds = list(folds)
    kept = np.ones((len(kinds) + 1, len(genes)))
    for i, kind in enumerate(kinds):
        kept[i, genes.get_indexer(folds[kind].index)] = np.exp2(folds[kind].to_numpy())
    of_cell = np.where(changed, pd.Index(kinds).get_indexer(types), len(kinds))
    cell = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    share = kept[of_cell[cell], counts.indices]
    data = np.rint(counts.data).astype(np.int64)
    data[share < 1] = rng.binomial(data[share < 1], share[share < 1])
    result = sp.csr_matrix(
        (data.astype(np.float32), counts.indices.copy(), counts.indptr.copy()), counts.shape
    )
    result.eliminate_zeros()
    return result


def halves(obs: pd.DataFrame, columns: Sequence[str], seed: int) -> np.ndarray:
    """Which cells are in the second half: every second one at random, within these columns."""
    rng = np.random.default_rng([seed, 5])
    shuffled = obs[list(columns)].iloc[rng.permutation(len(obs))].reset_index(drop=False)
    place = shuffled.groupby(list(columns), observed=True).cumcount()
    second: np.ndarray = np.zeros(len(obs), bool)
    second[obs.index.get_indexer(shuffled.iloc[:, 0])] = place.to_numpy() % 2 == 1
    return second


def group_splits(donors: int, n: int, most: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """All ways to choose n against n of the donors, or some of them; control and treated."""
    rng, found = np.random.default_rng([seed, n]), []
    for group in itertools.combinations(range(donors), 2 * n):
        for first in itertools.combinations(group, n):
            if first[0] == group[0]:
                pair = list(first), [each for each in group if each not in first]
                found.append(pair if rng.random() < 0.5 else pair[::-1])
    picked = np.sort(rng.choice(len(found), min(most, len(found)), replace=False))
    return [found[i] for i in picked]


def common_types(obs: pd.DataFrame, columns: Sequence[str], least: int, most: int) -> list[str]:
    """The largest types with enough cells in each category of the columns."""
    cells = obs.groupby([LABEL, *columns]).size().unstack(list(columns), fill_value=0)
    enough = cells[(cells >= least).all(axis=1)].sum(axis=1)
    return sorted(enough.sort_values(ascending=False).index[:most])


def fitted_on(
    cells: AnnData, what: str, name: str, seed: int, given: argparse.Namespace
) -> scld.Synthesizer:
    """A model with the labels cell_type and donor."""
    return fitted(cells, LABELS, seed, given, f"{name}-designed-{what}")


def planting(folds: Folds | None) -> dict[str, Any]:
    """Keywords of `sample` that change these genes in the treated cells of each type."""
    effects = [
        scld.Effect(values.to_dict(), where={LABEL: kind, GROUP: TREATED})
        for kind, values in (folds or {}).items()
        if len(values)
    ]
    return {"effects": effects} if effects else {}


def study_of(cells: AnnData, donors: Sequence[str], treated: Sequence[bool]) -> Study:
    """The cells of some donors, numbered in this order."""
    number = pd.Index(list(donors)).get_indexer(cells.obs[DONOR].astype(str))
    rows = np.flatnonzero(number >= 0)
    counts, kinds = sp.csr_matrix(cells.X)[rows], cells.obs[LABEL].to_numpy(str)[rows]
    return Study(counts, kinds, number[rows], np.array(treated, bool))


def new_donor_studies(
    synth: scld.Synthesizer,
    obs: pd.DataFrame,
    splits: Sequence[tuple[list[str], list[str]]],
    seed: int,
    folds: Folds | None = None,
) -> Iterator[Study]:
    """One study per split: new donors, each with the cells of one of its donors."""
    for number, (control, treated) in enumerate(splits):
        donors = [*control, *treated]
        names = {donor: f"new_{number}_{i}" for i, donor in enumerate(donors)}
        rows = obs[obs[DONOR].isin(donors)]
        group = np.where(rows[DONOR].isin(treated), TREATED, CONTROL)
        table = pd.DataFrame({LABEL: rows[LABEL], DONOR: rows[DONOR].map(names), GROUP: group})
        options = {"seed": 1000 * seed + number, "progress": False, **planting(folds)}
        cells = synth.sample(obs=table, new_donors=DONOR, **options)
        yield study_of(cells, list(names.values()), [each in treated for each in donors])
