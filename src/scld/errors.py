"""What can go wrong, for the user who can correct it.

    SCLDError                   the base class of every error that scld raises on purpose
    └── DataError               an argument or a file cannot be used as it is (also a ValueError)
        ├── RequestError        n, where, obs, guidance, a setting or an output path
        │   └── NotFittedError  fit was not called yet (also an AttributeError)
        └── CheckpointError     a checkpoint that is missing, damaged or of another format

Every message is one line: the place, the value seen, the values allowed, the next step. The
command line prints it and exits with 2. The last functions format what messages have in common.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from numbers import Integral
from typing import Any

_LONGEST = 1000  # characters of a name
_REPLACED: dict[int, int | None] = {
    **dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160)]),  # control characters
    **dict.fromkeys(range(0xD800, 0xE000), 0xFFFD),  # surrogates, which UTF-8 cannot hold
}


class SCLDError(Exception):
    """The base class of every error that scld raises on purpose."""


class DataError(SCLDError, ValueError):
    """An argument or a file cannot be used: counts, labels, genes."""


class RequestError(DataError):
    """A request cannot be met: ``n``, ``where``, ``obs``, a setting, an output path."""


class NotFittedError(RequestError, AttributeError):
    """`Synthesizer.fit` was not called yet; also an AttributeError, as in scikit-learn."""


class CheckpointError(DataError):
    """A checkpoint directory is missing, damaged, or written in another format."""


def check_int(name: str, value: Any, least: int, most: int = 2**63 - 1) -> int:
    """Return an integer within bounds; `RequestError` for anything else."""
    integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not integer or not least <= value <= most:
        upper = f" to {most:,}" if most < 2**63 - 1 else ""
        near = f", such as {int(value)}" if isinstance(value, float) and value.is_integer() else ""
        allowed = f"allowed are integers from {least}{upper}{near}"
        raise RequestError(f"{name}: got {value!r}; {allowed}")
    return int(value)


def unwritable(text: str) -> str:
    """Why no file can hold this name of a column, category or gene; an empty text if one can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if "\0" in text:
        return "holds a NUL character"
    if len(text) > _LONGEST:
        return f"has {len(text):,} characters, and {_LONGEST:,} are allowed"
    return "" if text else "is empty"


def nearest(value: str, known: Sequence[str]) -> str:
    """A '; did you mean ...?' for the end of an error, or an empty text.

    Examples
    --------
    >>> nearest("plasma", ["B cell", "plasma cell"])
    "; did you mean 'plasma cell'?"
    """
    by_lower = {name.lower(): name for name in known}
    match = difflib.get_close_matches(value.lower(), list(by_lower), n=1)
    match += [name for name in by_lower if value.lower() in name.split()]
    return f"; did you mean {by_lower[match[0]]!r}?" if match else ""


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names in quotes, the first few of many."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + rest


def one_line(value: object) -> str:
    """Any value as one short line that can be printed; its type if it has no text."""
    try:
        text = " ".join(str(value).split())[:160]
    except Exception:  # of another package's __str__
        text = ""
    return text.encode(errors="backslashreplace").decode() or type(value).__name__


def shown(value: object) -> str:
    """The ``repr`` of any value as one short line; its type if it has none."""
    try:
        return one_line(repr(value))
    except Exception:  # of another package's __repr__
        return type(value).__name__


def printable(text: str) -> str:
    """Text without control characters: a terminal would obey them.

    Examples
    --------
    >>> printable("B cell" + chr(27) + "[31m")
    'B cell[31m'
    """
    return text.translate(_REPLACED)
