"""Progress bars on standard error, with the time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Update = Callable[[int, str], None]  # (steps done so far, short text)
Bar = Callable[[str, int], Update]  # (name, number of steps) -> update


@contextmanager
def progress_bars(enabled: bool) -> Iterator[Bar]:
    """Open a group of progress bars; the yielded function starts one bar and returns its update.

    Examples
    --------
    >>> with progress_bars(enabled=False) as bar:
    ...     update = bar("fit", 10)
    ...     update(1, "one of ten")
    """
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
    with Progress(*columns, console=Console(stderr=True), disable=not enabled) as progress:

        def bar(name: str, total: int) -> Update:
            task = progress.add_task(name, total=total, text="")

            def update(done: int, text: str) -> None:
                progress.update(task, completed=done, text=text)

            return update

        yield bar


def note(text: str) -> None:
    """Print a line to standard error, while no bar is shown."""
    print(text, file=sys.stderr, flush=True)
