"""Malformed cells, JSON and files: what hostile.py and tests/io/test_malformed_*.py try.

A recipe names what is unusual in each aspect of an AnnData and of the call. The same recipe and
random numbers give the same cells.
"""

from __future__ import annotations

import copy
import datetime
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

Random = np.random.Generator
SURROGATE = "lone \udc80"
MOST_UNUSUAL = 3  # aspects of one recipe: more would hide each other


class ImpossibleError(Exception):
    """No AnnData can be so."""


class Unspeakable:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise ValueError("no text")


class Unequal:
    """An object that cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise TypeError("no comparison")

    def __hash__(self) -> int:
        return 1


# the matrix


def _at(value: float) -> Callable[[np.ndarray, Random], np.ndarray]:
    """The counts with this value at a random place."""

    def changed(counts: np.ndarray, random: Random) -> np.ndarray:
        counts.flat[random.integers(counts.size)] = value
        return counts

    return changed


def _one_each(counts: np.ndarray, random: Random) -> np.ndarray:
    """A single count in each cell."""
    counts[:] = 0
    counts[np.arange(len(counts)), random.integers(counts.shape[1], size=len(counts))] = 1
    return counts


def _without_row(counts: np.ndarray, random: Random) -> np.ndarray:
    counts[random.integers(len(counts))] = 0
    return counts


def _without_most_columns(counts: np.ndarray, random: Random) -> np.ndarray:
    counts[:, 1:] = 0
    return counts


VALUES: dict[str, Callable[[np.ndarray, Random], np.ndarray]] = {
    "counts": lambda counts, random: counts,
    "NaN": _at(np.nan),
    "infinite": _at(np.inf),
    "negative": _at(-1),
    "negative zero": _at(-0.0),
    "a fraction": _at(0.5),
    "log": lambda counts, random: np.log1p(counts),
    "2^24": _at(2**24),
    "2^24 - 1": _at(2**24 - 1),
    "2^60": _at(2.0**60),
    "largest float": _at(1.7e308),
    "smallest float": _at(5e-324),
    "an empty cell": _without_row,
    "one gene": _without_most_columns,
    "all zero": lambda counts, random: 0 * counts,
    "all equal": lambda counts, random: 0 * counts + 3,
    "all NaN": lambda counts, random: counts + np.nan,
    "large": lambda counts, random: counts * 100_000,
    "one count each": _one_each,
    "booleans": lambda counts, random: counts > 1,
}
DTYPES = (
    *("float32", "float64", "float16", ">f4", ">f8", ">f2", ">i4", ">u2", "bool", "int8"),
    *("uint8", "int16", "int64", "uint64", "longdouble", "complex64", "object", "str", "M8[s]"),
)
SIZES = {
    "60 x 12": (60, 12),
    "0 x 12": (0, 12),
    "60 x 0": (60, 0),
    "1 x 1": (1, 1),
    "19 x 12": (19, 12),
    "20 x 12": (20, 12),
    "20 x 1": (20, 1),
    "25 x 2": (25, 2),
    "30 x 1000": (30, 1000),
    "300 x 3": (300, 3),
}


def _sparse(kind: Any) -> Callable[[np.ndarray, Random], Any]:
    """A sparse matrix, also of types that scipy cannot convert."""

    def made(counts: np.ndarray, random: Random) -> Any:
        places = kind(counts != 0, dtype=np.float32)
        dense = counts.T if kind is sp.csc_matrix else counts
        places.data = dense[dense != 0]
        return places

    return made


def _damaged(part: str) -> Callable[[np.ndarray, Random], Any]:
    """A CSR whose indices or row pointers cannot be."""

    def made(counts: np.ndarray, random: Random) -> Any:
        matrix = sp.csr_matrix(counts)
        array = getattr(matrix, part)
        array[random.integers(1, len(array))] = random.choice([-1, 10**6, 2**31 - 1])
        return matrix

    return made


def _unsorted(counts: np.ndarray, random: Random) -> Any:
    matrix = sp.csr_matrix(counts)[:, ::-1]
    matrix.indices = counts.shape[1] - 1 - matrix.indices
    matrix.has_sorted_indices = False
    return matrix[:, ::-1]


def _twice(counts: np.ndarray, random: Random) -> Any:
    """Each entry stored twice."""
    once = sp.coo_matrix(counts)
    rows, columns = np.tile(once.row, 2), np.tile(once.col, 2)
    order = np.argsort(rows, kind="stable")
    starts = np.append(0, np.cumsum(np.bincount(rows, minlength=len(counts))))
    values = np.tile(once.data, 2)[order]
    return sp.csr_matrix((values, columns[order], starts), shape=counts.shape)


def _with_zeros(counts: np.ndarray, random: Random) -> Any:
    matrix = sp.csr_matrix(counts)
    matrix.data[random.random(len(matrix.data)) < 0.3] = 0
    return matrix


def _dask(counts: np.ndarray, random: Random) -> Any:
    import dask.array

    return dask.array.from_array(counts, chunks=7)


FORMS: dict[str, Callable[[np.ndarray, Random], Any]] = {
    "csr": _sparse(sp.csr_matrix),
    "csc": _sparse(sp.csc_matrix),
    "csr array": lambda counts, random: sp.csr_array(counts),
    "csc array": lambda counts, random: sp.csc_array(counts),
    "coo": lambda counts, random: sp.coo_matrix(counts),
    "dense": lambda counts, random: counts,
    "fortran": lambda counts, random: np.asfortranarray(counts),
    "masked": lambda counts, random: np.ma.masked_equal(counts, 1),
    "unsorted": _unsorted,
    "twice": _twice,
    "zeros stored": _with_zeros,
    "bad indices": _damaged("indices"),
    "bad pointers": _damaged("indptr"),
    "dask": _dask,
    "none": lambda counts, random: None,
}

# names


def _first(value: Any) -> Callable[[int], list[Any]]:
    """Usual names, but for the first."""
    return lambda number: [value, *(f"name {i}" for i in range(1, number))][:number]


NAMES: dict[str, Callable[[int], Any]] = {
    "usual": lambda number: [f"name {i}" for i in range(number)],
    "all the same": lambda number: ["same"] * number,
    "one twice": _first("name 1"),
    "numbers": lambda number: np.arange(number),
    "NaN": _first(np.nan),
    "None": _first(None),
    "empty": _first(""),
    "NUL": _first("a\0b"),
    "surrogate": _first(SURROGATE),
    "_index": _first("_index"),
    "slash": _first("a/b"),
    "lines": _first("a\nb"),
    "long": _first("x" * 5000),
    "tuples": lambda number: [(i, "a") for i in range(number)],
    "categories": lambda number: pd.CategoricalIndex([f"n{i}" for i in range(number)]),
}

# labels


def _cycle(*values: Any) -> Callable[[int, Random], Any]:
    """These values in turn, as objects."""

    def column(cells: int, random: Random) -> Any:
        made = np.empty(cells, object)
        for i in range(cells):
            made[i] = values[i % len(values)]
        return made

    return column


def _typed(kind: str, *values: Any) -> Callable[[int, Random], Any]:
    return lambda cells, random: pd.array(np.resize(values, cells), dtype=kind)


def _categories(*values: Any, **more: Any) -> Callable[[int, Random], Any]:
    """A categorical of these, and categories without cells."""

    def column(cells: int, random: Random) -> Any:
        codes = random.integers(-1, len(values), cells)
        return pd.Categorical.from_codes(codes, pd.Index([*values], dtype=object), **more)

    return column


CATEGORIES: dict[str, Callable[[int, Random], Any]] = {
    "text": _cycle("B", "T", "NK"),
    "categories": _categories("B", "T", "unused"),
    "ordered": _categories("low", "high", ordered=True),
    "integers": _typed("int64", 3, 1, 2),
    "bytes of integers": _typed("uint8", 255, 0),
    "booleans": _typed("bool", True, False),
    "whole floats": _typed("float64", 1.0, 2.0),
    "fractions": _typed("float64", 1.5, 2.0),
    "infinite": _typed("float64", np.inf, 1.0),
    "half precision": _typed("float16", 1.0, 2.0),
    "nullable integers": lambda cells, random: pd.array(np.resize([1, 2], cells), dtype="Int64"),
    "nullable missing": lambda cells, random: pd.array(([1, None] * cells)[:cells], dtype="Int64"),
    "nullable text": lambda cells, random: pd.array(([None, "a"] * cells)[:cells], dtype="string"),
    "nullable booleans": lambda cells, random: pd.array(
        ([True, None] * cells)[:cells], dtype="boolean"
    ),
    "some missing": _cycle("B", None, np.nan, "T"),
    "all missing": _cycle(np.nan),
    "all None": _cycle(None),
    "one category": _cycle("only"),
    "one cell of its own": lambda cells, random: np.array(["rare", *["B"] * cells][:cells], object),
    "all different": lambda cells, random: np.array([f"c{i}" for i in range(cells)], object),
    "huge integers": _cycle(2**70, 2**70 + 1),
    "64 bits": _cycle(2**63 - 1, -(2**63)),
    "64 bits unsigned": _typed("uint64", 2**64 - 1, 1),
    "mixed": _cycle("a", 1),
    "1 and True": _cycle(1, True),
    "1 and text": _categories("1", 1),
    "1 and 1.0": _categories(1, 1.0),
    "lists": _cycle(["t"], ["u"]),
    "dicts": _cycle({"a": 1}, {}),
    "tuples": _cycle(("a", 1), ("b", 2)),
    "dates": lambda cells, random: pd.to_datetime(np.resize(["2020-01-01", "2021-02-03"], cells)),
    "durations": lambda cells, random: pd.to_timedelta(np.resize([1, 2], cells), unit="s"),
    "date objects": _cycle(datetime.date(2020, 1, 1), None),
    "intervals": lambda cells, random: pd.cut(np.resize([1, 2, 3], cells), [0, 1.5, 3]),
    "decimals": _cycle(Decimal("1.5"), Decimal("NaN")),
    "complex": _cycle(1j, 2j),
    "bytes": _cycle(b"B", b"T"),
    "NUL": _cycle("a\0b", "c"),
    "surrogate": _cycle(SURROGATE, "c"),
    "empty text": _cycle("", "a"),
    "spaces": _cycle(" ", "\n", "\t"),
    "words of missing": _cycle("nan", "None", "NA", "unspecified"),
    "slashes": _cycle("a/b", "c=d"),
    "long": _cycle("x" * 5000, "y"),
    "unspeakable": lambda cells, random: _cycle(Unspeakable(), Unspeakable())(cells, random),
    "unspeakable categories": lambda cells, random: _categories(Unspeakable(), Unspeakable())(
        cells, random
    ),
    "unequal": lambda cells, random: _cycle(Unequal(), Unequal())(cells, random),
    "sparse": lambda cells, random: pd.arrays.SparseArray(np.resize([0, 1], cells)),
    "periods": lambda cells, random: pd.period_range("2020-01", periods=cells, freq="M"),
}
LABEL_NAMES: dict[str, Any] = {
    "usual": "cell_type",
    "_index": "_index",
    "slash": "a/b",
    "empty": "",
    "NUL": "a\0b",
    "surrogate": SURROGATE,
    "number": 3,
    "synthetic": "synthetic",
    "seen_in_training": "seen_in_training",
    "index": "index",
    "spaces": "my\nlabel",
    "tuple": ("a", "b"),
    "None": None,
    "long": "x" * 5000,
}
LABELS: dict[str, Callable[[Any], Any]] = {
    "a list": lambda name: [name],
    "itself": lambda name: name,
    "none": lambda name: [],
    "a list of a list": lambda name: [[name]],
    "twice": lambda name: [name, name],
    "two": lambda name: [name, "donor"],
    "another": lambda name: ["cell_typ"],
    "unspeakable": lambda name: [Unspeakable()],
    "unequal": lambda name: [name, Unequal()],
    "a dict": lambda name: {name: 1},
    "bytes": lambda name: b"cell_type",
    "a number": lambda name: 5,
    "None": lambda name: None,
    "None in a list": lambda name: [None],
    "an array": lambda name: np.array([name]),
    "an index": lambda name: pd.Index([name]),
    "a frame": lambda name: pd.DataFrame({"a": [1]}),
    "a generator": lambda name: (each for each in [name]),
}

# other parts of an AnnData


def _with_raw(cells: ad.AnnData) -> None:
    cells.raw = cells.copy()


def _with_column(name: Any, values: Callable[[int], Any]) -> Callable[[ad.AnnData], None]:
    def changed(cells: ad.AnnData) -> None:
        cells.obs[name] = values(cells.n_obs)

    return changed


def _with_column_twice(cells: ad.AnnData) -> None:
    cells.obs = pd.concat([cells.obs, cells.obs], axis=1)


PARTS: dict[str, Callable[[ad.AnnData], None]] = {
    "none": lambda cells: None,
    "raw": _with_raw,
    "obsm": lambda cells: cells.obsm.update({"X_pca": np.zeros((cells.n_obs, 2))}),
    "uns": lambda cells: cells.uns.update({"a": object(), "scld": 3}),
    "origin": lambda cells: cells.uns.update({"scld_origin": 3}),
    "column of lists": _with_column("lists", lambda cells: [[1]] * cells),
    "column of mixed": _with_column("mixed", lambda cells: (["a", 1] * cells)[:cells]),
    "column of dates": _with_column("dates", lambda cells: pd.to_datetime(["2020-01-01"] * cells)),
    "column of NaN": _with_column("none", lambda cells: np.full(cells, np.nan)),
    "column of None": _with_column("none", lambda cells: [None] * cells),
    "column of halves": _with_column("half", lambda cells: np.full(cells, 0.5, np.float16)),
    "column of numbers": _with_column(7, lambda cells: np.arange(cells)),
    "synthetic is text": _with_column("synthetic", lambda cells: ["a"] * cells),
    "synthetic is boolean": _with_column("synthetic", lambda cells: np.arange(cells) % 2 == 0),
    "columns twice": _with_column_twice,
}
LAYERS: dict[str, Any] = {
    "none": None,
    "counts": "counts",
    "missing": "count",
    "number": 3,
    "list": ["counts"],
    "unspeakable": Unspeakable(),
}

ASPECTS: dict[str, tuple[str, ...]] = {  # the first of each is the usual one
    "values": tuple(VALUES),
    "dtype": DTYPES,
    "size": tuple(SIZES),
    "form": tuple(FORMS),
    "genes": tuple(NAMES),
    "cells": tuple(NAMES),
    "categories": tuple(CATEGORIES),
    "label": tuple(LABEL_NAMES),
    "labels": tuple(LABELS),
    "part": tuple(PARTS),
    "layer": tuple(LAYERS),
}
USUAL = {aspect: names[0] for aspect, names in ASPECTS.items()}
UNUSUAL = [(aspect, name) for aspect, names in ASPECTS.items() for name in names[1:]]


@dataclass(frozen=True)
class Malformed:
    """Cells and how a fit on them is asked for."""

    cells: ad.AnnData
    labels: Any
    layer: Any
    label: Any  # for `augment`


def random_recipe(random: Random) -> dict[str, str]:
    """A recipe with a few unusual aspects; the others are usual."""
    number = random.integers(1, MOST_UNUSUAL + 1)
    return USUAL | dict(UNUSUAL[random.integers(len(UNUSUAL))] for _ in range(number))


def malformed(recipe: Mapping[str, str], random: Random) -> Malformed:
    """The cells of a recipe; `ImpossibleError` if no AnnData can be so."""
    try:
        with warnings.catch_warnings():  # of conversions and of AnnData, not of scld
            warnings.simplefilter("ignore")
            return _malformed(recipe, random)
    except Exception as error:
        raise ImpossibleError(f"{recipe}: {type(error).__name__}") from error


def _malformed(recipe: Mapping[str, str], random: Random) -> Malformed:
    cells, genes = SIZES[recipe["size"]]
    counts = random.poisson(random.gamma(1.0, 2.0, (3, genes))[np.arange(cells) % 3]).astype(float)
    counts[:, :1] += 1
    if counts.size:
        counts = VALUES[recipe["values"]](counts, random)
    matrix = FORMS[recipe["form"]](counts.astype(recipe["dtype"]), random)
    name = LABEL_NAMES[recipe["label"]]
    columns = {name: CATEGORIES[recipe["categories"]](cells, random)}
    obs = pd.DataFrame(columns | {"donor": np.arange(cells) % 2}, dtype=None)
    obs.index, var = NAMES[recipe["cells"]](cells), pd.DataFrame(index=range(genes))
    var.index = NAMES[recipe["genes"]](genes)
    made = ad.AnnData(matrix, obs=obs, var=var)
    made.obs_names, made.var_names = obs.index, var.index
    if LAYERS[recipe["layer"]] == "counts":
        made.layers["counts"] = made.X
    PARTS[recipe["part"]](made)
    return Malformed(made, LABELS[recipe["labels"]](name), LAYERS[recipe["layer"]], name)


# JSON

Path_ = tuple[Any, ...]  # keys and positions
DELETED = object()
REPLACEMENTS: tuple[Any, ...] = (
    *(DELETED, None, "text", "", True, 0, -1, 1.5, 10**6, 10**9, 2**53, 2**63, 10**30),
    *(10**400, -(10**30), 1e308, float("nan"), float("inf"), [], {}, [None], [[]], {"a": 1}),
    *("1", ["a", "a"], [0, 0], "\udc80", "a\0b", "x" * 5000, [1, [2, [3]]]),
)


def places(value: Any, before: Path_ = ()) -> Iterator[Path_]:
    """Every place in a JSON value that can be replaced."""
    if before:
        yield before
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*before, key))


def replaced(value: Any, place: Path_, new: Any) -> Any:
    """A copy with another value at one place, or without it."""
    changed = copy.deepcopy(value)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    if new is DELETED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = new
    return changed


def nested(value: Any, place: Path_, depth: int) -> Any:
    """A copy with many brackets around one value."""
    inner = value
    for key in place:
        inner = inner[key]
    for _ in range(depth):
        inner = [inner]
    return replaced(value, place, inner)


def doubled(value: Any, place: Path_) -> Any:
    """A copy with the last entry of a list there twice, or the value in a list twice."""
    inner = value
    for key in place:
        inner = inner[key]
    return replaced(value, place, [*inner, *inner[-1:]] if isinstance(inner, list) else [inner] * 2)


def mutated(value: Any, random: Random) -> tuple[Any, str]:
    """A JSON value with one random fault, and what was done."""
    every = list(places(value))
    place = every[random.integers(len(every))]
    where = "/".join(map(str, place))
    kind = random.integers(10)
    if kind == 0:
        return nested(value, place, int(random.choice([1, 50, 500]))), f"{where}: nested"
    if kind == 1:
        return doubled(value, place), f"{where}: doubled"
    new = REPLACEMENTS[random.integers(len(REPLACEMENTS))]
    return replaced(
        value, place, new
    ), f"{where}: {'deleted' if new is DELETED else repr(new)[:40]}"


# bytes


def damaged(content: bytes, random: Random) -> bytes:
    """A file cut short, or with other bytes somewhere; often near its beginning."""
    array, size = np.frombuffer(content, np.uint8).copy(), len(content)
    near = min(size, 4096) if random.random() < 0.5 else size
    start = int(random.integers(near)) if size else 0
    span = slice(start, start + int(random.choice([1, 1, 4, 64, 1000])))
    kind = random.integers(5) if size else 0
    if kind == 0:
        return content[:start]
    if kind == 1:
        array[start] ^= 1 << random.integers(8)
    elif kind == 2:
        array[span] = random.integers(256, size=len(array[span]))
    elif kind == 3:
        array[span] = random.choice([0, 255])
    else:
        return content[:start] + random.bytes(8) + content[start:]
    return array.tobytes()


def damage_store(folder: Path, random: Random) -> str:
    """Damage or remove a random file of a folder; its name."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    file = files[random.integers(len(files))]
    if random.random() < 0.2:
        file.unlink()
    else:
        file.write_bytes(damaged(file.read_bytes(), random))
    return str(file.relative_to(folder))
