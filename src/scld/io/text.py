"""Reports and tables as text files, safe to open whatever the names of types and genes hold."""

from __future__ import annotations

import json
import math
import os
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


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as plain values for JSON."""
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records", double_precision=8))
    return rows


def write_json(path: str | os.PathLike[str] | None, values: dict[str, Any]) -> str:
    """Values as JSON text, also written to ``path`` if one is given."""
    text = json.dumps(values, indent=1)
    if path is not None:
        write_text(Path(path), text)
    return text


def with_interval(row: dict[Any, Any]) -> str:
    """``value`` with ``lower`` and ``upper``, if they are known; a dash where it is missing.

    Examples
    --------
    >>> with_interval({"value": 0.5, "lower": 0.4, "upper": 0.61})
    '0.50 (0.40–0.61)'
    """
    if math.isnan(row["value"]):
        return "–"
    if math.isnan(row["lower"]):
        return f"{row['value']:.2f}"
    return f"{row['value']:.2f} ({row['lower']:.2f}–{row['upper']:.2f})"


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table; an apostrophe before names that a spreadsheet would run as a formula."""
    write_text(path, table.map(_quoted).to_csv(index=False))


def _quoted(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
