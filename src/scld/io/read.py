"""Read cells: an AnnData, .h5ad or .zarr -> matrix, obs and gene names."""

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

from scld.errors import DataError, listed, nearest, one_line
from scld.io.shards import finished, is_sharded

if TYPE_CHECKING:
    from anndata import AnnData

Source = Any  # an AnnData, or the path of one: str or os.PathLike
RowsOf = Callable[[int], "np.ndarray | None"]  # number of cells -> rows to read; None: all
ORIGIN = "scld_origin"  # key in uns: where a matrix was read from, for the errors of count_matrix


class MissingLayerError(DataError):
    """The source does not have the layer asked for."""


def read(
    source: Source, layer: str | None = None, *, at_most: int | None = None, seed: int = 0
) -> AnnData:
    """Read the matrix, ``obs`` and the gene names, and nothing else that a file may hold.

    Parameters
    ----------
    source
        An AnnData in memory (returned as it is if ``layer`` is None), or the path of an ``.h5ad``
        file or ``.zarr`` store.
    layer
        The layer to take as the matrix; ``X`` if None.
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
        return _read_path(Path(source).expanduser(), layer, at_most, seed)
    if not isinstance(source, ad.AnnData):
        allowed = "pass an AnnData, or the path of an .h5ad file or .zarr store"
        raise DataError(f"source: got {type(source).__name__}; {allowed}")
    cells = source.to_memory() if source.isbacked else source
    _check_layer(layer, list(cells.layers), "the AnnData")
    rows = _sampled_rows(cells.n_obs, at_most, seed)
    cells = cells if rows is None else cells[rows]
    if layer is None:
        return cells
    matrix, layers = cells.layers[layer], list(cells.layers)
    return _with_origin(matrix, cells.obs, cells.var_names, f"layer {layer!r}", layers)


def _sampled_rows(cells: int, at_most: int | None, seed: int) -> np.ndarray | None:
    """Rows to read, in ascending order; None for all."""
    if at_most is None or cells <= at_most:
        return None
    return np.sort(np.random.default_rng(seed).choice(cells, at_most, replace=False))


def _read_path(path: Path, layer: str | None, at_most: int | None, seed: int) -> AnnData:
    place = one_line(path)
    if not path.exists():
        raise DataError(f"{place}: no such file; check the path{_nearest_file(path)}")
    if path.suffix.lower() not in {".h5ad", ".zarr"}:
        allowed = "pass an .h5ad file or a .zarr store (AnnData.write_h5ad makes one)"
        raise DataError(f"{place}: unknown ending {path.suffix!r}; {allowed}")
    try:
        if is_sharded(path):
            return _read_shards(path, layer, at_most, seed)
        with _opened(path) as store:
            rows_of = partial(_sampled_rows, at_most=at_most, seed=seed)
            return _read_store(store, layer, rows_of, place)
    except DataError:
        raise
    except Exception as error:  # HDF5, zarr and anndata each raise their own
        advice = (
            "it is damaged, cut short, or not an AnnData file: copy, download or write it again"
        )
        raise DataError(f"{place}: cannot be read ({one_line(error)}); {advice}") from error


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
    return _with_origin(matrix, obs, parts[0].var_names, one_line(path), origin["layers"])


def _within(rows: np.ndarray, first: int, stop: int) -> np.ndarray:
    """The rows of a part, counted from its first one."""
    within: np.ndarray = rows[(first <= rows) & (rows < stop)] - first
    return within


def _these(rows: np.ndarray | None, cells: int) -> np.ndarray | None:
    return rows


def _read_store(store: Any, layer: str | None, rows_of: RowsOf, place: str) -> AnnData:
    import anndata as ad

    layers = list(store["layers"]) if "layers" in store else []
    _check_layer(layer, layers, place)
    part = "X" if layer is None else f"layers/{layer}"
    _check_parts([part, "obs", "var"], store, place, layers)
    obs, var = (ad.io.read_elem(store[name]) for name in ("obs", "var"))
    rows = rows_of(len(obs))
    matrix = ad.io.read_elem(store[part]) if rows is None else _read_rows(store[part], rows)
    obs = obs if rows is None else obs.iloc[rows]
    where = "X" if layer is None else f"layer {layer!r}"
    return _with_origin(matrix, obs, var.index, f"{place}: {where}", layers)


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
    matrix: Any, obs: pd.DataFrame, genes: pd.Index, place: str, layers: list[str]
) -> AnnData:
    import anndata as ad

    var, uns = pd.DataFrame(index=genes.astype(str)), {ORIGIN: {"place": place, "layers": layers}}
    with warnings.catch_warnings():  # repeated gene names: an error in count_matrix, below
        warnings.simplefilter("ignore", UserWarning)
        return ad.AnnData(X=matrix, obs=obs, var=var, uns=uns)


def _check_layer(layer: str | None, layers: Sequence[str], place: str) -> None:
    if layer is not None and layer not in layers:
        known = f"its layers: {listed(layers) or 'none'}"
        advice = "name one of them, or leave layer out to use X"
        near = nearest(layer, layers)
        raise MissingLayerError(f"layer {layer!r}: not in {place}; {known}; {advice}{near}")


def _nearest_file(path: Path) -> str:
    folder = path.parent
    return nearest(path.name, [entry.name for entry in folder.iterdir()]) if folder.is_dir() else ""
