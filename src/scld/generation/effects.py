"""Designed effects: chosen genes with chosen fold changes, in chosen cells."""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scld.errors import RequestError, check_int, listed, nearest
from scld.generation.changes import Rows

LARGEST = 10.0  # log2 fold change
EFFECT, GENE, LOG2FC = "effect", "gene", "log2fc"  # columns of a table of effects; the rest of it
ANY = ""  # are conditions: in which every value matches
IN_EFFECTS = "in_effects"  # obs column: numbers of the effects that a cell has


@dataclass(frozen=True)
class Effect:
    """Log2 fold changes of the expected counts of some genes, in the cells that match.

    Parameters
    ----------
    log2fc
        Log2 fold change of each gene, from -10 to 10.
    where
        Category, or list of categories, of each obs column that a cell must have. Any column of the
        table of cells, also those that the model does not know. Empty: all cells.

    Raises
    ------
    RequestError
        No gene, a fold change out of range, an empty list of categories.

    Examples
    --------
    >>> effect = Effect({"ISG15": 2, "IFI6": 1}, where={"group": "treated"})
    >>> effect.table()[["gene", "log2fc", "group"]].values.tolist()
    [['ISG15', 2.0, 'treated'], ['IFI6', 1.0, 'treated']]
    """

    log2fc: Mapping[str, float]
    where: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in ("log2fc", "where"):
            if not isinstance(getattr(self, what), Mapping):
                example = "Effect({'ISG15': 2.0}, where={'group': 'treated'})"
                seen = type(getattr(self, what)).__name__
                raise RequestError(f"effects: {what} is {seen}; pass a dict, such as {example}")
        if not self.log2fc:
            raise RequestError("effects: an effect without genes; name one, such as {'ISG15': 2.0}")
        for gene, value in self.log2fc.items():
            _check_log2fc(gene, value)
        for column, values in self.where.items():
            texts = _texts(values)
            if not texts or ANY in texts:
                seen = f"{column!r} is an empty {'text' if texts else 'list'}"
                advice = f"name a category, or leave {column!r} out"
                raise RequestError(f"effects: where: {seen}; {advice}")
            if column in (EFFECT, GENE, LOG2FC):
                seen = f"{column!r} is a column of a table of effects"
                raise RequestError(f"effects: where: {seen}; rename it in the table of cells")

    def table(self) -> pd.DataFrame:
        """One row per gene and combination of categories; the format of ``effects.csv``."""
        columns = [GENE, LOG2FC, *map(str, self.where)]
        combinations = list(itertools.product(*map(_texts, self.where.values())))
        rows = [(g, float(x), *c) for c in combinations for g, x in self.log2fc.items()]
        return pd.DataFrame(rows, columns=columns)

    def matches(self, obs: pd.DataFrame) -> np.ndarray:
        """Which cells of a table match ``[cells]``."""
        found = np.ones(len(obs), bool)
        for column, values in self.where.items():
            if column not in obs:
                known = list(map(str, obs.columns))
                seen = f"no column {column!r} in the table of cells"
                near = nearest(str(column), known)
                raise RequestError(f"effects: {seen}; columns: {listed(known) or 'none'}{near}")
            found &= np.isin(_column_texts(obs[column]), _texts(values))
        return found


def random_effect(
    number: int,
    expected: pd.Series,
    *,
    where: Mapping[str, object],
    sizes: float | tuple[float, float],
    least: float,
    seed: int,
) -> Effect:
    """An effect on random genes: see `Synthesizer.random_effect`.

    ``expected`` holds the expected counts of a cell by gene.
    """
    check_int("n", number, 1)
    if not isinstance(least, Real) or not least >= 0:
        raise RequestError(f"least: got {least!r}; allowed are expected counts of 0 or more")
    candidates = expected.index[expected >= least]
    if number > len(candidates):
        seen = f"{len(candidates):,} genes have at least {least:g} expected counts in a cell"
        raise RequestError(f"n: got {number:,}, but {seen}; lower n or least")
    low, high = _interval(sizes)
    text = json.dumps([seed, {str(name): _texts(values) for name, values in where.items()}])
    random = np.random.default_rng(list(hashlib.sha256(text.encode()).digest()))
    genes = random.choice(candidates.to_numpy(), number, replace=False)
    signs = np.where(np.arange(number) % 2 == 0, 1.0, -1.0)
    values = (signs * random.uniform(low, high, number)).tolist()
    return Effect(dict(zip(genes.tolist(), values, strict=True)), where)


