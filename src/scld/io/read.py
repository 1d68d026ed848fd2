"""Read cells: an AnnData, .h5ad or .zarr -> matrix, obs and var."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.errors import DataError, listed, nearest, one_line, shown
from scld.io.shards import finished, is_sharded

if TYPE_CHECKING:
    from anndata import AnnData

Source = Any  # an AnnData, or the path of one: str or os.PathLike
RowsOf = Callable[[int], "np.ndarray | None"]  # number of cells -> rows to read; None: all
RAW = "raw"  # what layer= calls adata.raw
_RAW_MATRIX = f"{RAW}/X"
ORIGIN = "scld_origin"  # key in uns: where a matrix was read from, for the errors of count_matrix


class MissingLayerError(DataError):
    """The source does not have the layer asked for."""


def read(
    source: Source, layer: str | None = None, *, at_most: int | None = None, seed: int = 0
) -> AnnData:
    """Read the matrix, ``obs`` and ``var``, and nothing else that a file may hold.

    Parameters
    ----------
    source
        An AnnData in memory (returned as it is if ``layer`` is None, names are text and
        scipy knows its number type), or the path of an ``.h5ad`` file or ``.zarr`` store.
    layer
        The layer to take as the matrix; ``X`` if None. ``"raw"`` takes ``adata.raw`` with its own
        genes, unless a layer has that name.
    at_most
        Read a random sample of this many cells if there are more. Only their rows are read from a
        file.
    seed
        Seed of that sample.

    Returns
    -------
    AnnData
        ``X`` is the chosen matrix, not yet validated: see `count_matrix`.

    Raises
    ------
    DataError
        No such file, not an AnnData file, a damaged file, or a missing layer.

    Examples
    --------
    >>> import scld
    >>> scld.data.read(scld.datasets.pbmc()).n_vars
    2000
    """
    import anndata as ad

    if isinstance(source, str | os.PathLike):
        path = _checked_path(source)
        with _explained(path):
            return _read_path(path, layer, at_most, seed)
    if not isinstance(source, ad.AnnData):
        allowed = "pass an AnnData, or the path of an .h5ad file or .zarr store"
        if type(source).__name__ == "MuData":
            allowed = f"pass one modality, such as mdata[{next(iter(source.mod), 'rna')!r}]"
        raise DataError(f"source: got {type(source).__name__}; {allowed}")
    cells = _usable(source.to_memory() if source.isbacked else source)
    layers = layers_and_raw(cells)
    _check_layer(layer, layers, "the AnnData")
    rows = _sampled_rows(cells.n_obs, at_most, seed)
    cells = cells if rows is None else cells[rows]
    if layer is None:
        return cells
    of_raw = layer not in layer_names(cells)
    matrix, var = (cells.raw.X, cells.raw.var) if of_raw else (cells.layers[layer], cells.var)
    return _with_origin(matrix, cells.obs, var, f"layer {layer!r}", layers)


def native(matrix: Any) -> Any:
    """The same in a number type that scipy knows: neither float16 nor a foreign byte order."""
    dtype = getattr(matrix, "dtype", None)
    if dtype is None:
        return matrix
    known = dtype.newbyteorder("=")
    known = np.dtype(np.float32) if known == np.float16 else known
    if dtype == known:
        return matrix
    if not sp.issparse(matrix):
        return matrix.astype(known)
    sparse: Any = matrix
    parts = (sparse.data.astype(known), sparse.indices, sparse.indptr)
    return type(sparse)(parts, shape=sparse.shape)


def _usable(cells: AnnData) -> AnnData:
    """The same cells, with names that are text: of others AnnData warns, and takes no rows."""
    import anndata as ad

    tables, matrix = (cells.obs, cells.var), native(cells.X)
    kinds = {table.index.inferred_type for table in tables if not table.index.hasnans}
    if kinds <= {"string", "empty"} and (cells.X is None or matrix.dtype == cells.X.dtype):
        return cells
    obs, var = (
        table if table.index.hasnans else table.set_axis(table.index.astype(str))
        for table in tables
    )
    with warnings.catch_warnings():  # repeated names: an error in count_matrix, below
        warnings.simplefilter("ignore", UserWarning)
        return ad.AnnData(
            matrix,
            obs=obs,
            var=var,
            uns=cells.uns,
            layers={name: cells.layers[name] for name in layer_names(cells)},
            raw=None if cells.raw is None else {"X": cells.raw.X, "var": cells.raw.var},
        )


def outline(source: Source, layer: str | None) -> tuple[str, pd.DataFrame, pd.DataFrame, int]:
    """What there is without reading the matrix: its place, obs, var, number of stored values."""
    if not isinstance(source, str | os.PathLike):
        cells = read(source, layer)
        stored = cells.X.nnz if hasattr(cells.X, "nnz") else int(np.prod(cells.shape))
        return "X", cells.obs, cells.var.set_axis(cells.var_names.astype(str)), stored
    path = _checked_path(source)
    with _explained(path):
        parts = [_outline(folder, layer) for folder in _stores(path)]
    obs = pd.concat([part[0] for part in parts]) if len(parts) > 1 else parts[0][0]
    return one_line(path), obs, parts[0][1], sum(part[2] for part in parts)


def blocks_of(source: Source, layer: str | None, size: int) -> Iterator[AnnData]:
    """The cells that `read` gives, so many at a time; each block is read when it is asked for."""
    if not isinstance(source, str | os.PathLike):
        cells = read(source, layer)
        for start in range(0, cells.n_obs, size):
            yield cells[start : start + size]
        return
    path = _checked_path(source)
    with _explained(path):
        for folder in _stores(path):
            with _opened(folder) as store:
                yield from _blocks(store, layer, size, one_line(folder))


def _stores(path: Path) -> list[Path]:
    """The files or stores that hold the cells of a path."""
    return finished(path).folders() if is_sharded(path) else [path]


def _outline(path: Path, layer: str | None) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    with _opened(path) as store:
        part, _ = _part(store, layer, one_line(path))
        obs, var = _tables(store, part)
        stored = store[part]
        values = stored["data"] if hasattr(stored, "keys") else stored
        return obs, var, int(np.prod(values.shape))


def _blocks(store: Any, layer: str | None, size: int, place: str) -> Iterator[AnnData]:
    import anndata as ad

    part, layers = _part(store, layer, place)
    obs, var = _tables(store, part)
    stored: Any = store[part]
    if hasattr(stored, "keys"):
        by_rows = stored.attrs["encoding-type"] == "csr_matrix"
        stored = ad.io.sparse_dataset(stored) if by_rows else ad.io.read_elem(stored).tocsr()
    where = "X" if layer is None else f"layer {layer!r}"
    for start in range(0, len(obs), size):
        rows = slice(start, min(start + size, len(obs)))
        yield _with_origin(stored[rows], obs.iloc[rows], var, f"{place}: {where}", layers)


def _sampled_rows(cells: int, at_most: int | None, seed: int) -> np.ndarray | None:
    """Rows to read, in ascending order; None for all."""
    if at_most is None or cells <= at_most:
        return None
    return np.sort(np.random.default_rng(seed).choice(cells, at_most, replace=False))


def _checked_path(source: Any) -> Path:
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(f"{one_line(path)}: no such file; check the path{nearest_file(path)}")
    if path.suffix.lower() not in {".h5ad", ".zarr"}:
        raise DataError(f"{one_line(path)}: unknown ending {path.suffix!r}; {_how_to_read(path)}")
    if not (path.is_file() or path.is_dir()):  # a pipe or a device would be waited for
        advice = "copy it to a file first"
        raise DataError(f"{one_line(path)}: neither a file nor a directory; {advice}")
    return path


def _how_to_read(path: Path) -> str:
    """The function that reads a file of another format."""
    name, shown_path = path.name.lower(), repr(one_line(path))
    is_folder_of_10x = path.is_dir() and any(path.glob("*matrix.mtx*"))
    calls = {
        ".mtx": f"scanpy.read_10x_mtx({one_line(path.parent)!r})",
        ".h5": f"scanpy.read_10x_h5({shown_path})",
        ".loom": f"anndata.io.read_loom({shown_path})",
        ".csv": f"anndata.io.read_csv({shown_path})",
        ".tsv": f"anndata.io.read_text({shown_path})",
        ".txt": f"anndata.io.read_text({shown_path})",
        ".h5mu": f"mudata.read_h5mu({shown_path})['rna']",
    }
    ending = Path(name.removesuffix(".gz")).suffix
    if is_folder_of_10x:
        calls[ending] = f"scanpy.read_10x_mtx({shown_path})"
    if ending in calls:
        return (
            f"read it with {calls[ending]}, add labels to .obs, and pass the AnnData, or write it "
            "to an .h5ad file"
        )
    if ending == ".h5ad":
        return "unpack it first (gunzip)"
    if ending in (".rds", ".rdata", ".h5seurat"):
        return "convert it in R, for example with zellkonverter::writeH5AD"
    return "pass an .h5ad file or a .zarr store (AnnData.write_h5ad makes one)"


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Errors while a path is read, in one line: HDF5, zarr and anndata each raise their own."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        advice = (
            "it is damaged, cut short, or not an AnnData file: copy, download or write it again"
        )
        raise DataError(
            f"{one_line(path)}: cannot be read ({one_line(error)}); {advice}"
        ) from error


def layer_names(adata: AnnData) -> list[str]:
    """The names of the layers; anndata 0.13 has X among them, as None."""
    return [name for name in adata.layers if name is not None]


def layers_and_raw(adata: AnnData) -> list[str]:
    """What ``layer=`` can name."""
    names = layer_names(adata)
    return names + [RAW] * (adata.raw is not None and RAW not in names)


def read_all(source: Source) -> AnnData:
    """Read an AnnData with all that it holds; one in memory is returned as it is."""
    import anndata as ad

    if not isinstance(source, str | os.PathLike):
        return read(source)
    path = _checked_path(source)
    with _explained(path):
        if is_sharded(path):
            return read(path)
        return ad.read_zarr(path) if path.is_dir() else ad.read_h5ad(path)


def _read_path(path: Path, layer: str | None, at_most: int | None, seed: int) -> AnnData:
    if is_sharded(path):
        return _read_shards(path, layer, at_most, seed)
    with _opened(path) as store:
        rows_of = partial(_sampled_rows, at_most=at_most, seed=seed)
        return _read_store(store, layer, rows_of, one_line(path))


def _read_shards(path: Path, layer: str | None, at_most: int | None, seed: int) -> AnnData:
    """The cells of all shards, or a sample of them."""
    shards = finished(path)
    rows, parts = _sampled_rows(shards.request["cells"], at_most, seed), []
    for number, folder in enumerate(shards.folders()):
        some = None if rows is None else _within(rows, *shards.span(number))
        if some is None or len(some):
            with _opened(folder) as store:
                parts.append(_read_store(store, layer, partial(_these, some), one_line(folder)))
    matrix = sp.vstack([part.X for part in parts], format="csr")
    obs, origin = pd.concat([part.obs for part in parts]), parts[0].uns[ORIGIN]
    return _with_origin(matrix, obs, parts[0].var, one_line(path), origin["layers"])


def _within(rows: np.ndarray, first: int, stop: int) -> np.ndarray:
    """The rows of a part, counted from its first one."""
    within: np.ndarray = rows[(first <= rows) & (rows < stop)] - first
    return within


def _these(rows: np.ndarray | None, cells: int) -> np.ndarray | None:
    return rows


def _read_store(store: Any, layer: str | None, rows_of: RowsOf, place: str) -> AnnData:
    import anndata as ad

    part, layers = _part(store, layer, place)
    obs, var = _tables(store, part)
    rows = rows_of(len(obs))
    matrix = ad.io.read_elem(store[part]) if rows is None else _read_rows(store[part], rows)
    obs = obs if rows is None else obs.iloc[rows]
    where = "X" if layer is None else f"layer {layer!r}"
    return _with_origin(matrix, obs, var, f"{place}: {where}", layers)


def _part(store: Any, layer: str | None, place: str) -> tuple[str, list[str]]:
    """Where the matrix is in a store, checked, and the layers that there are."""
    layers = list(store["layers"]) if "layers" in store else []
    of_raw = RAW not in layers and _RAW_MATRIX in store  # without one, zarr has an empty raw
    layers += [RAW] * of_raw
    _check_layer(layer, layers, place)
    part = "X" if layer is None else f"layers/{layer}"
    part = _RAW_MATRIX if layer == RAW and of_raw else part
    _check_parts([part, "obs", _var_of(part)], store, place, layers)
    return part, layers


def _var_of(part: str) -> str:
    """The table of the genes of a matrix: raw has its own."""
    return f"{RAW}/var" if part == _RAW_MATRIX else "var"


def _tables(store: Any, part: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The obs table, and that of the genes of a matrix; their names are text."""
    import anndata as ad

    obs, var = (ad.io.read_elem(store[name]) for name in ("obs", _var_of(part)))
    return obs, var.set_axis(var.index.astype(str))


