"""Real cells in: rare categories oversampled, or the same cells under other labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.errors import DataError, RequestError, check_int, listed
from scld.generation.generator import Generator
from scld.generation.options import SamplingOptions
from scld.generation.request import (
    SamplingRequest,
    digest_of,
    request_table,
    seen_column,
    synthetic_name,
)
from scld.io.counts import count_matrix
from scld.io.read import native
from scld.schema import MISSING, Schema, label_column

if TYPE_CHECKING:
    from anndata import AnnData


def matched_counts(adata: AnnData, genes: pd.DataFrame) -> sp.csr_matrix:
    """Validated counts ``[cells, genes]`` in the genes that a model saw, in its order.

    Parameters
    ----------
    adata
        Cells with the genes of the model, in any order.
    genes
        Columns ``gene`` and ``seen``, one row per gene of the model.
    """
    counts, names = count_matrix(adata), adata.var_names.astype(str)
    order = names.get_indexer(genes["gene"])
    missing = genes["gene"][order < 0].tolist()
    unknown = list(names[~names.isin(genes["gene"])])
    if missing or unknown:
        parts = ((missing, "of the model's genes are missing"), (unknown, "are not its genes"))
        seen = [f"{len(part):,} {what} ({listed(part, 3)})" for part, what in parts if part]
        advice = "pass cells with the genes of training, in any order"
        raise DataError(f"var_names: {' and '.join(seen)}; {advice}")
    known = counts[:, order[genes["seen"].to_numpy()]]
    empty = np.diff(known.indptr) == 0
    if empty.any():
        first = str(adata.obs_names[empty][0])
        seen_in = f"{int(empty.sum()):,} cells have counts only in genes that training never saw"
        raise DataError(f"X: {seen_in} (first: {first!r}); drop them")
    return known


def shortfall(
    adata: AnnData, label: str, to: int | str | Mapping[Any, int], schema: Schema
) -> pd.DataFrame:
    """One row per cell that the categories of a label lack, a table for `request_table`."""
    _synthetic_column(adata.obs, schema)  # refuse what could not be marked, before the work
    known = schema.labels[schema.column(label, "label")]
    codes = known.encode(label_column(adata.obs, label, complete=True))
    have = np.bincount(codes, minlength=len(known.categories))
    targets = _targets(to, have, known.categories)
    want = {known.code(category): number for category, number in targets.items()}
    lacking = [max(0, want.get(code, 0) - cells) for code, cells in enumerate(have.tolist())]
    pairs = zip(known.categories, lacking, strict=True)
    values = [category for category, number in pairs for _ in range(number)]
    return pd.DataFrame({label: pd.Series(values, dtype=object)})


def _targets(
    to: int | str | Mapping[Any, int], have: np.ndarray, categories: tuple[Any, ...]
) -> dict[Any, int]:
    """Number of cells that each category is to have at least."""
    if isinstance(to, Mapping):
        return {name: check_int(f"to: {name!r}", number, 0) for name, number in to.items()}
    if isinstance(to, str) and to != "balance":
        allowed = "a number of cells, 'balance', or a dict of category and number"
        raise RequestError(f"to: got {to!r}; allowed are {allowed}")
    number = int(have.max()) if to == "balance" else check_int("to", to, 1)
    return {name: number for name, cells in zip(categories, have, strict=True) if cells}


def appended(adata: AnnData, generated: AnnData | None, schema: Schema) -> AnnData:
    """Real cells as they are, then generated ones, marked in the obs column ``synthetic``."""
    import anndata as ad

    number, mark = 0 if generated is None else generated.n_obs, synthetic_name(schema)
    marks = np.append(_synthetic_column(adata.obs, schema), np.ones(number, bool))
    if generated is None:
        obs = adata.obs.assign(**{mark: marks})
        obs, var = (table.set_axis(table.index.astype(str)) for table in (obs, adata.var))
        return ad.AnnData(X=adata.X, obs=obs, var=var).copy()
    var = adata.var.set_axis(adata.var_names.astype(str))
    generated = generated[:, var.index]
    _check_not_there(adata.obs_names, generated.obs_names)
    real = adata.obs.drop(columns=mark, errors="ignore")
    obs = _joined_obs(real, generated.obs, schema).assign(**{mark: marks})
    matrix = _stacked(adata.X, sp.csr_matrix(generated.X))
    return ad.AnnData(X=matrix, obs=obs, var=var, uns=dict(generated.uns))


def _check_not_there(names: pd.Index, new: pd.Index) -> None:
    known = names.astype(str).intersection(new)
    if len(known):
        seen = f"{len(known):,} of the synthetic cells are in the source already"
        raise RequestError(f"seed: {seen} (first: {str(known[0])!r}); pass another seed")


def _synthetic_column(obs: pd.DataFrame, schema: Schema) -> np.ndarray:
    """Which cells are marked as synthetic already."""
    name = synthetic_name(schema)
    marks = obs.get(name, pd.Series(False, index=obs.index))
    if marks.dtype != bool:
        seen = f"column {name!r} is not boolean, and new cells are marked in it"
        raise DataError(f"obs: {seen}; rename it")
    return marks.to_numpy()


def _stacked(counts: Any, new: sp.csr_matrix) -> Any:
    """In the format and dtype of the first, or a wider dtype if the new counts need it."""
    counts = native(counts.compute() if hasattr(counts, "compute") else counts)
    with np.errstate(invalid="ignore"):
        fits = (new.data.astype(counts.dtype) == new.data).all()
    dtype = counts.dtype if fits else np.result_type(counts.dtype, np.float32)
    counts, new = counts.astype(dtype, copy=False), new.astype(dtype)
    if isinstance(counts, np.ndarray):
        return np.vstack([counts, new.toarray()])
    return sp.vstack([counts, new], format=counts.format)


def _joined_obs(obs: pd.DataFrame, new: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Labels of new cells below those of the real ones; other columns are missing for them."""
    rows = pd.RangeIndex(len(obs) + len(new))
    others = obs.drop(columns=schema.names, errors="ignore").apply(_nullable)
    others = others.reset_index(drop=True).reindex(rows)
    columns = {
        name: _joined(obs[name], new[name])
        if name in obs
        else new[name].set_axis(rows[len(obs) :]).reindex(rows)
        for name in schema.names
    }
    order = [*obs, *(name for name in schema.names if name not in obs)]
    table: pd.DataFrame = others.assign(**columns)[order]
    return table.set_axis(obs.index.astype(str).append(new.index))