def _interval(sizes: Any) -> tuple[float, float]:
    """Smallest and largest absolute log2 fold change."""
    ends = [sizes, sizes] if isinstance(sizes, Real) else sizes
    numbers = isinstance(ends, list | tuple) and all(
        isinstance(end, Real) and not isinstance(end, bool) for end in ends
    )
    if not numbers or len(ends) != 2 or not 0 < float(ends[0]) <= float(ends[1]) <= LARGEST:
        allowed = f"a log2 fold change above 0 and up to {LARGEST:g}, or an interval of these"
        raise RequestError(f"size: got {sizes!r}; allowed are {allowed}")
    return float(ends[0]), float(ends[1])


def effects_table(effects: Sequence[Effect]) -> pd.DataFrame:
    """All effects as one table: number of the effect, gene, log2fc and one column per condition.

    A condition that an effect does not have is an empty text.
    """
    tables = [effect.table().assign(**{EFFECT: i}) for i, effect in enumerate(effects, 1)]
    table = pd.concat(tables, ignore_index=True).fillna(ANY)
    order = [EFFECT, GENE, LOG2FC]
    table = table[order + [name for name in table if name not in order]]
    return table.set_axis(table.index.astype(str))  # as AnnData stores it


def effects_of(table: pd.DataFrame, place: str = "effects") -> list[Effect]:
    """The inverse of `effects_table`: one effect per number and combination of conditions.

    A column ``effect`` can be left out. Missing values match every cell.

    Raises
    ------
    RequestError
        No column ``gene`` or ``log2fc``, no rows, a gene twice in the same effect.
    """
    if GENE not in table or LOG2FC not in table or not len(table):
        columns = listed(list(map(str, table.columns)))
        allowed = "one row per gene, with columns gene, log2fc and one per condition"
        raise RequestError(f"{place}: {len(table)} rows with columns {columns}; write {allowed}")
    needed = table[[name for name in (EFFECT, GENE, LOG2FC) if name in table]].isna()
    if needed.any(axis=None):
        row, column = np.argwhere(needed.to_numpy())[0]
        raise RequestError(f"{place}: row {row + 1} has no {needed.columns[column]}; fill it in")
    conditions = [name for name in table if name not in (EFFECT, GENE, LOG2FC)]
    texts = table[conditions].astype(object).where(table[conditions].notna(), ANY).astype(str)
    numbers = table[EFFECT] if EFFECT in table else pd.Series(0, index=table.index)
    keys = [numbers, *(texts[name] for name in conditions)]
    effects = []
    for key, rows in table.groupby(keys, sort=False):
        values = zip(conditions, key[1:], strict=True)
        where = {str(name): value for name, value in values if value != ANY}
        repeated = rows[GENE][rows[GENE].duplicated()]
        if len(repeated):
            seen = f"gene {repeated.iloc[0]!r} has several rows with the same conditions"
            raise RequestError(f"{place}: {seen}; keep one")
        names = map(str, rows[GENE])
        effects.append(Effect(dict(zip(names, rows[LOG2FC], strict=True)), where))
    return effects


class FoldChanges(NamedTuple):
    """What some effects do to some cells."""

    factors: Rows  # [cells, seen genes] of expected counts
    numbers: pd.Categorical  # [cells] of the effects that each cell has, from 1: "1, 3"


