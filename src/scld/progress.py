"""Progress on standard error: bars with an estimate of the time left, and notes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Update = Callable[[int, str], None]  # (done so far, short text)


@contextmanager
def bars(shown: bool) -> Iterator[Callable[[str, int], Update]]:
    """Open a group of bars; the function it gives starts one bar, ``(name, total) -> update``.

    Examples
    --------
    >>> with bars(shown=False) as bar:
    ...     update = bar("fit", 10)
    ...     update(1, "one of ten")
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left at most"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as progress:

        def bar(name: str, total: int) -> Update:
            task = progress.add_task(name, total=total, text="")

            def update(done: int, text: str) -> None:
                progress.update(task, completed=done, text=text)

            return update

        yield bar


def note(text: str) -> None:
    """Say something in a line of its own, while no bar is shown."""
    print(text, file=sys.stderr, flush=True)
