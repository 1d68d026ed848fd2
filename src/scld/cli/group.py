"""What all commands have in common: errors and warnings in one line, help with examples."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from scld.errors import SCLDError, printable

_AFTER_INTERRUPTION = {
    "fit": "; an interrupted fit continues when the same command is run again",
    "power": "; with --cache, the same command continues",
}


class Group(click.Group):
    """Prints errors made for the user in one line, with exit code 2, and warnings in one."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings(), _terminated_as_interrupted():
                warnings.showwarning = _warn
                return super().invoke(ctx)
        except (SCLDError, OSError) as error:
            _fail(str(error), 2)
        except (MemoryError, RuntimeError) as error:
            # of a failed allocation torch raises a plain RuntimeError; its text is the only sign
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            _fail(f"not enough memory; use fewer cells or genes, or a larger machine; {error}", 2)
        except KeyboardInterrupt:
            _fail(f"interrupted{_AFTER_INTERRUPTION.get(ctx.invoked_subcommand or '', '')}", 130)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, as of a batch system, ends a command as Ctrl-C does: nothing is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _warn(message: Warning | str, *args: Any, **more: Any) -> None:
    say(f"scld: warning: {' '.join(str(message).split())}", err=True)


def _fail(message: str, code: int) -> None:
    say(f"scld: {' '.join(message.split())}".rstrip("; "), err=True)
    sys.exit(code)


def say(text: str, err: bool = False) -> None:
    """Print what may hold names of the user, whose control characters a terminal would obey."""
    click.echo(printable(text), err=err)


def suggest(*command: str) -> None:
    """Print the command that a user is likely to type next."""
    click.echo("Next: " + shlex.join(command))


class Examples(click.Command):
    """A command whose help ends with examples as they are typed."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.strip().splitlines():
                    formatter.write(f"  {line.strip()}\n")