def _read_rows(stored: Any, rows: np.ndarray) -> Any:
    """Some rows of a stored matrix; only one stored by columns has to be read whole for it."""
    import anndata as ad

    if not hasattr(stored, "keys"):
        return stored.oindex[rows] if hasattr(stored, "oindex") else stored[rows]  # zarr or HDF5
    if stored.attrs["encoding-type"] == "csr_matrix":
        return ad.io.sparse_dataset(stored)[rows]
    return ad.io.read_elem(stored).tocsr()[rows]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py
    import zarr

    if path.suffix.lower() == ".h5ad":
        with h5py.File(path, "r") as store:
            yield store
    else:  # consolidated metadata would hide that parts are missing
        yield zarr.open_group(path, mode="r", use_consolidated=False)


def _check_parts(parts: Sequence[str], store: Any, place: str, layers: Sequence[str]) -> None:
    missing = [part for part in parts if part not in store]
    if missing:
        known = f"(layers here: {listed(layers) or 'none'})"
        advice = (
            f"pass what AnnData.write_h5ad or write_zarr wrote, or name a layer with layer= {known}"
        )
        raise DataError(f"{place}: holds no {missing[0]!r}; {advice}")
    values: Any = store[parts[0]]["data"] if hasattr(store[parts[0]], "keys") else None
    if not hasattr(values, "nchunks_initialized"):
        return
    lost = values.nchunks - values.nchunks_initialized  # zarr would read them as zeros
    if lost > 0:  # below it where the last shard is not full
        seen = f"{lost} of {values.nchunks} chunks of the counts are lost"
        raise DataError(f"{place}: {seen}; copy or download it again")


def _with_origin(
    matrix: Any,
    obs: pd.DataFrame,
    var: pd.DataFrame,
    place: str,
    layers: list[str],
) -> AnnData:
    import anndata as ad

    uns = {ORIGIN: {"place": place, "layers": layers}}
    with warnings.catch_warnings():  # repeated gene names: an error in count_matrix, below
        warnings.simplefilter("ignore", UserWarning)
        return ad.AnnData(X=native(matrix), obs=obs, var=var, uns=uns)


def _check_layer(layer: str | None, layers: Sequence[str], place: str) -> None:
    if not isinstance(layer, str | None):
        raise DataError(f"layer: got {shown(layer)}; name a layer, as text, or None for X")
    if layer is not None and layer not in layers:
        known = f"its layers: {listed(layers) or 'none'}"
        advice = "name one of them, or leave layer out to use X"
        near = nearest(layer, layers)
        raise MissingLayerError(f"layer {layer!r}: not in {place}; {known}; {advice}{near}")


def nearest_file(path: Path) -> str:
    """A '; did you mean ...?' for a path that does not exist, or an empty text."""
    folder = path.parent
    return nearest(path.name, [entry.name for entry in folder.iterdir()]) if folder.is_dir() else ""
