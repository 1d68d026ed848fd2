"""Atomic writes: whatever stops them, a path holds what it held before, or all of the new."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scld.errors import RequestError


def check_target(path: Path, overwrite: bool, kind: str, is_kind: Callable[[Path], bool]) -> None:
    """Refuse a path that cannot be written.

    Parameters
    ----------
    path
        The file or directory to write.
    overwrite
        Whether what is there may be replaced.
    kind, is_kind
        What it must be to be replaced: in words for the error, and as a test.

    Raises
    ------
    RequestError
        The path exists and may not be replaced, is of another kind, or its folder is missing.
    """
    if path.exists() and not overwrite:
        advice = "choose another name, or replace it with overwrite=True (--overwrite)"
        raise RequestError(f"{path}: exists already; {advice}")
    if path.exists() and not is_kind(path):
        seen = f"exists and is not {kind}, so it is not replaced"
        raise RequestError(f"{path}: {seen}; choose another name")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise RequestError(f"{path}: its folder {str(folder)!r} does not exist; make it first")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling; at the end, that file or directory replaces ``path``.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with atomic_write(path) as temporary:
    ...     _ = temporary.write_text("complete")
    >>> path.read_text()
    'complete'
    """
    folder = Path(tempfile.mkdtemp(prefix=".scld-", dir=path.absolute().parent))
    try:
        yield folder / path.name
        _replace(folder / path.name, path, folder / f"{path.name}.former")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(new: Path, path: Path, former: Path) -> None:
    """Rename; a non-empty directory in the way is moved first, and back if that fails."""
    if not path.is_dir():
        os.replace(new, path)
        return
    os.replace(path, former)
    try:
        os.replace(new, path)
    except BaseException:
        os.replace(former, path)
        raise
