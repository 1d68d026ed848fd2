"""Cells to disk, piece by piece, written aside and renamed: an interruption leaves nothing half-written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from scld.errors import RequestError

if TYPE_CHECKING:
    from anndata import AnnData


def check_output(path: Path, overwrite: bool, endings: tuple[str, ...] = (".h5ad", ".zarr")) -> None:
    """Refuse an output with another ending, one that exists unless told to replace it, or one in a folder that does not."""
    if path.suffix not in endings:
        raise RequestError(f"{path}: unknown ending {path.suffix!r}; allowed are {' and '.join(endings)}")
    if path.exists() and not overwrite:
        raise RequestError(f"{path}: exists already; choose another name, or replace it with --overwrite")
    if not path.absolute().parent.is_dir():
        raise RequestError(f"{path}: its folder {str(path.absolute().parent)!r} does not exist; make it first")


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
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.absolute().parent))
    try:
        count = _write(pieces, aside / path.name)
        if path.is_dir():  # a zarr store cannot be renamed over
            shutil.rmtree(path)
        os.replace(aside / path.name, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return count


def _write(pieces: Iterable[AnnData], path: Path) -> int:
    import anndata as ad
    import h5py
    import zarr

    tables = []
    for piece in pieces:
        tables.append(piece.obs)
        if len(tables) == 1:
            piece.write_h5ad(path, compression="lzf") if path.suffix == ".h5ad" else piece.write_zarr(path)
            stored = h5py.File(path, "a") if path.suffix == ".h5ad" else zarr.open_group(path, mode="a")
        else:
            ad.io.sparse_dataset(stored["X"]).append(piece.X)
    if len(tables) > 1:
        ad.io.write_elem(stored, "obs", pd.concat(tables))
    if isinstance(stored, h5py.File):
        stored.close()
    return sum(map(len, tables))
