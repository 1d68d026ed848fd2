"""Which cells to generate: labels, one row per cell."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from scld.errors import RequestError, check_int, listed, nearest, one_line, unwritable
from scld.generation.changes import Changes
from scld.generation.population import Population
from scld.schema import MISSING, Schema

SEEN = "seen_in_training"  # obs column: whether training had this combination of labels
SYNTHETIC = "synthetic"  # obs column: whether a cell was generated
WRITTEN = (  # obs columns of what is designed into cells
    *("is_doublet", "doublet_of", "ambient_fraction", "is_empty", "in_effects"),
)
_LABEL_STREAM = 2**64 - 1  # in place of a page: no page has this number


@dataclass(frozen=True)
class SamplingRequest:
    """The cells to generate.

    Parameters
    ----------
    codes
        Labels ``[cells, labels]``.
    names
        Names of the cells, if they are given: all but those of empty droplets.
    start
        Standardised latent points ``[cells, dims]`` to start from, float32; pure noise if None.
    columns
        Further obs columns.
    first
        Position of the first cell in a larger request of which these are a part: a whole number of
        pages.
    origin
        Labels ``[cells, labels]`` that latent points are generated of, before they are shifted to
        those in ``codes``; None: the same.
    changes
        Effects, depth and shifts of new donors.
    population
        Latent points from normal distributions, in place of the diffusion model.
    with_mean
        Whether the expected counts are wanted too.
    key
        What the cells are, beside model, seed and options: part of their names.
    prefix
        Of the names of cells that have none.
    prefixed
        Whether the names that are given get the prefix too.
    empty
        How many of the last rows are empty droplets.
    """

    codes: np.ndarray
    names: pd.Index | None = None
    start: np.ndarray | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    first: int = 0
    origin: np.ndarray | None = None
    changes: Changes | None = None
    population: Population | None = None
    with_mean: bool = False
    key: str = ""
    prefix: str = "cell"
    prefixed: bool = False
    empty: int = 0

    def take(self, cells: np.ndarray, first: int) -> SamplingRequest:
        """Other cells with the labels and changes of some of these, without names."""
        origin = None if self.origin is None else self.origin[cells]
        changes = None if self.changes is None else self.changes.some(cells)
        population = None if self.population is None else self.population.some(cells)
        bare = replace(self, names=None, start=None, columns={}, first=first, empty=0)
        bare = replace(bare, codes=self.codes[cells], origin=origin)
        return replace(bare, changes=changes, population=population)

    def obs(self, cells: slice, schema: Schema) -> pd.DataFrame:
        """The obs table of some of the cells."""
        frame = schema.frame(self.codes[cells]).set_index(self._names(cells))
        for name, values in self.columns.items():
            frame[name] = values[cells]
        return frame

    def _names(self, cells: slice) -> pd.Index:
        number = len(self.codes) - self.empty
        rows, names = range(cells.start, min(cells.stop, number)), self.names
        if names is None:
            found = [f"{self.prefix}_{self.first + i}" for i in rows]
        else:
            before = f"{self.prefix}_" if self.prefixed else ""
            found = [f"{before}{name}" for name in names[rows.start : max(rows.start, rows.stop)]]
        empty = range(max(cells.start, number), cells.stop)
        return pd.Index([*found, *(f"{self.prefix}_empty_{i - number}" for i in empty)])


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
    codes = schema.draw(_uniforms(n, schema, seed), where, unseen)
    key = _key_of(where, schema)
    return SamplingRequest(codes, columns=seen_column(codes, schema), key=key)


def part_of_cells(
    first: int, stop: int, where: Mapping[str, Any], schema: Schema, seed: int, unseen: bool
) -> SamplingRequest:
    """The cells at these positions of what `request_cells` gives for any larger ``n``.

    ``first`` is a whole number of pages. If unseen combinations are allowed, the column that marks
    them is always there, so that all parts have the same columns.
    """
    codes = schema.draw(_uniforms(stop - first, schema, seed, first), where, unseen)
    columns = {seen_name(schema): schema.seen(codes)} if unseen else {}
    return SamplingRequest(codes, columns=columns, first=first, key=_key_of(where, schema))


def request_table(obs: Any, schema: Schema, seed: int) -> SamplingRequest:
    """One cell per row of a table with a column per label; gaps are drawn as by `request_cells`.

    A row's draw depends on its position only, not on the other rows. Other columns are kept, and
    an index of text as the names of the cells.
    """
    _check_table(obs, schema.names)
    codes = schema.codes(obs)
    uniforms = _uniforms(len(codes), schema, seed)
    for row in np.unique(codes[(codes == MISSING).any(axis=1)], axis=0):
        same = (codes == row).all(axis=1)
        known = zip(schema.labels, row, strict=True)
        fixed = {label.name: label.categories[code] for label, code in known if code != MISSING}
        codes[same] = schema.draw(uniforms[same], fixed, unseen=True)
    seen = seen_column(codes, schema)
    taken = [*schema.names, *seen, *WRITTEN, synthetic_name(schema)]
    others = {str(name): _column(obs[name]) for name in obs if str(name) not in taken}
    names = None if obs.index.dtype.kind in "iu" else pd.Index(obs.index.astype(str))
    return SamplingRequest(codes, names, columns=others | seen, key=digest_of(codes))


def _column(values: pd.Series) -> Any:
    """A column that is kept; what is neither a number nor a category becomes a category."""
    if isinstance(values.dtype, pd.SparseDtype):
        values = pd.Series(np.asarray(values), values.index)
    categorical = isinstance(values.dtype, pd.CategoricalDtype)
    of = values.cat.categories if categorical else values
    kind = pd.api.types.infer_dtype(of)
    if kind in ("boolean", "integer", "floating") or (categorical and kind == "string"):
        return values.array
    return pd.Categorical(values.astype(object).map(str, na_action="ignore"))


def seen_column(codes: np.ndarray, schema: Schema) -> dict[str, np.ndarray]:
    """The obs column that marks unseen combinations; none if training had all of them."""
    seen = schema.seen(codes)
    return {} if seen.all() else {seen_name(schema): seen}


def seen_name(schema: Schema) -> str:
    """The name of that column, which no label has."""
    return _free_name(SEEN, schema)


def synthetic_name(schema: Schema) -> str:
    """The name of the obs column that marks generated cells, which no label has."""
    return _free_name(SYNTHETIC, schema)


def _free_name(name: str, schema: Schema) -> str:
    while name in schema.names:
        name += "_"
    return name


def digest_of(*parts: Any) -> str:
    """A text that differs for other arrays or plain values."""
    total = hashlib.sha256()
    for part in parts:
        array = isinstance(part, np.ndarray)
        content = np.ascontiguousarray(part).tobytes() if array else json.dumps(part).encode()
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


def _key_of(where: Mapping[str, Any], schema: Schema) -> str:
    fixed = schema.fixed(where)
    return digest_of([[column, sorted(map(int, fixed[column]))] for column in sorted(fixed)])


def _uniforms(n: int, schema: Schema, seed: int, first: int = 0) -> np.ndarray:
    """Random numbers ``[n, 1 + labels]``, of the rows from ``first`` on of an endless table.

    ``first`` is a multiple of 4, the numbers that the generator makes at a time.
    """
    return random_numbers(seed, _LABEL_STREAM, n, 1 + len(schema.labels), first)


def random_numbers(seed: int, stream: int, n: int, columns: int, first: int = 0) -> np.ndarray:
    """Numbers ``[n, columns]`` in [0, 1), of the rows from ``first`` on of an endless table."""
    philox = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64))
    philox.advance(first * columns // 4)
    return np.random.Generator(philox).random((n, columns))


def _check_table(obs: Any, labels: Sequence[str]) -> None:
    if not isinstance(obs, pd.DataFrame):
        allowed = "pass a pandas DataFrame with one row per cell and one column per label"
        raise RequestError(f"obs: got {type(obs).__name__}; {allowed}")
    if not labels:
        advice = "pass the number of cells, or fit again with labels=[...]"
        raise RequestError(f"obs: this model was fitted without labels; {advice}")
    columns = list(map(str, obs.columns))
    repeated = [name for name in columns if columns.count(name) > 1]
    if repeated:
        seen = f"{columns.count(repeated[0])} columns are named {repeated[0]!r}"
        raise RequestError(f"obs: {seen}; drop all but one")
    bad = [name for name in columns if unwritable(name) or "/" in name or name == "_index"]
    if bad:
        seen = f"a column {one_line(repr(bad[0]))} cannot be written to a file"
        raise RequestError(f"obs: {seen}; rename it")
    stale = [name for name in WRITTEN if name in columns]
    if stale:
        seen = f"{listed(stale)} are columns that scld writes"
        warnings.warn(f"obs: {seen}; those of the table are not kept", stacklevel=7)
    if not len(obs) or not set(labels) & set(columns):
        allowed = f"pass one row per cell and at least one of the labels {listed(labels)}"
        raise RequestError(f"obs: {len(obs)} rows with columns {columns}; {allowed}")
    for label in labels:
        _check_column(label, columns, labels)


def _check_column(label: str, columns: Sequence[str], labels: Sequence[str]) -> None:
    others = [column for column in columns if column not in labels]
    near = "" if label in columns else nearest(label, others)
    if near:
        advice = f"Rename it, or drop it to leave {label!r} unspecified"
        raise RequestError(f"obs: no column {label!r}{near} {advice}")
