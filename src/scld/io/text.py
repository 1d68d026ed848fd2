"""Reports and tables as text files, safe to open whatever the names of types and genes hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from scld.errors import printable
from scld.io.atomic import atomic_write

_FORMULA = ("=", "+", "@")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, without control characters."""
    with atomic_write(path.expanduser()) as temporary:
        temporary.write_text(printable(text), encoding="utf-8")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table; an apostrophe before names that a spreadsheet would run as a formula."""
    write_text(path, table.map(_quoted).to_csv(index=False))


def _quoted(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
