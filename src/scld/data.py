"""Cells in, cells out: AnnData, .h5ad or .zarr -> counts, genes and labels, checked once at the door.

Everything behind this file may rely on what it promises: ``X`` is CSR, finite, integer-valued and non-negative, every
cell has counts, gene names are unique, and labels are codes into the categories of a `Schema`.
"""

from __future__ import annotations

import contextlib
import difflib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.errors import DataError, RequestError

if TYPE_CHECKING:
    from anndata import AnnData

MISSING = -1  # the code of a label that is not known, or left open


def read(source: AnnData | str | Path, layer: str | None = None) -> AnnData:
    """Read cells: the matrix, ``obs`` and the gene names, and nothing else that a file may hold.

    Parameters
    ----------
    source
        An AnnData in memory (returned as it is where ``layer`` is None), or the path of an ``.h5ad`` file or ``.zarr`` store.
    layer
        The layer to take as the matrix; ``X`` if None.

    Returns
    -------
    AnnData
        ``X`` is the chosen matrix, unchecked: see `count_matrix`.

    Raises
    ------
    DataError
        No such file, not an AnnData file, damaged, or without that layer.

    Examples
    --------
    >>> import scld
    >>> scld.data.read(scld.datasets.pbmc()).n_vars
    2000
    """
    import anndata as ad

    if isinstance(source, str | Path):
        return _read_path(Path(source).expanduser(), layer)
    if not isinstance(source, ad.AnnData):
        raise DataError(f"source: got {type(source).__name__}; pass an AnnData, or the path of an .h5ad file or .zarr store")
    cells = source.to_memory() if source.isbacked else source
    _check_layer(layer, list(cells.layers), "the AnnData")
    return cells if layer is None else _bare(cells.layers[layer], cells.obs, cells.var_names, f"layer {layer!r}", list(cells.layers))


def _read_path(path: Path, layer: str | None) -> AnnData:
    import anndata as ad

    if not path.exists():
        raise DataError(f"{_text(path)}: no such file; check the path{_nearest_file(path)}")
    if path.suffix.lower() not in {".h5ad", ".zarr"}:
        raise DataError(f"{_text(path)}: unknown ending {path.suffix!r}; pass an .h5ad file or a .zarr store (AnnData.write_h5ad makes one)")
    try:
        with _opened(path) as store:
            layers = list(store["layers"]) if "layers" in store else []
            _check_layer(layer, layers, _text(path))
            parts = ["X" if layer is None else f"layers/{layer}", "obs", "var"]
            _check_parts(parts, store, _text(path), layers)
            matrix, obs, var = (ad.io.read_elem(store[part]) for part in parts)
            return _bare(matrix, obs, var.index, f"{_text(path)}: {'X' if layer is None else f'layer {layer!r}'}", layers)
    except DataError:
        raise
    except Exception as error:  # HDF5, zarr and anndata each raise their own
        advice = "it is damaged, cut short, or not an AnnData file: copy, download or write it again"
        raise DataError(f"{_text(path)}: cannot be read ({_text(error)}); {advice}") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py
    import zarr

    if path.suffix.lower() == ".h5ad":
        with h5py.File(path, "r") as store:
            yield store
    else:
        yield zarr.open_group(path, mode="r", use_consolidated=False)  # the summary would hide that parts are gone


def _check_parts(parts: Sequence[str], store: Any, place: str, layers: Sequence[str]) -> None:
    missing = [part for part in parts if part not in store]
    if missing:
        known = f"(layers here: {_some(layers) or 'none'})"
        raise DataError(f"{place}: holds no {missing[0]!r}; pass what AnnData.write_h5ad or write_zarr wrote, or name a layer with layer= {known}")
    values: Any = store[parts[0]]["data"] if hasattr(store[parts[0]], "keys") else None
    if hasattr(values, "nchunks_initialized") and values.nchunks_initialized < values.nchunks:  # zarr would read them as zeros, which none of these are
        raise DataError(f"{place}: {values.nchunks - values.nchunks_initialized} of {values.nchunks} chunks of the counts are lost; copy or download it again")


