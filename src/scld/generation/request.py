"""Which cells to generate: labels, one row per cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scld.errors import RequestError, check_int, listed, nearest
from scld.schema import MISSING, Schema

SEEN = "seen_in_training"  # obs column: whether training had this combination of labels
_LABEL_STREAM = 2**64 - 1  # in place of a page: no page has this number


@dataclass(frozen=True)
class SamplingRequest:
    """The cells to generate.

    Parameters
    ----------
    codes
        Labels ``[cells, labels]``.
    names
        Names of the cells, if they are given.
    start
        Standardised latent points ``[cells, dims]`` to start from, float32; pure noise if None.
    columns
        Further obs columns.
    first
        Position of the first cell in a larger request of which these are a part: a whole number of
        pages.
    """

    codes: np.ndarray
    names: pd.Index | None = None
    start: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    first: int = 0

    def obs(self, cells: slice, schema: Schema) -> pd.DataFrame:
        """The obs table of some of the cells."""
        names = self.names
        if names is None:
            positions = range(self.first + cells.start, self.first + cells.stop)
            names = pd.Index([f"cell_{i}" for i in positions])
        else:
            names = names[cells]
        columns = {name: values[cells] for name, values in self.columns.items()}
        return schema.frame(self.codes[cells]).set_index(names).assign(**columns)


def request(
    n: Any, where: Any, obs: Any, unseen: bool, schema: Schema, seed: int
) -> SamplingRequest:
    """The cells that `Synthesizer.sample` is asked for."""
    if obs is None:
        return request_cells(n, where, schema, seed, unseen)
    if n is not None or where is not None:
        raise RequestError("obs: got n or where as well; the table alone lists the cells")
    return request_table(obs, schema, seed)


def request_cells(n: Any, where: Any, schema: Schema, seed: int, unseen: bool) -> SamplingRequest:
    """``n`` cells with the labels in ``where``; others by their training frequencies."""
    n = check_int("n", n, 1)
    where = {} if where is None else where
    return _request(schema.draw(_uniforms(n, schema, seed), where, unseen), schema)


def part_of_cells(
    first: int, stop: int, where: Mapping[str, Any], schema: Schema, seed: int, unseen: bool
) -> SamplingRequest:
    """The cells at these positions of what `request_cells` gives for any larger ``n``.

    ``first`` is a whole number of pages. If unseen combinations are allowed, the column that marks
    them is always there, so that all parts have the same columns.
    """
    codes = schema.draw(_uniforms(stop - first, schema, seed, first), where, unseen)
    columns = {seen_name(schema): schema.seen(codes)} if unseen else {}
    return SamplingRequest(codes, columns=columns, first=first)


def request_table(obs: Any, schema: Schema, seed: int) -> SamplingRequest:
    """One cell per row of a table with a column per label; gaps are drawn as by `request_cells`.

    A row's draw depends on its position only, not on the other rows.
    """
    _check_table(obs, schema.names)
    codes = schema.codes(obs)
    uniforms = _uniforms(len(codes), schema, seed)
    for row in np.unique(codes[(codes == MISSING).any(axis=1)], axis=0):
        same = (codes == row).all(axis=1)
        known = zip(schema.labels, row, strict=True)
        fixed = {label.name: label.categories[code] for label, code in known if code != MISSING}
        codes[same] = schema.draw(uniforms[same], fixed, unseen=True)
    return _request(codes, schema, pd.Index(obs.index.astype(str)))


def seen_column(codes: np.ndarray, schema: Schema) -> dict[str, np.ndarray]:
    """The obs column that marks unseen combinations; none if training had all of them."""
    seen = schema.seen(codes)
    return {} if seen.all() else {seen_name(schema): seen}


def seen_name(schema: Schema) -> str:
    """The name of that column, which no label has."""
    name = SEEN
    while name in schema.names:
        name += "_"
    return name


def _request(codes: np.ndarray, schema: Schema, names: pd.Index | None = None) -> SamplingRequest:
    return SamplingRequest(codes, names, columns=seen_column(codes, schema))


def _uniforms(n: int, schema: Schema, seed: int, first: int = 0) -> np.ndarray:
    """Random numbers ``[n, 1 + labels]``, of the rows from ``first`` on of an endless table.

    ``first`` is a multiple of 4, the numbers that the generator makes at a time.
    """
    key = np.array([seed, _LABEL_STREAM], dtype=np.uint64)
    stream, columns = np.random.Philox(key=key), 1 + len(schema.labels)
    stream.advance(first * columns // 4)
    return np.random.Generator(stream).random((n, columns))


def _check_table(obs: Any, labels: Sequence[str]) -> None:
    if not isinstance(obs, pd.DataFrame):
        allowed = "pass a pandas DataFrame with one row per cell and one column per label"
        raise RequestError(f"obs: got {type(obs).__name__}; {allowed}")
    if not labels:
        advice = "pass the number of cells, or fit again with labels=[...]"
        raise RequestError(f"obs: this model was fitted without labels; {advice}")
    columns = list(map(str, obs.columns))
    if not len(obs) or not set(labels) & set(columns):
        allowed = f"pass one row per cell and at least one of the labels {listed(labels)}"
        raise RequestError(f"obs: {len(obs)} rows with columns {columns}; {allowed}")
    for label in labels:
        _check_column(label, columns, labels)


def _check_column(label: str, columns: Sequence[str], labels: Sequence[str]) -> None:
    if columns.count(label) > 1:
        seen = f"{columns.count(label)} columns are named {label!r}"
        raise RequestError(f"obs: {seen}; drop all but one")
    others = [column for column in columns if column not in labels]
    near = "" if label in columns else nearest(label, others)
    if near:
        advice = f"Rename it, or drop it to leave {label!r} unspecified"
        raise RequestError(f"obs: no column {label!r}{near} {advice}")
