"""Atomic writes: whatever stops them, a path holds what it held before, or all of the new."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scld.errors import RequestError

_PREFIX, _FORMER = ".scld-", ".former"


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

    Temporary siblings that dead processes of this machine left here are removed.

    Raises
    ------
    RequestError
        The disk is full.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with atomic_write(path) as temporary:
    ...     _ = temporary.write_text("complete")
    >>> path.read_text()
    'complete'
    """
    parent = path.absolute().parent
    restore(path)
    for stale in _of_dead_processes(parent):
        shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{_here()}-", dir=parent))
    try:
        yield folder / path.name
        _replace(folder / path.name, path, folder / f"{path.name}{_FORMER}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        advice = "free some, and run the same command again"
        raise RequestError(f"{path}: no space left on its disk; {advice}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def restore(path: Path) -> None:
    """Put back what a process that died while it replaced ``path`` had moved away.

    It needs two renames where the system cannot exchange two directories.
    """
    if path.exists():
        return
    for folder in _of_dead_processes(path.absolute().parent):
        former = folder / f"{path.name}{_FORMER}"
        if former.exists():
            os.replace(former, path)
            return


def _here() -> str:
    """This machine and process."""
    return f"{platform.node().replace('-', '_')}-{os.getpid()}"


def _of_dead_processes(parent: Path) -> Iterator[Path]:
    """Temporary folders whose process, on this machine, is no longer there."""
    machine = _here().rpartition("-")[0]
    for folder in parent.glob(f"{_PREFIX}{machine}-*-*"):
        process = folder.name.removeprefix(f"{_PREFIX}{machine}-").partition("-")[0]
        if process.isdecimal() and not _alive(int(process)):
            yield folder


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _replace(new: Path, path: Path, former: Path) -> None:
    """Rename; a directory in the way is exchanged, or moved first, and back if that fails."""
    if not path.is_dir():
        os.replace(new, path)
        return
    if _exchange(new, path):
        return
    os.replace(path, former)
    try:
        os.replace(new, path)
    except BaseException:
        os.replace(former, path)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step, if the system can: Linux, on most file systems."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    done: int = rename(here, os.fsencode(one), here, os.fsencode(other), exchange)
    return done == 0
