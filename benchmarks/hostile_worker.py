"""Work in a process of its own, so that crashes, hangs and memory of what is tried are seen."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from scld.errors import SCLDError

FINE, REFUSED, BAD = "fine", "refused", "bad"
_LONGEST = 1000  # characters of an error
_SPARE_MEMORY = 4 * 2**30  # address space beyond what the process has at its start
_HEAVY = ["scld.synthesizer", "scld.io.write", "anndata", "zarr"]


class Outcome(NamedTuple):
    """What became of a piece of work."""

    kind: str  # FINE, REFUSED or BAD
    text: str
    seconds: float = 0.0
    megabytes: float = 0.0  # at its peak, above those at its beginning


class BadOutcomeError(Exception):
    """The work ended, but what it gave is wrong."""


class Watched:
    """A process that does one piece of work at a time; a new one takes over if it dies or hangs.

    Parameters
    ----------
    seconds, megabytes
        What computes for longer, or adds more memory, is bad.
    grace
        Seconds of waiting beyond these until the work counts as hanging: others compute too.
    """

    def __init__(
        self, seconds: float, megabytes: float = float("inf"), grace: float = 60.0
    ) -> None:
        self.seconds, self.megabytes, self.grace = seconds, megabytes, grace
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_HEAVY)
        self._process: Any = None
        self._ends: Any = None

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __call__(self, work: Callable[..., str], *given: Any) -> Outcome:
        """What becomes of ``work(*given)``, which gives a text or raises."""
        if self._process is None:
            self._start()
        self._ends.send((work, given))
        try:
            if not self._ends.poll(self.seconds + self.grace):
                return self._gone(f"hangs: nothing after {self.seconds + self.grace:.0f} s")
            outcome = Outcome(*self._ends.recv())
        except (EOFError, ConnectionError):
            return self._gone("crashes")
        return self._within_limits(outcome)

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._ends.close()  # it ends by itself, unless it hangs
            self._process.join(1)
            self._process.kill()
            self._process.join()
            self._process = None

    def _start(self) -> None:
        self._ends, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def _gone(self, what: str) -> Outcome:
        self._process.join(0.5)
        code = self._process.exitcode
        self.stop()
        return Outcome(BAD, f"{what} (exit code {code})")

    def _within_limits(self, outcome: Outcome) -> Outcome:
        if outcome.seconds > self.seconds:
            return outcome._replace(kind=BAD, text=f"{outcome.seconds:.1f} s: {outcome.text}")
        if outcome.megabytes > self.megabytes:
            return outcome._replace(kind=BAD, text=f"{outcome.megabytes:.0f} MB: {outcome.text}")
        return outcome


def _serve(ends: Connection) -> None:
    """Do what comes, one piece after another."""
    used = _memory("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (used + _SPARE_MEMORY,) * 2)
    while True:
        try:
            work, given = ends.recv()
        except EOFError:
            return
        ends.send(tuple(_outcome(work, given)))


def _outcome(work: Callable[..., str], given: tuple[Any, ...]) -> Outcome:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, started = _memory("VmRSS"), time.process_time()
    kind, text = judged(work, given)
    return Outcome(kind, text, time.process_time() - started, (_memory("VmHWM") - before) / 2**20)


def judged(work: Callable[..., str], given: tuple[Any, ...]) -> tuple[str, str]:
    """Fine, refused in one line that names a place, or bad: any other error or warning."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        # what anndata 0.13 asks of pandas 3.1; Python shows it to no user
        option = "The '(future.infer_string|mode.chained_assignment)' option is deprecated"
        warnings.filterwarnings("ignore", option, DeprecationWarning)
        try:
            kind, text = FINE, work(*given)
        except SCLDError as error:
            kind, text = _judged_message(str(error))
        except BadOutcomeError as error:
            kind, text = BAD, str(error)
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            kind, text = BAD, f"{type(error).__name__} at {where}: {_shown(error)}"
    foreign = [warning for warning in warned if warning.category is not UserWarning]
    if foreign and kind != BAD:
        first = foreign[0]
        name = f"{Path(first.filename).name}:{first.lineno}"
        return BAD, f"{first.category.__name__} at {name}: {_shown(first.message)}"
    return kind, text


def _judged_message(message: str) -> tuple[str, str]:
    wrong = "\n" in message or ": " not in message or len(message) > _LONGEST
    try:
        message.encode()
    except UnicodeEncodeError:
        wrong = True  # a terminal could not print it
    return (
        (BAD, f"not one line with a place: {ascii(message)[:300]}")
        if wrong
        else (
            REFUSED,
            message,
        )
    )


def _shown(value: object) -> str:
    try:
        return " ".join(str(value).split())[:200]
    except Exception:
        return "no text"


def _memory(name: str) -> int:
    """Bytes of this process; 0 where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)
