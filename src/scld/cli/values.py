"""Text of options -> what the Python functions take: labels, numbers, weights, tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scld.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd

    from scld.schema import Schema

_CSV_ROWS = {
    "--obs": "one column per label, one row per cell",
    "--effects": "columns gene, log2fc and one per obs column to match, one row per gene",
}


def labels_of(
    pairs: tuple[str, ...], labels: list[str], option: str = "--where"
) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for pair in pairs:
        known = [label for label in labels if pair.startswith(f"{label}=")]  # a label may hold a =
        name = max(known, key=len, default=pair.partition("=")[0])
        category = pair[len(name) + 1 :]
        if not (name and category):
            example = f"{option} cell_type='plasma cell'"
            raise RequestError(f"{option}: got {pair!r}; write LABEL=CATEGORY, such as {example}")
        wanted.setdefault(name, []).append(category)
    return wanted


def numbers(texts: tuple[str, ...]) -> int | str | dict[str, int]:
    """The ``to`` of `Synthesizer.augment`."""
    if texts == ("balance",):
        return "balance"
    if len(texts) == 1 and texts[0].isdecimal():
        return int(texts[0])
    pairs = [text.rpartition("=") for text in texts]
    numbers = {name: number for name, _, number in pairs}
    valid = "" not in numbers and all(number.isdecimal() for number in numbers.values())
    if not valid or len(numbers) < len(texts):
        allowed = "write one number, balance, or CATEGORY=NUMBER for each category"
        got = " and ".join(texts)
        raise RequestError(f"--to: got {got}; {allowed}, such as --to platelet=200")
    return {name: int(number) for name, number in numbers.items()}


def guidance(texts: tuple[str, ...]) -> float | dict[str, float] | None:
    by_label: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            by_label[name] = float(number)
        except ValueError:
            allowed = "write a number, or LABEL=NUMBER, such as --guidance cell_type=1.5"
            raise RequestError(f"--guidance: got {text!r}; {allowed}") from None
    if len(by_label) < len(texts) or ("" in by_label and len(by_label) > 1):
        allowed = "give one weight for all labels, or one for each label"
        raise RequestError(f"--guidance: got {' and '.join(texts)}; {allowed}")
    return by_label.get("", by_label or None)


def table_of_cells(path: Path, schema: Schema, conditions: Iterable[str]) -> pd.DataFrame:
    """Columns of text labels, and those that effects are to match, stay text."""
    texts = {label.name for label in schema.labels if isinstance(label.categories[0], str)}
    texts |= {name for name in conditions if name not in schema.names}
    table = csv_of(path, "--obs")
    for name in set(table) - texts:
        table[name] = typed(table[name])
    return table


def typed(column: pd.Series) -> pd.Series:
    """A column of text as numbers or booleans; as it is if it is neither, or has leading zeros."""
    import pandas as pd

    known = column.dropna()
    if known.str.fullmatch("True|False").all() and len(known):
        return column.map({"True": True, "False": False})
    if known.str.fullmatch(r"[+-]?0\d+.*").any():
        return column
    try:
        numbers: pd.Series = pd.to_numeric(column)
        return numbers
    except (ValueError, TypeError):
        return column


def csv_of(path: Path, option: str) -> pd.DataFrame:
    """All as text. Only empty fields are missing: categories may be named NA, donors 001."""
    import pandas as pd

    allowed = _CSV_ROWS[option]
    if not path.exists():
        raise RequestError(f"{option}: {path}: no such file; pass a CSV (or .tsv) with {allowed}")
    separator = "\t" if path.suffix == ".tsv" else ","
    options: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}
    try:
        table: pd.DataFrame = pd.read_csv(path, sep=separator, dtype=str, **options)
    except (OSError, ValueError) as error:
        seen = f"not a readable CSV ({str(error).splitlines()[0]})"
        raise RequestError(f"{option}: {path}: {seen}; write {allowed}") from error
    if table.shape[1] and str(table.columns[0]).startswith("Unnamed: 0"):  # names of rows
        table = table.set_index(table.columns[0]).rename_axis(None)
    return table