_ORIGIN = "scld_origin"  # where a matrix was read from, for the errors of count_matrix


def _bare(matrix: Any, obs: pd.DataFrame, genes: pd.Index, place: str, layers: list[str]) -> AnnData:
    import anndata as ad

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # repeated gene names: an error in count_matrix; repeated cell names: no harm
        return ad.AnnData(X=matrix, obs=obs, var=pd.DataFrame(index=genes.astype(str)), uns={_ORIGIN: {"place": place, "layers": layers}})


def _check_layer(layer: str | None, layers: Sequence[str], place: str) -> None:
    if layer is not None and layer not in layers:
        known = _some(layers) or "none"
        raise DataError(f"layer {layer!r}: not in {place}; its layers: {known}; name one of them, or leave layer out to use X{nearest(layer, layers)}")


def count_matrix(adata: AnnData, place: str | None = None) -> sp.csr_matrix:
    """The raw counts of some cells, checked: CSR ``[cells, genes]``, float32, integer-valued, non-negative.

    Parameters
    ----------
    adata
        Cells, as `read` returns them; left as they are.
    place
        What to call the matrix in an error; where it was read from if None.

    Raises
    ------
    DataError
        Negative, non-finite or non-integer values, duplicate gene names, a cell without counts, no cells, a damaged matrix.

    Examples
    --------
    >>> import scld
    >>> scld.data.count_matrix(scld.datasets.pbmc()).dtype
    dtype('float32')
    """
    origin = adata.uns.get(_ORIGIN, {"place": "X", "layers": list(adata.layers)})
    place = place or origin["place"]
    hint = f"pass raw counts, or name the layer that holds them with layer= (layers here: {_some(origin['layers']) or 'none'})"
    if adata.X is None:
        raise DataError(f"{place}: there is no matrix; {hint}")
    _check_genes(adata.var_names, place)
    matrix = _as_csr(adata.X, place)
    _check_values(matrix.data, place, hint)
    matrix = matrix.astype(np.float32)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    _check_no_empty_cells(matrix, adata.obs_names, place)
    return matrix


def _check_genes(names: pd.Index, place: str) -> None:
    repeated = names[names.duplicated()]
    if names.hasnans:
        raise DataError(f"{place}: gene {int(names.isna().argmax()) + 1} of {len(names):,} has no name in var_names; give it one")
    if len(repeated):
        times = int((names == repeated[0]).sum())
        raise DataError(f"{place}: gene {str(repeated[0])!r} stands {times} times in var_names; names must be unique: call adata.var_names_make_unique()")


def _as_csr(matrix: Any, place: str) -> sp.csr_matrix:
    """Dense, CSR, CSC or Dask -> CSR, in its own number type; indices are checked before scipy trusts them."""
    if 0 in matrix.shape:
        raise DataError(f"{place}: holds {matrix.shape[0]} cells x {matrix.shape[1]} genes; pass at least one of each")
    if matrix.dtype.kind not in "biuf":
        raise DataError(f"{place}: holds {matrix.dtype}, not real numbers; pass raw counts as integers or floats")
    if hasattr(matrix, "compute"):
        matrix = matrix.compute()
    if isinstance(matrix, np.ndarray):
        return sp.csr_matrix(matrix.astype(np.float32) if matrix.dtype == np.float16 else matrix)  # scipy knows no float16
    try:
        matrix.check_format(full_check=True)
    except ValueError as error:
        raise DataError(f"{place}: a damaged sparse matrix ({_text(error)}); copy, download or write it again") from error
    return sp.csr_matrix(matrix)


