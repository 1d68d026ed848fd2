"""What a driver is given and gives back.

A driver is a script that one peer runs in, as ``python run_PEER.py FOLDER``, with the Python of
that peer: this module needs anndata, NumPy, pandas and SciPy alone. The folder holds ``job.json``;
the driver writes ``cells.h5ad`` and ``info.json`` into it.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

LABEL = "cell_type"
LIBRARY = "library"  # column of `Job.wanted`: the total count of a random training cell of the type
CELLS, INFO = "cells.h5ad", "info.json"
_NOT_COPIED = (".git", "figs", "*.ipynb")


@dataclass(frozen=True, eq=False)
class Job:
    """A job of a driver.

    Parameters
    ----------
    folder
        For the results.
    train
        Training cells: raw counts, and `LABEL` in ``obs``.
    wanted
        One row per cell to generate: `LABEL` and `LIBRARY`.
    settings
        The settings of the peer.
    seed
        Of everything random.
    checkout
        A checkout of the peer's repository, if it has to be given.
    former
        The folder of the former step of the same peer, if there is one.
    """

    folder: Path
    train: anndata.AnnData
    wanted: pd.DataFrame
    settings: dict[str, Any]
    seed: int
    checkout: Path | None
    former: Path | None

    @classmethod
    def of_arguments(cls) -> Job:
        """The job in the folder that the command line names."""
        folder = Path(sys.argv[1]).resolve()
        given = json.loads((folder / "job.json").read_text())
        train = anndata.read_h5ad(given["train"])
        train.obs[LABEL] = pd.Categorical(train.obs[LABEL].astype(str))
        wanted = pd.read_csv(given["wanted"], index_col=0, dtype={LABEL: str})
        wanted.index = wanted.index.astype(str)
        paths = {key: Path(given[key]) if given[key] else None for key in ("checkout", "former")}
        return cls(folder, train, wanted, given["settings"], given["seed"], **paths)

    @property
    def types(self) -> np.ndarray:
        """The type of each training cell."""
        return np.asarray(self.train.obs[LABEL], str)

    def wanted_types(self) -> Iterator[tuple[str, np.ndarray]]:
        """Each wanted type with its rows in `wanted`."""
        types = self.wanted[LABEL].to_numpy(str)
        for kind in np.unique(types):
            yield str(kind), np.flatnonzero(types == kind)

    def libraries(self, rows: np.ndarray) -> np.ndarray:
        """Total counts of some rows of `wanted`."""
        return np.asarray(self.wanted[LIBRARY].iloc[rows], float)

    def write_cells(self, values: Any) -> None:
        """Write ``[cells, genes]`` values, in the order of `wanted`."""
        matrix = sp.csr_matrix(values, dtype=np.float32)
        var = pd.DataFrame(index=self.train.var_names)
        cells = anndata.AnnData(matrix, obs=self.wanted[[LABEL]].copy(), var=var)
        cells.write_h5ad(self.folder / CELLS)

    def write_info(
        self,
        model: Sequence[Path],
        packages: Sequence[str],
        changes: Sequence[str] = (),
        **notes: Any,
    ) -> None:
        """Write size on disk and peak memory, versions, changes to the peer's code, and notes."""
        info = {
            "model_mb": sum(_size(path) for path in model) / 1e6,
            "peak_memory_mb": _peak_memory() / 1e6,
            "versions": {name: _version(name) for name in packages},
            "changes": list(changes),
            "notes": notes,
        }
        (self.folder / INFO).write_text(json.dumps(info, indent=1))

    @contextmanager
    def copied_checkout(self) -> Iterator[Path]:
        """A temporary copy of the checkout: what runs in it leaves the checkout as it was."""
        assert self.checkout is not None
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "checkout"
            shutil.copytree(self.checkout, copy, ignore=shutil.ignore_patterns(*_NOT_COPIED))
            yield copy


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def _peak_memory() -> int:
    """Bytes of this process at its peak, without those of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
