"""From cells to cells: rare ones topped up, the same ones under another label, a path between two populations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from scld.config import EditingConfig
from scld.data import count_matrix, read
from scld.errors import DataError, RequestError, listed, nearest
from scld.generator import PAGE, Generator, Plan, Start, alone
from scld.path import along, path
from scld.request import Wanted, free_name, marked, wanted, whole
from scld.schema import MISSING, Schema

if TYPE_CHECKING:
    from anndata import AnnData

Cells = Any  # an AnnData, or the path of one
SYNTHETIC = "synthetic"  # the obs column that tells new cells from the originals
POSITION = "position"  # the obs column that says where on a path a cell lies
_END_PAGE = 2**64 - 2  # the noise of the cells that an end of a path is the mean of; no other page has this number


@dataclass(frozen=True)
class Fitted:
    """What there is to edit cells with."""

    generator: Generator
    schema: Schema
    genes: pd.DataFrame  # columns gene and seen


def matched(adata: AnnData, genes: pd.DataFrame) -> sp.csr_matrix:
    """Checked counts ``[cells, genes]`` of cells that have a model's genes, in any order: those that training saw, in its order."""
    counts, order = count_matrix(adata), adata.var_names.astype(str).get_indexer(genes["gene"])
    strange = adata.var_names[~adata.var_names.astype(str).isin(genes["gene"])]
    if (order < 0).any() or len(strange):
        wrong = ((genes["gene"][order < 0].tolist(), "of the model's genes are missing"), (list(strange), "are not its own"))
        seen = " and ".join(f"{len(names):,} {what} ({listed(names, 3)})" for names, what in wrong if names)
        raise DataError(f"var_names: {seen}; pass cells with the genes of training, in any order")
    known = counts[:, order[genes["seen"].to_numpy()]]
    empty = np.diff(known.indptr) == 0
    if empty.any():
        first = str(adata.obs_names[empty][0])
        raise DataError(f"X: {int(empty.sum()):,} cells have counts only in genes that training never saw (first: {first!r}); drop them")
    return known


def shortfall(adata: AnnData, label: str, to: int | str | Mapping[Any, int], schema: Schema) -> pd.DataFrame:
    """One row for each cell that the categories of a label lack to a stated number: a table as `Synthesizer.sample` takes it."""
    _made_before(adata.obs)  # what could not be marked is refused now, not when the cells are made
    names = [known.name for known in schema.labels]
    if label not in names:
        raise RequestError(f"label: {label!r} is not a label of this model; labels: {listed(names) or 'none'}{nearest(str(label), names)}")
    known = schema.labels[names.index(label)]
    have = np.bincount(_complete(adata.obs, label, schema), minlength=len(known.categories))
    want = {known.code(category): number for category, number in _stated(to, have, known.categories).items()}
    lacking = [max(0, want.get(code, 0) - cells) for code, cells in enumerate(have.tolist())]
    values = [category for category, cells in zip(known.categories, lacking, strict=True) for _ in range(cells)]
    taken = set(adata.obs_names)
    free = (name for name in map("synthetic_{}".format, itertools.count()) if name not in taken)
    return pd.DataFrame({label: pd.Series(values, dtype=object)}).set_axis(list(itertools.islice(free, len(values))))


def _complete(obs: pd.DataFrame, label: str, schema: Schema) -> np.ndarray:
    """Codes ``[cells]`` of a label that every cell has."""
    if list(obs.columns).count(label) != 1:
        columns = list(map(str, obs.columns))
        raise DataError(f"label {label!r}: {columns.count(label)} obs columns have this name; one is needed; columns: {listed(columns) or 'none'}")
    codes = schema.codes(obs[[label]])[:, [known.name for known in schema.labels].index(label)]
    if (codes == MISSING).any():
        first = str(obs.index[codes == MISSING][0])
        raise DataError(f"label {label!r}: {int((codes == MISSING).sum()):,} cells have none (first: {first!r}); fill it in, or drop these cells")
    return codes


