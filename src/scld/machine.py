"""What the machine, and the limits of this process, leave of its memory; the number of threads."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from scld.errors import check_int

_CGROUP = Path("/sys/fs/cgroup")
_VARIABLES = (  # that OpenMP, BLAS and joblib read, each when it is loaded or used
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"),
)


def set_threads(n: int) -> None:
    """Use at most ``n`` threads, for all that scld does from now on in this process.

    Results do not depend on it. It holds for torch, BLAS and OpenMP, which other packages share,
    and through environment variables for processes that are started later.

    Raises
    ------
    RequestError
        ``n`` is not a whole number from 1.

    Examples
    --------
    >>> import scld
    >>> scld.set_threads(2)
    """
    from threadpoolctl import threadpool_limits

    number = check_int("threads", n, 1, 4096)
    os.environ.update(dict.fromkeys(_VARIABLES, str(number)))
    threadpool_limits(number)
    if "torch" in sys.modules:  # its threads are its own; if it is loaded later, it reads the above
        sys.modules["torch"].set_num_threads(number)


def size_text(size: float) -> str:
    """A number of bytes, for the user."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def memory_left() -> int | None:
    """Bytes that this process can still have: the least that machine, cgroup and limits leave."""
    parts = (_machine_left(), _cgroup_left(), _limit_left())
    return min((left for left in parts if left is not None), default=None)


def _limit_left() -> int | None:
    """Address space that ``ulimit -v`` (RLIMIT_AS) leaves; None without such a limit."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    sizes = Path("/proc/self/statm")
    used = int(sizes.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") if sizes.exists() else 0
    return max(0, limit - used)


def _machine_left() -> int | None:
    """Available memory; all of the machine's where the system does not say; None if neither."""
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _cgroup_left() -> int | None:
    """Limit less use of this process's control group, version 2 or 1; None without a limit."""
    left = [
        limit - max(0, used - cache)
        for folder in _cgroup_folders()
        for limit, used, cache in [_limit_and_use(folder)]
        if limit is not None
    ]
    return max(0, min(left)) if left else None


def _cgroup_folders() -> list[Path]:
    """The folders of this process's control group and of those above it."""
    membership = Path("/proc/self/cgroup")
    lines = membership.read_text().splitlines() if membership.exists() else []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            own = _CGROUP / controllers / path.lstrip("/")
            folders += [own, *own.parents]
    return [folder for folder in folders if folder.is_relative_to(_CGROUP)]


def _limit_and_use(folder: Path) -> tuple[int | None, int, int]:
    """Limit, use, and the part of the use that is file cache and can be dropped, in bytes."""
    names = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    for limit, used in names:
        try:
            text = (folder / limit).read_text().strip()
            if text.isdecimal() and int(text) < 2**60:  # version 1 has a huge number for no limit
                return int(text), int((folder / used).read_text()), _file_cache(folder)
        except (OSError, ValueError):
            continue
    return None, 0, 0


def _file_cache(folder: Path) -> int:
    """Bytes of file cache that can be dropped; 0 where the system does not say."""
    file = folder / "memory.stat"
    lines = file.read_text().splitlines() if file.exists() else []
    stat = dict(line.split() for line in lines)
    return int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
