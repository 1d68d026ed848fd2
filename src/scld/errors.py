"""What can go wrong, for the person who can mend it.

    SCLDError                   catch this to catch everything of ours
    └── DataError               something handed in cannot be used as it is (also a ValueError)
        ├── RequestError        what was asked for: n, where, obs, guidance, a setting, an output path
        └── CheckpointError     a checkpoint directory that is missing, damaged or of another format

Every message is one line: the place, the value seen, the values allowed, the next step. The command line prints it
and exits with 2. The words that messages share are at the end.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class SCLDError(Exception):
    """The root of every error that scld raises on purpose."""


class DataError(SCLDError, ValueError):
    """Something handed in cannot be used: counts, labels, genes, a file."""


class RequestError(DataError):
    """What was asked for cannot be done: ``n``, ``where``, ``obs``, a setting, an output path."""


class CheckpointError(DataError):
    """A checkpoint directory is missing, damaged, or written in another format."""


def nearest(value: str, known: Sequence[str]) -> str:
    """A '; did you mean ...?' for the end of an error, or nothing."""
    by_lower = {name.lower(): name for name in known}
    match = difflib.get_close_matches(value.lower(), list(by_lower), n=1)
    return f"; did you mean {by_lower[match[0]]!r}?" if match else ""


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names in quotes, the first few of many."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + rest


def one_line(value: object) -> str:
    """Anything as one line."""
    return " ".join(str(value).split())[:160] or type(value).__name__
