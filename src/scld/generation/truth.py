"""The true fold changes between groups of generated cells, from their expected counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scld.errors import DataError, listed, nearest
from scld.generation.effects import EFFECT, GENE, IN_EFFECTS, LOG2FC, Effect

if TYPE_CHECKING:
    from anndata import AnnData

MEAN = "mean"  # layer of expected counts


def truth(
    adata: AnnData,
    column: str,
    group: object,
    reference: object,
    *,
    within: Mapping[str, object] | None = None,
) -> pd.DataFrame:
    """True log2 fold changes of the mean expected counts of one group of cells over another.

    The fold change of a gene has two parts. ``effect`` is what the designed effects do to the cells
    of both groups. ``composition`` is the rest: the groups hold other cells (types, states, library
    sizes). With the same cells in both groups it is zero.

    Parameters
    ----------
    adata
        Cells from ``sample(..., mean=True)``.
    column
        obs column of the groups.
    group, reference
        Values of this column.
    within
        Category, or list of categories, of obs columns that cells of both groups must have.

    Returns
    -------
    pandas.DataFrame
        One row per gene: ``log2fc`` = ``effect`` + ``composition``, and ``mean``, the expected
        counts in ``reference``. Missing for genes that are never expressed.

    Raises
    ------
    DataError
        No expected counts, no such column, or no cell in a group.

    Examples
    --------
    >>> import scld
    >>> synth = scld.Synthesizer("cell_type", config=scld.Config.preset("quick"))
    >>> synth = synth.fit(scld.datasets.pbmc(), progress=False)
    >>> table = synth.schema.frame(np.zeros((20, 1), int)).assign(group=["a", "b"] * 10)
    >>> effect = scld.Effect({"CD3D": 1.0}, where={"group": "a"})
    >>> cells = synth.sample(obs=table, effects=[effect], mean=True, progress=False)
    >>> scld.truth(cells, "group", "a", "b").loc["CD3D", "effect"].round(6)
    np.float64(1.0)
    """
    _check(adata, column, within)
    within = within or {}
    masks = [_cells(adata.obs, {**within, column: value}) for value in (group, reference)]
    changed, before = zip(*(_means(adata[mask]) for mask in masks), strict=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        total, unchanged = (np.log2(a / b) for a, b in (changed, before))
    table = {"log2fc": total, "effect": total - unchanged, "composition": unchanged}
    return pd.DataFrame({**table, "mean": changed[1]}, index=adata.var_names)


def _check(adata: AnnData, column: str, within: Any) -> None:
    if not hasattr(adata, "layers"):
        raise DataError(f"adata: got {type(adata).__name__}; pass an AnnData")
    if MEAN not in adata.layers:
        advice = "generate the cells with mean=True (--mean)"
        raise DataError(f"layers: no expected counts ({MEAN!r}); {advice}")
    settings = adata.uns.get("scld")
    if settings is None:
        advice = "keep it: ad.concat(..., merge='same', uns_merge='same')"
        raise DataError(f"uns: no record of scld, so the effects are not known; {advice}")
    if settings.get("fixed_depth", False) and adata.n_vars != settings["genes"]:
        seen = f"{adata.n_vars:,} of {int(settings['genes']):,} genes"
        advice = "with fixed_depth=True all are needed: select genes of the result"
        raise DataError(f"var: {seen}; {advice}")
    if "effects" in settings and IN_EFFECTS not in adata.obs:
        raise DataError(f"obs: no column {IN_EFFECTS!r}, which scld wrote; keep it")
    if within is not None and not isinstance(within, Mapping):
        example = "{'cell_type': 'B cell'}"
        raise DataError(f"within: got {within!r}; pass a dict, such as {example}")


def _means(some: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Mean expected counts ``[genes]`` of some cells, and the same without designed effects."""
    layer: Any = some.layers[MEAN]
    mean = np.asarray(layer.toarray() if hasattr(layer, "toarray") else layer).astype(float)
    settings = some.uns["scld"]
    if "effects" not in settings:
        return mean.mean(axis=0), mean.mean(axis=0)
    without = mean.copy()
    for numbers, rows in some.obs.reset_index().groupby(IN_EFFECTS, observed=True).indices.items():
        folds = _log2fc(some.var_names, settings["effects"], str(numbers))
        without[rows] *= np.exp2(-folds)
    if settings.get("fixed_depth", False):
        without *= mean.sum(axis=1, keepdims=True) / without.sum(axis=1, keepdims=True)
    return mean.mean(axis=0), without.mean(axis=0)


def _log2fc(genes: pd.Index, table: pd.DataFrame, numbers: str) -> np.ndarray:
    """Log2 fold changes ``[genes]`` of cells with these effects, such as "1, 3"."""
    wanted = [int(number) for number in numbers.split(", ") if number]
    rows = table[table[EFFECT].isin(wanted)].drop_duplicates([EFFECT, GENE])
    by_gene = rows.groupby(GENE)[LOG2FC].sum()
    folds: np.ndarray = by_gene.reindex(genes).fillna(0.0).to_numpy(float)
    return folds


def _cells(obs: pd.DataFrame, where: Mapping[str, Any]) -> np.ndarray:
    """Which cells have these values ``[cells]``."""
    for column in where:
        if column not in obs:
            known = list(map(str, obs.columns))
            near = nearest(str(column), known)
            raise DataError(f"obs: no column {column!r}; columns: {listed(known)}{near}")
    found: np.ndarray = Effect({"any": 0.0}, where).matches(obs)
    if not found.any():
        texts = [(name, sorted(map(str, obs[name].dropna().unique()))) for name in where]
        values = "; ".join(f"{name}: {listed(some)}" for name, some in texts)
        raise DataError(f"obs: no cell has {dict(where)!r}; known: {values}")
    return found