def fold_changes(effects: Any, obs: pd.DataFrame, genes: pd.DataFrame) -> FoldChanges:
    """The product of all effects that match each cell.

    Parameters
    ----------
    effects
        At least one.
    obs
        The cells.
    genes
        Columns ``gene`` and ``seen``, one row per gene of the model.

    Raises
    ------
    RequestError
        An effect that matches no cell, or an unknown gene.
    """
    folds = _of_genes(effects, genes)
    matches = np.stack([effect.matches(obs) for effect in effects], axis=1)
    for effect, cells in zip(effects, matches.T, strict=True):
        if not cells.any():
            texts = [(name, np.unique(_column_texts(obs[name])).tolist()) for name in effect.where]
            known = "; ".join(f"{name}: {listed(some)}" for name, some in texts)
            seen = f"no cell has {dict(effect.where)!r}, so the effect would change nothing"
            raise RequestError(f"effects: {seen}; known: {known or 'no cells'}")
    sets, of = np.unique(matches, axis=0, return_inverse=True)
    _warn_if_added(sets, folds, genes)
    names = [", ".join(map(str, np.flatnonzero(row) + 1)) for row in sets]
    factors = Rows(np.exp2(sets.astype(np.float32) @ folds).astype(np.float32), of.ravel())
    return FoldChanges(factors, pd.Categorical(np.array(names, dtype=object)[of.ravel()]))


def check_effects(effects: Any) -> list[Effect]:
    """A list of effects; `RequestError` for anything else."""
    listed = list(effects) if isinstance(effects, Iterable) else [effects]
    if not isinstance(effects, Iterable) or not all(isinstance(e, Effect) for e in listed):
        advice = "pass a list: [scld.Effect({'ISG15': 2.0}, where={'group': 'treated'})]"
        raise RequestError(f"effects: got {type(effects).__name__}; {advice}")
    return listed


def gene_columns(effects: Sequence[Effect], genes: pd.Series) -> dict[str, np.ndarray]:
    """var columns: the log2 fold change of each gene in each effect."""
    return {
        f"log2fc_{i}": genes.map(effect.log2fc).fillna(0.0).to_numpy(float)
        for i, effect in enumerate(effects, 1)
    }


def _of_genes(effects: Sequence[Effect], genes: pd.DataFrame) -> np.ndarray:
    """Log2 fold changes ``[effects, seen genes]``."""
    known, seen = set(genes["gene"]), genes["gene"][genes["seen"]]
    expressed = set(seen)
    folds = []
    for effect in effects:
        unknown = [gene for gene in effect.log2fc if gene not in known]
        if unknown:
            near = nearest(str(unknown[0]), genes["gene"].tolist()) or "; check its name"
            raise RequestError(f"effects: {unknown[0]!r} is not a gene of this model{near}")
        unseen = [gene for gene in effect.log2fc if gene not in expressed]
        if unseen:
            what = f"training saw no count of gene {unseen[0]!r}, so it is never expressed"
            raise RequestError(f"effects: {what}; leave it out")
        folds.append(seen.map(dict(effect.log2fc)).fillna(0.0).to_numpy(np.float32))
    return np.stack(folds)


def _warn_if_added(sets: np.ndarray, folds: np.ndarray, genes: pd.DataFrame) -> None:
    several = ((sets.astype(int) @ (folds != 0).astype(int)) > 1).any(axis=0)
    if several.any():
        names = listed(genes["gene"][genes["seen"]][several].tolist(), 3)
        seen = f"several effects on the same genes of the same cells ({names})"
        warnings.warn(f"effects: {seen}; their log2 fold changes add up", stacklevel=7)


def _check_log2fc(gene: Any, value: Any) -> None:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not -LARGEST <= value <= LARGEST:
        allowed = f"log2 fold changes from {-LARGEST:g} to {LARGEST:g}"
        raise RequestError(f"effects: gene {gene!r}: got {value!r}; allowed are {allowed}")


def _texts(values: object) -> list[str]:
    """Categories as text, each once."""
    several: Any = values if pd.api.types.is_list_like(values) else [values]
    return list(dict.fromkeys(map(_text, several)))


def _text(value: Any) -> str:
    """A category as text: 1 and 1.0 are the same."""
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if whole else str(value)


def _column_texts(column: pd.Series) -> np.ndarray:
    """The values of a column as text; a missing one is an empty text."""
    codes, values = pd.factorize(column)
    return np.array([*map(_text, values), ANY], dtype=object)[codes].astype(str)