def _joined(column: pd.Series, new: pd.Series) -> pd.Series:
    """In the dtype of the first, its categories spelled as they are there."""
    texts = {str(value): value for value in column.dropna().unique()}
    values = [texts.get(str(value), value) for value in new]
    if isinstance(column.dtype, pd.CategoricalDtype):
        known = column.cat.categories
        extra = [v for v in dict.fromkeys(values) if v not in known and pd.notna(v)]
        ordered = column.cat.ordered
        joined = pd.Categorical([*column, *values], categories=[*known, *extra], ordered=ordered)
        return pd.Series(joined)
    column = _nullable(column) if new.isna().any() else column
    both: pd.Series = pd.concat([column, pd.Series(values, dtype=column.dtype)], ignore_index=True)
    return both


def _nullable(column: pd.Series) -> pd.Series:
    """The same values, in a dtype that has missing values and can be written to a file."""
    if column.dtype.kind in "iub":
        return column.convert_dtypes()
    return column.astype("category") if pd.api.types.is_string_dtype(column) else column


def check_transfer(to: Any, schema: Schema) -> dict[int, int]:
    """Column of each label to change -> its new code."""
    fixed = schema.fixed(to, "to")
    if not fixed or any(len(codes) != 1 or codes[0] == MISSING for codes in fixed.values()):
        example = "{'condition': 'stimulated'}"
        allowed = f"name at least one label, and one category for each, such as {example}"
        raise RequestError(f"to: got {to!r}; {allowed}")
    return {column: code for column, (code,) in fixed.items()}


def transfer_request(
    adata: AnnData,
    to: Mapping[str, object],
    options: SamplingOptions,
    generator: Generator,
    schema: Schema,
    genes: pd.DataFrame,
) -> SamplingRequest:
    """The same cells under other labels.

    Below strength 1 they start at their own latent points, shifted by the mean difference that the
    new labels make, and keep their library size. At strength 1 nothing but their labels is kept,
    so that they are what `request_table` asks for.
    """
    fixed, counts = check_transfer(to, schema), matched_counts(adata, genes)
    before = schema.codes(adata.obs, lenient=tuple(to))
    after = before.copy()
    after[:, list(fixed)] = list(fixed.values())
    names = adata.obs_names.astype(str)
    if options.strength == 1:
        table = schema.frame(after).set_index(names)
        return replace(request_table(table, schema, options.seed), prefixed=True)
    points = generator.encode(counts)
    known = generator.means.completed(points, before)
    changed = known.copy()
    changed[:, list(fixed)] = list(fixed.values())
    difference = generator.means.differences(known, changed)
    difference[:, -1] = 0  # the library size stays
    start, seen = points + difference, seen_column(after, schema)
    key = digest_of(after, start)
    return SamplingRequest(after, names, start, seen, key=key, prefixed=True)
