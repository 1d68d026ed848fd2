"""Generated cells in shards: one AnnData store for every so many cells, and a manifest.

cells.zarr/
    manifest.json         the request, and once all shards are there, the digest of each
    shard-000000.zarr/    AnnData, zarr v3; each array of the CSR counts is one file
    shard-000000.json     its position, number of cells, and the SHA-256 of each of its files
    shard-000001.zarr/ ...

A shard is written atomically, its record after it, and the digests tell whether it is whole. So a
run that was stopped at any moment leaves whole shards, and the next one makes those that are
missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scld.errors import DataError, RequestError, SCLDError, check_int, one_line
from scld.io.atomic import atomic_write, check_target

if TYPE_CHECKING:
    from anndata import AnnData

FORMAT = 1
MANIFEST = "manifest.json"
_CHUNK = 65_536  # elements of an array that are compressed together
Plain = dict[str, Any]  # what JSON holds


@dataclass(frozen=True)
class ShardStore:
    """A folder of shards.

    Parameters
    ----------
    path
        The folder.
    request
        What the cells are: as plain values, among them ``cells`` and ``shard_cells``.
    """

    path: Path
    request: Plain

    @property
    def number(self) -> int:
        """Number of shards."""
        return -(-int(self.request["cells"]) // int(self.request["shard_cells"]))

    def span(self, shard: int) -> tuple[int, int]:
        """Positions of the first cell of a shard and after its last one."""
        size = self.request["shard_cells"]
        return shard * size, min((shard + 1) * size, self.request["cells"])

    def folder(self, shard: int) -> Path:
        """Where a shard is."""
        return self.path / f"shard-{shard:06d}.zarr"

    def record(self, shard: int) -> Path:
        """The file that says what a shard holds."""
        return self.folder(shard).with_suffix(".json")

    def folders(self) -> list[Path]:
        """All shards, in order."""
        return [self.folder(shard) for shard in range(self.number)]

    @staticmethod
    def check(path: Path, request: Plain, overwrite: bool) -> bool:
        """Whether the folder was begun with the same request.

        Raises
        ------
        RequestError
            Something else is there, and may not be replaced.
        """
        former = None
        if is_sharded(path):
            try:
                former = manifest_of(path)["request"]
            except DataError:
                if not overwrite:
                    raise
        if former == request:
            return True
        if former is not None and not overwrite:
            seen = f"holds shards of another request: {_difference(former, request)}"
            advice = "repeat that one to finish it, choose another name, or replace it"
            raise RequestError(f"{path}: {seen}; {advice} with overwrite=True (--overwrite)")
        check_target(path, overwrite, "a .zarr", _is_replaceable)
        return False

    @classmethod
    def begin(cls, path: Path, request: Plain, overwrite: bool) -> ShardStore:
        """Make the folder, or take up one that was begun with the same request: see `check`."""
        if not cls.check(path, request, overwrite):
            with atomic_write(path) as temporary:
                temporary.mkdir()
                _write_manifest(temporary, {"request": request, "complete": False})
        return cls(path, request)

    def write(self, shard: int, cells: AnnData) -> str:
        """Write one shard; return its digest. `SCLDError` if the disk does not take it."""
        folder = self.folder(shard)
        try:
            self.record(shard).unlink(missing_ok=True)
            with atomic_write(folder) as temporary:
                _write_cells(cells, temporary)
                record = {**self._position(shard), "files": _digests(temporary)}
            text = json.dumps(record, indent=1)
            with atomic_write(self.record(shard)) as temporary:
                temporary.write_text(text)
        except OSError as error:
            advice = "free some space, and run the same command again to finish"
            raise SCLDError(f"{folder}: cannot be written ({one_line(error)}); {advice}") from error
        return hashlib.sha256(text.encode()).hexdigest()

    def digest(self, shard: int) -> str | None:
        """The digest of a shard that is there, whole, and of this request; else None."""
        try:
            text = self.record(shard).read_text()
            record, position = json.loads(text), self._position(shard)
            if {name: record[name] for name in position} != position:
                return None  # of another request: its files need not be read
            same = record == {**position, "files": _digests(self.folder(shard))}
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return hashlib.sha256(text.encode()).hexdigest() if same else None

    def finish(self, digests: list[str]) -> None:
        """Clear what stopped workers left, and write the digests of all shards."""
        for leftover in self.path.glob(".scld-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        shards = [
            {"name": folder.name, "cells": stop - first, "sha256": digest}
            for folder, digest, (first, stop) in zip(
                self.folders(), digests, map(self.span, range(self.number)), strict=True
            )
        ]
        _write_manifest(self.path, {"request": self.request, "complete": True, "shards": shards})

    def _position(self, shard: int) -> Plain:
        first, stop = self.span(shard)
        request = json.dumps(self.request, sort_keys=True)
        digest = hashlib.sha256(request.encode()).hexdigest()
        return {"request": digest, "first": first, "cells": stop - first}


def is_sharded(path: Path) -> bool:
    """Whether a folder holds shards, or was begun to."""
    manifest = path / MANIFEST
    return path.is_dir() and manifest.exists() and not (path / "schema.json").exists()


def _is_replaceable(path: Path) -> bool:
    return is_sharded(path) or (path / "zarr.json").exists() or (path / ".zgroup").exists()


def manifest_of(path: Path) -> Plain:
    """What the manifest says; `DataError` if it cannot be used."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']!r}; this version reads {FORMAT}")
        request, _ = manifest["request"], manifest["complete"]
        for name in ("cells", "shard_cells", "seed"):
            check_int(name, request[name], 0 if name == "seed" else 1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        advice = "generate the cells again, with --overwrite"
        raise DataError(
            f"{path / MANIFEST}: cannot be read ({one_line(error)}); {advice}"
        ) from error
    plain: Plain = manifest
    return plain


def finished(path: Path) -> ShardStore:
    """The shards in a folder; `DataError` if some are still to be made."""
    manifest = manifest_of(path)
    if not manifest["complete"]:
        advice = "run the same command again to finish it"
        raise DataError(f"{path}: not all shards are there; {advice}")
    return ShardStore(path, manifest["request"])


def open_shards(path: str | Path) -> AnnData:
    """Open all cells of a folder of shards as one AnnData; the counts stay on disk.

    Parameters
    ----------
    path
        What ``scld sample --workers`` or `scld.generate_shards` made.

    Returns
    -------
    AnnData
        ``X`` is a Dask array of sparse blocks, one per shard; ``obs`` is in memory. Needs the extra
        ``cluster``.

    Raises
    ------
    DataError
        There are no shards in ``path``, or not all of them yet.
    """
    import anndata as ad
    import pandas as pd
    import zarr
    from anndata.experimental import read_elem_lazy

    try:
        import dask.array as da
    except ImportError as error:
        advice = (
            "install it with pip install 'scld[cluster]', or read the cells with scld.data.read"
        )
        raise DataError(f"open_shards: Dask is not installed; {advice}") from error
    path = Path(path).expanduser()
    if not is_sharded(path):
        advice = "pass a folder that scld sample --workers or scld.generate_shards wrote"
        raise DataError(f"{path}: holds no shards; {advice}")
    store = finished(path)
    lost = [folder for folder in store.folders() if not folder.is_dir()]
    if lost:
        raise DataError(f"{lost[0]}: this shard is missing; run the same command again")
    groups: list[Any] = [zarr.open_group(folder, mode="r") for folder in store.folders()]
    var, uns = (ad.io.read_elem(groups[0][name]) for name in ("var", "uns"))
    obs = pd.concat([ad.io.read_elem(group["obs"]) for group in groups])
    shapes = [tuple(group["X"].attrs["shape"]) for group in groups]
    blocks = [
        read_elem_lazy(group["X"], chunks=shape)
        for group, shape in zip(groups, shapes, strict=True)
    ]
    counts = da.concatenate(blocks)  # type: ignore[no-untyped-call]
    return ad.AnnData(counts, obs=obs, var=var, uns=uns)


def _write_cells(cells: AnnData, path: Path) -> None:
    import anndata as ad
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=3)
    with warnings.catch_warnings():  # anndata announces that it will shard small arrays too
        warnings.simplefilter("ignore", UserWarning)
        ad.io.write_elem(group, "/", ad.AnnData(obs=cells.obs, var=cells.var, uns=cells.uns))
    longest = max(cells.X.nnz, len(cells.X.indptr), 1)
    layout = {"chunks": (_CHUNK,), "shards": (-(-longest // _CHUNK) * _CHUNK,)}
    ad.io.write_elem(group, "X", cells.X, dataset_kwargs=layout)


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, by path."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    found = {}
    for file in files:
        with file.open("rb") as opened:
            found[file.relative_to(folder).as_posix()] = hashlib.file_digest(
                opened, "sha256"
            ).hexdigest()
    return found


def _write_manifest(path: Path, content: Plain) -> None:
    with atomic_write(path / MANIFEST) as temporary:
        temporary.write_text(json.dumps({"format": FORMAT, **content}, indent=1))


def _difference(former: Plain, request: Plain) -> str:
    """The first value in which two requests differ."""
    for name, value in request.items():
        if former.get(name) != value:
            return f"{name} {former.get(name)!r}, now {value!r}"
    return "other settings"