def _stated(to: int | str | Mapping[Any, int], have: np.ndarray, categories: tuple[Any, ...]) -> dict[Any, int]:
    """Number of cells that each category is to reach."""
    if isinstance(to, Mapping):
        return {category: whole(f"to: {category!r}", number, 0) for category, number in to.items()}
    if isinstance(to, str) and to != "balance":
        raise RequestError(f"to: got {to!r}; allowed are a number of cells, 'balance', or a dict of category and number")
    number = int(have.max()) if to == "balance" else whole("to", to, 1)
    return {category: number for category, cells in zip(categories, have, strict=True) if cells}


def appended(adata: AnnData, made: AnnData | None, schema: Schema) -> AnnData:
    """The originals as they are, then new cells, told apart by an obs column."""
    import anndata as ad

    marks = np.append(_made_before(adata.obs), np.ones(0 if made is None else made.n_obs, bool))
    if made is None:
        return ad.AnnData(X=adata.X, obs=adata.obs.assign(**{SYNTHETIC: marks}), var=adata.var).copy()
    made = made[:, adata.var_names.astype(str)]
    obs = _longer(adata.obs.drop(columns=SYNTHETIC, errors="ignore"), made.obs, schema).assign(**{SYNTHETIC: marks})
    return ad.AnnData(X=_stacked(adata.X, sp.csr_matrix(made.X)), obs=obs, var=adata.var.copy(), uns=dict(made.uns))


def _made_before(obs: pd.DataFrame) -> np.ndarray:
    """Which cells come marked as synthetic already."""
    marks = obs.get(SYNTHETIC, pd.Series(False, index=obs.index))
    if marks.dtype != bool:
        raise DataError(f"obs: has a column {SYNTHETIC!r} that is not true or false, the name of the one that marks new cells; rename it")
    return marks.to_numpy()


def _stacked(counts: Any, new: sp.csr_matrix) -> Any:
    """In the form and number type of the first, or a wider type if the new counts need it."""
    counts = counts.compute() if hasattr(counts, "compute") else counts
    with np.errstate(invalid="ignore"):
        fits = (new.data.astype(counts.dtype) == new.data).all()
    dtype = counts.dtype if fits else np.result_type(counts.dtype, np.float32)
    counts, new = counts.astype(dtype, copy=False), new.astype(dtype)
    return np.vstack([counts, new.toarray()]) if isinstance(counts, np.ndarray) else sp.vstack([counts, new], format=counts.format)


