"""Cells to disk, piece by piece: `scld.aside` says what an interruption leaves."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.aside import check_place, written_aside
from scld.errors import RequestError

if TYPE_CHECKING:
    from anndata import AnnData


def check_output(path: Path, overwrite: bool, endings: tuple[str, ...] = (".h5ad", ".zarr")) -> None:
    """Refuse an output with another ending, one that exists unless told to replace it, or one in a folder that does not."""
    if path.suffix not in endings:
        raise RequestError(f"{path}: unknown ending {path.suffix!r}; allowed are {' and '.join(endings)}")
    check_place(path, overwrite, f"a {path.suffix}", _is_zarr if path.suffix == ".zarr" else Path.is_file)


def _is_zarr(path: Path) -> bool:
    return (path / ".zgroup").exists() or (path / "zarr.json").exists()


def write(pieces: Iterable[AnnData], path: Path, overwrite: bool = False) -> int:
    """Write pieces with the same genes and labels to one ``.h5ad`` or ``.zarr``, holding one piece in memory at a time.

    Returns
    -------
    int
        Number of cells written.

    Raises
    ------
    RequestError
        The output exists, has another ending or no folder to lie in.

    Examples
    --------
    >>> import scld, tempfile, pathlib
    >>> cells = scld.datasets.pbmc()
    >>> write([cells[:3], cells[3:5]], pathlib.Path(tempfile.mkdtemp()) / "five.h5ad")
    5
    """
    check_output(path, overwrite)
    with written_aside(path) as place:
        return _write(pieces, place)


def _write(pieces: Iterable[AnnData], path: Path) -> int:
    import anndata as ad

    tables: list[pd.DataFrame] = []
    with _store(path) as store:
        for piece in pieces:
            if tables:
                ad.io.sparse_dataset(store["X"]).append(piece.X)
            else:
                ad.io.write_elem(store, "/", ad.AnnData(obs=piece.obs, var=piece.var, uns=piece.uns))
                room = {"indptr_dtype": np.int64} if sp.issparse(piece.X) else {}  # for more counts than 2^31
                ad.io.write_elem(store, "X", piece.X, dataset_kwargs=room)
            tables.append(piece.obs)
        ad.io.write_elem(store, "obs", pd.concat(tables))
    return sum(map(len, tables))


def _store(path: Path) -> AbstractContextManager[Any]:
    import h5py
    import zarr

    return h5py.File(path, "w") if path.suffix == ".h5ad" else nullcontext(zarr.open_group(path, mode="w", zarr_format=2))