def _check_values(values: np.ndarray, place: str, hint: str) -> None:
    allowed = f"allowed are counts 0, 1, 2, ...: {hint}"
    infinite = values[~np.isfinite(values)]
    if len(infinite):
        raise DataError(f"{place}: holds values that are not finite (first: {infinite[0]}; {len(infinite):,} in all); {allowed}")
    if len(values) and values.min() < 0:
        raise DataError(f"{place}: negative values (smallest: {values.min():.4g}), so these are scaled data, not counts; {allowed}")
    fractions = values[values != np.rint(values)]
    if len(fractions):
        kind = "log-normalised or otherwise transformed" if values.max() < 50 else "normalised"
        raise DataError(f"{place}: values such as {fractions[0]:.4g} are not whole numbers, so these look {kind}; {allowed}")
    if len(values) and values.max() >= 2**24:  # float32 holds every integer below
        raise DataError(f"{place}: the largest count is {values.max():.4g}; allowed are counts below {2**24:,}: check that these are UMI counts")


def _check_no_empty_cells(matrix: sp.csr_matrix, names: pd.Index, place: str) -> None:
    empty = np.diff(matrix.indptr) == 0
    if empty.any():
        seen = f"{int(empty.sum()):,} of {len(empty):,} cells have no counts (first: {str(names[empty][0])!r})"
        raise DataError(f"{place}: {seen}; a cell needs at least one: drop them, for example with scanpy.pp.filter_cells(adata, min_counts=1)")


@dataclass(frozen=True)
class Label:
    """One label: an obs column and the categories that training saw, in their order."""

    name: str
    categories: tuple[Any, ...]  # all strings, all integers, all floats or all booleans; anything else by its text
    ordered: bool = False

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {_key(category): code for code, category in enumerate(self.categories)}

    def code(self, value: Any) -> int:
        """The code of one category, given itself or its text; the error names the nearest one."""
        if _is_missing(value):
            return MISSING
        if _key(value) not in self._codes:
            known = list(self._codes)
            raise RequestError(f"label {self.name!r}: no category {_key(value)!r} in training; known: {_some(known)}{nearest(_key(value), known)}")
        return self._codes[_key(value)]