def _longer(obs: pd.DataFrame, new: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """The labels of new cells below those of the originals; in other columns they have none."""
    labels, rows = [label.name for label in schema.labels], pd.RangeIndex(len(obs) + len(new))
    others = obs.drop(columns=labels, errors="ignore").apply(_nullable).reset_index(drop=True).reindex(rows)
    columns = {name: _joined(obs[name], new[name]) if name in obs else new[name].set_axis(rows[len(obs) :]).reindex(rows) for name in labels}
    table: pd.DataFrame = others.assign(**columns)[[*obs, *(name for name in labels if name not in obs)]]
    return table.set_axis(obs.index.astype(str).append(new.index))


def _joined(column: pd.Series, new: pd.Series) -> pd.Series:
    """In the kind of the first: a category is written as it stands there."""
    texts = {str(value): value for value in column.dropna().unique()}
    values = [texts.get(str(value), value) for value in new]
    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = [*column.cat.categories, *(value for value in dict.fromkeys(values) if value not in column.cat.categories and pd.notna(value))]
        return pd.Series(pd.Categorical([*column, *values], categories=categories, ordered=column.cat.ordered))
    column = _nullable(column) if new.isna().any() else column
    joined: pd.Series = pd.concat([column, pd.Series(values, dtype=column.dtype)], ignore_index=True)
    return joined


def _nullable(column: pd.Series) -> pd.Series:
    """The same values, in a kind that can be missing and be written to a file."""
    if column.dtype.kind in "iub":
        return column.convert_dtypes()
    return column.astype("category") if pd.api.types.is_string_dtype(column) else column


def transferred(adata: AnnData, to: Mapping[str, object], fitted: Fitted, strength: float) -> Wanted:
    """The same cells under other labels; below full strength they begin at their own latent points, shifted, and keep their depth."""
    schema, fixed = fitted.schema, fitted.schema.fixed(to, "to")
    if not fixed or any(len(codes) != 1 or codes[0] == MISSING for codes in fixed.values()):
        raise RequestError(f"to: got {to!r}; name at least one label, and one category for each, such as {{'condition': 'stimulated'}}")
    counts, before = matched(adata, fitted.genes), schema.codes(adata.obs, lenient=tuple(to))
    codes = before.copy()
    codes[:, list(fixed)] = [code for (code,) in fixed.values()]
    start = None if strength == 1 else Start(alone(lambda: _moved(counts, before, list(fixed), codes, fitted.generator)), keep_library=True)
    return Wanted(codes, adata.obs_names.astype(str), start, marked(codes, schema))


def _moved(counts: sp.csr_matrix, before: np.ndarray, columns: list[int], codes: np.ndarray, generator: Generator) -> np.ndarray:
    """Latent points ``[cells, dims]``, moved by the difference that the new labels make on average; the library size stays."""
    points = generator.encode(counts)
    if generator.means is None:
        return points
    before = generator.means.completed(points, before)
    after = before.copy()
    after[:, columns] = codes[:, columns]
    move = generator.means.moves(before, after)
    move[:, -1] = 0
    moved: np.ndarray = points + move
    return moved


def between(ends: tuple[Cells, Cells], n: int, fitted: Fitted, plans: tuple[Plan, Plan], config: EditingConfig, unseen: bool) -> Wanted:
    """Cells along a path from one population to another, made without labels but for the first and the last.

    The first plan is for the populations, the second for the cells.
    """
    positions, schema = np.linspace(0, 1, whole("n", n, 2)), fitted.schema
    (start, first), (stop, last) = (_end(end, fitted, plans[0], unseen) for end in ends)
    codes = np.full((n, len(schema.labels)), MISSING)
    codes[0], codes[-1] = first, last
    string = alone(lambda: _string(np.stack([start, stop]), fitted.generator, plans[1], config))
    points = along(string, torch.from_numpy(positions).to(string)).cpu().numpy()
    return Wanted(codes, start=Start(points, keep_library=False), marks={free_name(POSITION, schema): positions, **marked(codes, schema)})


def _end(end: Cells, fitted: Fitted, plan: Plan, unseen: bool) -> tuple[np.ndarray, np.ndarray]:
    """The mean latent point of a population, and the labels that all of its cells were asked to have."""
    generator, schema = fitted.generator, fitted.schema
    if not isinstance(end, Mapping):
        counts = matched(read(end), fitted.genes)
        return alone(lambda: generator.encode(counts)).mean(axis=0), np.full(len(schema.labels), MISSING)
    codes = wanted(PAGE, end, None, schema, plan.seed, unseen).codes
    points = alone(lambda: generator.latents(_END_PAGE, codes, plan)).cpu().numpy()
    return points.mean(axis=0), np.where((codes == codes[0]).all(axis=0), codes[0], MISSING)


@torch.inference_mode()
def _string(ends: np.ndarray, generator: Generator, plan: Plan, config: EditingConfig) -> torch.Tensor:
    """A path on the denoiser without labels, down to the noise level that cells then begin at."""
    device, points = generator.centre.device, config.path_points
    unlabelled = torch.full((points, len(plan.weights)), MISSING, device=device)
    sigmas = torch.from_numpy(np.geomspace(config.path_sigma, float(plan.sigmas[0]), config.path_steps, dtype=np.float32)).to(device)
    return path(lambda x, sigma: generator.denoiser(x, sigma, unlabelled), torch.from_numpy(ends).to(device), points, sigmas)
