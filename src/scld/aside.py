"""Outputs are written aside and renamed: whatever stops the writing, the place holds what it held before, or all of the new."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scld.errors import RequestError


def check_place(path: Path, overwrite: bool, kind: str, is_kind: Callable[[Path], bool]) -> None:
    """Refuse a place that is taken, unless told to replace what is there and it is of this kind, or that has no folder to lie in."""
    if path.exists() and not overwrite:
        raise RequestError(f"{path}: exists already; choose another name, or replace it with overwrite=True (--overwrite)")
    if path.exists() and not is_kind(path):
        raise RequestError(f"{path}: exists and is not {kind}, so it is not replaced; choose another name")
    if not path.absolute().parent.is_dir():
        raise RequestError(f"{path}: its folder {str(path.absolute().parent)!r} does not exist; make it first")


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Gives the place to write to; what is there at the end, a file or a directory, takes the place of ``path``.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with written_aside(path) as place:
    ...     _ = place.write_text("whole")
    >>> path.read_text()
    'whole'
    """
    folder = Path(tempfile.mkdtemp(prefix=".scld-", dir=path.absolute().parent))
    try:
        yield folder / path.name
        _replace(folder / path.name, path, folder / f"{path.name}.former")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(new: Path, path: Path, former: Path) -> None:
    """A directory that is not empty cannot be renamed over: it steps aside, and back if the new one cannot come."""
    if not path.is_dir():
        os.replace(new, path)
        return
    os.replace(path, former)
    try:
        os.replace(new, path)
    except BaseException:
        os.replace(former, path)
        raise