@dataclass(frozen=True, eq=False)
class Schema:
    """The labels of a training set, and how often each combination of them occurred.

    Parameters
    ----------
    labels
        One `Label` per obs column, in the order asked for.
    combinations
        ``[combinations, labels]`` codes, each row once; `MISSING` where a cell had no label.
    cells
        ``[combinations]`` number of training cells of each.

    Examples
    --------
    >>> import pandas as pd
    >>> schema = Schema.of(pd.DataFrame({"type": ["B", "T", "T"]}), ["type"])
    >>> schema.labels[0].categories, schema.cells.tolist()
    (('B', 'T'), [1, 2])
    """

    labels: tuple[Label, ...]
    combinations: np.ndarray
    cells: np.ndarray

    @classmethod
    def of(cls, obs: pd.DataFrame, names: Sequence[str]) -> Schema:
        """Read the labels off an obs table; `DataError` where a column is missing or cannot be a label."""
        names = [names] if isinstance(names, str) else list(names)
        repeated = [name for i, name in enumerate(names) if name in names[:i]]
        if repeated:
            raise DataError(f"labels: {repeated[0]!r} is named twice in {_some(names)}; name each label once")
        labels = tuple(_label_of(obs, name) for name in names)
        codes = encode_labels(obs, labels)
        combinations, cells = np.unique(codes, axis=0, return_counts=True) if labels else (np.zeros((1, 0), int), np.array([len(obs)]))
        return cls(labels, combinations.astype(np.int64), cells.astype(np.int64))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of categories of each label."""
        return tuple(len(label.categories) for label in self.labels)

    def category_cells(self, name: str) -> dict[str, int]:
        """Number of training cells of each category of one label."""
        column = [label.name for label in self.labels].index(name)
        counts = np.bincount(self.combinations[:, column] + 1, weights=self.cells, minlength=self.sizes[column] + 1)
        return dict(zip(map(str, self.labels[column].categories), counts[1:].astype(int).tolist(), strict=True))

    def codes(self, obs: pd.DataFrame) -> np.ndarray:
        """Codes ``[cells, labels]`` of an obs table; a missing column or value is left open."""
        return encode_labels(obs, self.labels)

    def draw(self, n: int, where: Mapping[str, Any] | None, rng: np.random.Generator) -> np.ndarray:
        """Draw the labels of ``n`` cells ``[n, labels]``: those in ``where`` fixed, the others by their training frequencies given these.

        A value of ``where`` is one category or a list of them.
        """
        weights = self.cells * self._matching({} if where is None else where)
        if not weights.sum():
            wanted = ", ".join(f"{name}={_text(repr(value))}" for name, value in (where or {}).items()) or "any label"
            raise RequestError(f"where: no training cell has {wanted}; to make a combination that training never saw, ask for it row by row: sample(obs=table)")
        return self.combinations[rng.choice(len(weights), size=n, p=weights / weights.sum())]

    def _matching(self, where: Mapping[str, Any]) -> np.ndarray:
        if not isinstance(where, Mapping):
            raise RequestError(f"where: got {type(where).__name__}; pass a dict of label and category, such as {{'cell_type': 'B cell'}}")
        matching = np.ones(len(self.combinations), dtype=bool)
        names = [label.name for label in self.labels]
        for name, wanted in where.items():
            if name not in names:
                known = f"labels: {_some(names)}" if names else "it was fitted without labels: fit again with labels=[...]"
                raise RequestError(f"where: {name!r} is not a label of this model; {known}{nearest(str(name), names)}")
            values = list(wanted) if pd.api.types.is_list_like(wanted) else [wanted]
            if not values:
                raise RequestError(f"where: {name!r} is given an empty list; name a category, or leave {name!r} out to leave it open")
            column = names.index(name)
            matching &= np.isin(self.combinations[:, column], [self.labels[column].code(value) for value in values])
        return matching

    def frame(self, codes: np.ndarray) -> pd.DataFrame:
        """Codes ``[cells, labels]`` -> an obs table of categoricals with the training categories."""
        columns = {
            label.name: pd.Categorical.from_codes(codes[:, i].tolist(), categories=pd.Index(label.categories), ordered=label.ordered)
            for i, label in enumerate(self.labels)
        }
        return pd.DataFrame(columns, index=pd.RangeIndex(len(codes)).astype(str))

    def to_json(self) -> dict[str, Any]:
        """As plain lists, for `schema.json`."""
        return {
            "labels": [{"name": label.name, "categories": list(label.categories), "ordered": label.ordered} for label in self.labels],
            "combinations": self.combinations.tolist(),
            "cells": self.cells.tolist(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Schema:
        """The inverse of `to_json`."""
        labels = tuple(Label(label["name"], tuple(label["categories"]), label["ordered"]) for label in values["labels"])
        combinations = np.asarray(values["combinations"], dtype=np.int64).reshape(len(values["cells"]), len(labels))
        schema = cls(labels, combinations, np.asarray(values["cells"], dtype=np.int64))
        if (combinations >= schema.sizes).any() or (combinations < MISSING).any():
            raise ValueError("combinations hold categories that no label has")
        return schema


def encode_labels(obs: pd.DataFrame, labels: Sequence[Label]) -> np.ndarray:
    """Codes ``[cells, labels]`` of an obs table; `MISSING` where a value or the whole column is absent."""
    columns = [_column_codes(obs[label.name], label) if label.name in obs else np.full(len(obs), MISSING) for label in labels]
    return np.stack(columns, axis=1).astype(np.int64) if columns else np.zeros((len(obs), 0), np.int64)


def _column_codes(column: pd.Series, label: Label) -> np.ndarray:
    try:
        rows, values = pd.factorize(column)
    except TypeError as error:
        raise DataError(f"label {label.name!r}: holds values that cannot be categories ({_text(error)}); labels are strings, integers or booleans") from error
    codes = np.array([*(label.code(value) for value in values), MISSING])
    return codes[rows]  # factorize marks what is missing -1: the last


def _label_of(obs: pd.DataFrame, name: str) -> Label:
    if name not in obs:
        known = list(map(str, obs.columns))
        raise DataError(f"label {name!r}: no such obs column; columns: {_some(known) or 'none'}{nearest(str(name), known)}")
    column = obs[name]
    if isinstance(column, pd.DataFrame):
        raise DataError(f"label {name!r}: {column.shape[1]} obs columns have this name; rename or drop all but one")
    if column.isna().all():
        raise DataError(f"label {name!r}: every value is missing; name a column with values, or leave this label out")
    return _label_from(column, name)


def _label_from(column: pd.Series, name: str) -> Label:
    categorical = isinstance(column.dtype, pd.CategoricalDtype)
    values = [_plain(value) for value in (column.cat.remove_unused_categories().cat.categories if categorical else column.dropna())]
    kinds = sorted({type(value).__name__ for value in values})
    if len(kinds) > 1:
        raise DataError(f"label {name!r}: mixes {', '.join(kinds)}; use one kind, for example adata.obs[{name!r}] = adata.obs[{name!r}].astype(str)")
    fractions = [value for value in values if isinstance(value, float) and not value.is_integer()]
    if fractions and not categorical:
        raise DataError(f"label {name!r}: holds numbers such as {fractions[0]:.4g}; labels are categories: bin it first, for example with pandas.cut")
    categories = values if categorical else sorted(set(values))
    if len(categories) > max(50, len(column) // 2):
        seen = f"{len(categories):,} different values in {len(column):,} cells"
        raise DataError(f"label {name!r}: {seen}; a label needs cells to learn from: name a column with fewer")
    return Label(name, tuple(categories), categorical and bool(column.cat.ordered))


def _plain(value: Any) -> Any:
    """A category as JSON can hold it, of the same kind."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, bool | int | float | str) else str(value)


