"""Write generated cells to disk, one batch at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.errors import RequestError
from scld.io.atomic import atomic_write, check_target
from scld.io.read import layer_names
from scld.io.shards import is_sharded
from scld.machine import size_text

if TYPE_CHECKING:
    from anndata import AnnData


_SPARE = 16 * 2**20  # bytes that are left free on a disk


def check_output(
    path: Path, overwrite: bool, endings: tuple[str, ...] = (".h5ad", ".zarr")
) -> None:
    """Refuse an output with another ending, or one that cannot be written: see `check_target`."""
    if path.suffix not in endings:
        allowed = " and ".join(endings)
        raise RequestError(f"{path}: unknown ending {path.suffix!r}; allowed are {allowed}")
    is_kind = _is_zarr if path.suffix == ".zarr" else Path.is_file
    check_target(path, overwrite, f"a {path.suffix}", is_kind)


def _is_zarr(path: Path) -> bool:
    return (path / ".zgroup").exists() or (path / "zarr.json").exists() or is_sharded(path)


def write(batches: Iterable[AnnData], path: Path, overwrite: bool = False) -> int:
    """Write batches with the same genes, labels and dense layers to one ``.h5ad`` or ``.zarr``.

    One batch is in memory at a time.

    Returns
    -------
    int
        Number of cells written.

    Raises
    ------
    RequestError
        The output exists, has another ending, or its folder is missing.

    Examples
    --------
    >>> import scld, tempfile, pathlib
    >>> cells = scld.datasets.pbmc()
    >>> write([cells[:3], cells[3:5]], pathlib.Path(tempfile.mkdtemp()) / "five.h5ad")
    5
    """
    check_output(path, overwrite)
    with atomic_write(path) as temporary:
        return _write(batches, temporary)


def _write(batches: Iterable[AnnData], path: Path) -> int:
    import anndata as ad

    tables: list[pd.DataFrame] = []
    with _store(path) as store:
        for batch in batches:
            _check_space(path, batch)
            if tables:
                ad.io.sparse_dataset(store["X"]).append(batch.X)
                for name in layer_names(batch):
                    _append(store["layers"][name], batch.layers[name])
            else:
                ad.io.write_elem(
                    store, "/", ad.AnnData(obs=batch.obs, var=batch.var, uns=batch.uns)
                )
                large = {"indptr_dtype": np.int64}  # more than 2^31 counts in all
                options = large if sp.issparse(batch.X) else {}
                ad.io.write_elem(store, "X", batch.X, dataset_kwargs=options)
                for name in layer_names(batch):
                    # anndata 0.13 takes no path of several parts
                    _write_dense(store["layers"], name, batch.layers[name])
            tables.append(batch.obs)
        ad.io.write_elem(store, "obs", pd.concat(tables))
    return sum(map(len, tables))


def write_whole(cells: AnnData, path: Path, overwrite: bool = False) -> None:
    """Write an AnnData with all that it holds to an ``.h5ad`` or ``.zarr``, atomically."""
    import anndata as ad

    check_output(path, overwrite)
    with atomic_write(path) as temporary:
        _check_space(temporary, cells)
        with _store(temporary) as store:
            ad.io.write_elem(store, "/", cells)


def _check_space(path: Path, batch: AnnData) -> None:
    """Refuse to go on when the disk is nearly full: HDF5 would crash, and keep what it wrote."""
    matrices = [batch.X, *(batch.layers[name] for name in layer_names(batch))]
    size = sum(map(_bytes, matrices)) + 200 * batch.n_obs
    free = shutil.disk_usage(path.parent).free
    if free < 2 * size + _SPARE:
        seen = f"{size_text(free)} left on the disk of the output"
        raise RequestError(f"{path.name}: {seen}, too little for more cells; free some space")


def _bytes(matrix: Any) -> int:
    parts = (matrix.data, matrix.indices) if hasattr(matrix, "indices") else (matrix,)
    return sum(part.nbytes for part in parts)


def _write_dense(store: Any, name: str, layer: np.ndarray) -> None:
    """Write a matrix to which rows can be appended."""
    import anndata as ad
    import h5py

    options = {"maxshape": (None, layer.shape[1])} if isinstance(store, h5py.Group) else {}
    ad.io.write_elem(store, name, layer, dataset_kwargs=options)


def _append(matrix: Any, rows: np.ndarray) -> None:
    """Append rows to a matrix on disk."""
    before = matrix.shape[0]
    matrix.resize((before + len(rows), rows.shape[1]))
    matrix[before:] = rows


def _store(path: Path) -> AbstractContextManager[Any]:
    import h5py
    import zarr

    if path.suffix == ".h5ad":
        file: AbstractContextManager[Any] = h5py.File(path, "w")
        return file
    return nullcontext(zarr.open_group(path, mode="w", zarr_format=2))
