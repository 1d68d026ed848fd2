"""Progress on standard error: bars in a terminal, plain lines elsewhere, with the time left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from scld.errors import printable

Update = Callable[[int, str], None]  # (steps done so far, short text)
Bar = Callable[[str, int], Update]  # (name, number of steps) -> update
_LINES = 30  # at most, of a task with more steps


@contextmanager
def progress_bars(enabled: bool) -> Iterator[Bar]:
    """Open a group of progress bars; the yielded function starts one bar and returns its update.

    Where standard error is no terminal (a file, a log), each update is a line instead; of many
    steps, a share. In a notebook, one line for each bar is written anew.

    Examples
    --------
    >>> with progress_bars(enabled=False) as bar:
    ...     update = bar("fit", 10)
    ...     update(1, "one of ten")
    """
    if not enabled:  # rich before 14.3 ends bars that are not shown with an empty line
        yield lambda name, total: lambda done, text: None
    elif _is_terminal():
        yield from _rich_bars()
    elif _in_notebook():
        yield _displayed
    else:
        yield _lines


def _is_terminal() -> bool:
    """Whether a line can be overwritten there; in a notebook it cannot."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _displayed(name: str, total: int) -> Update:
    """One line of a notebook, with what is new in place of what was there."""
    from IPython.display import DisplayHandle

    started, line = time.monotonic(), cast(Any, DisplayHandle)()
    line.display({"text/plain": _line(name, 0, total, "", 0)}, raw=True)

    def update(done: int, text: str) -> None:
        seconds = time.monotonic() - started
        line.update({"text/plain": _line(name, done, total, text, seconds)}, raw=True)

    return update


def _rich_bars() -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def bar(name: str, total: int) -> Update:
            task = progress.add_task(name, total=total, text="")

            def update(done: int, text: str) -> None:
                progress.update(task, completed=done, text=text)

            return update

        yield bar


def _lines(name: str, total: int) -> Update:
    """One line per step, or per share of many steps."""
    started, shown = time.monotonic(), (-1, "")

    def update(done: int, text: str) -> None:
        nonlocal shown
        step = done if total <= _LINES else done * _LINES // total
        if step > shown[0] or (done >= total and text != shown[1]):
            shown = step, text
            note(_line(name, done, total, text, time.monotonic() - started))

    return update


def _line(name: str, done: int, total: int, text: str, seconds: float) -> str:
    """Stage, share done, text, time taken, and time left if the next steps take as long."""
    parts = [f"{name}: {done:,}/{total:,} ({100 * done // max(total, 1)} %)"]
    parts += [printable(text)] if text else []
    parts += [f"{_clock(seconds)} elapsed"]
    if 0 < done < total:
        parts += [f"{_clock(seconds * (total - done) / done)} left"]
    return ", ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def note(text: str) -> None:
    """Print a line to standard error, while no bar is shown."""
    print(text, file=sys.stderr, flush=True)