def _key(value: object) -> str:
    """The text by which a category is asked for: 1, 1.0 and "1" are one, True is another."""
    plain = _plain(value)
    return str(int(plain)) if isinstance(plain, float) and plain.is_integer() else str(plain)


def _is_missing(value: Any) -> bool:
    return pd.api.types.is_scalar(value) and bool(pd.isna(value))


def split(adata: AnnData, label: str, test_share: float = 0.3, seed: int = 0) -> tuple[AnnData, AnnData]:
    """Split cells within each category of a label into training and test cells.

    Examples
    --------
    >>> import scld
    >>> train, test = scld.data.split(scld.datasets.pbmc(), "cell_type")
    >>> train.n_obs, test.n_obs
    (1752, 749)
    """
    codes = Schema.of(adata.obs, [label]).codes(adata.obs)[:, 0]
    random, test = np.random.default_rng(seed), np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        cells = random.permutation(np.flatnonzero(codes == code))
        test[cells[: round(test_share * len(cells))]] = True
    return adata[~test].copy(), adata[test].copy()


def nearest(value: str, known: Sequence[str]) -> str:
    """A '; did you mean ...?' for the end of an error, or nothing."""
    by_lower = {name.lower(): name for name in known}
    match = difflib.get_close_matches(value.lower(), list(by_lower), n=1)
    return f"; did you mean {by_lower[match[0]]!r}?" if match else ""


def _nearest_file(path: Path) -> str:
    folder = path.parent
    return nearest(path.name, [entry.name for entry in folder.iterdir()]) if folder.is_dir() else ""


def _some(names: Sequence[str], most: int = 12) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + rest


def _text(value: object) -> str:
    """One line, for an error."""
    return " ".join(str(value).split())[:160] or type(value).__name__
