"""Labels: obs columns to condition on, their categories, and how often each combination occurs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from scld.errors import DataError, RequestError, listed, nearest, one_line, shown, unwritable

MISSING = -1  # code of a label that is unknown or unspecified
_MOST_CELLS = 2**53  # of a training set: sums of more are not exact


@dataclass(frozen=True)
class Label:
    """One label: an obs column and its categories in training, in their order."""

    name: str
    categories: tuple[Any, ...]  # all str, int, float or bool; anything else as text
    ordered: bool = False

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {_key(category): code for code, category in enumerate(self.categories)}

    def knows(self, value: Any) -> bool:
        """Whether this category was in training."""
        return _key(value) in self._codes

    def code(self, value: Any) -> int:
        """The code of a category, given as itself or as text; `MISSING` for a missing value."""
        if _is_missing(value):
            return MISSING
        if not self.knows(value):
            known = list(self._codes)
            seen = f"no category {_key(value)!r} in training"
            near = nearest(_key(value), known)
            parts = [part.strip() for part in _key(value).split(",")]
            if len(parts) > 1 and all(map(self.knows, parts)):
                near = "; name several one by one: repeat --where, or pass a list"
            raise RequestError(f"label {self.name!r}: {seen}; known: {listed(known)}{near}")
        return self._codes[_key(value)]

    def text(self, code: int) -> str:
        """The category of a code as text, for the record."""
        return "unspecified" if code == MISSING else str(self.categories[code])

    def encode(self, column: pd.Series, lenient: bool = False) -> np.ndarray:
        """Codes ``[cells]`` of an obs column; if ``lenient``, `MISSING` for unknown categories."""
        try:
            rows, values = pd.factorize(column)
        except TypeError as error:
            seen = f"holds values that cannot be categories ({one_line(error)})"
            advice = "use strings, integers or booleans"
            raise DataError(f"label {self.name!r}: {seen}; {advice}") from error
        known = [self.code(v) if not lenient or self.knows(v) else MISSING for v in values]
        return np.array([*known, MISSING])[rows]  # factorize marks missing values -1: the last


@dataclass(frozen=True, eq=False, repr=False)
class Schema:
    """The labels of a training set, and the number of cells of each combination of categories.

    Parameters
    ----------
    labels
        One `Label` per obs column, in the order given.
    combinations
        ``[combinations, labels]`` codes, unique rows; `MISSING` where cells had no label.
    cells
        ``[combinations]`` number of training cells.

    Examples
    --------
    >>> import pandas as pd
    >>> schema = Schema.of(pd.DataFrame({"type": ["B", "T", "T"]}), ["type"])
    >>> schema.labels[0].categories, schema.cells.tolist()
    (('B', 'T'), [1, 2])
    """

    labels: tuple[Label, ...]
    combinations: np.ndarray
    cells: np.ndarray

    @classmethod
    def of(cls, obs: pd.DataFrame, names: Sequence[str] | str) -> Schema:
        """Read the labels of an obs table; `DataError` if a column cannot be a label."""
        return cls.encode(obs, [names] if isinstance(names, str) else names)[0]

    @classmethod
    def encode(cls, obs: pd.DataFrame, names: Sequence[str]) -> tuple[Schema, np.ndarray]:
        """The schema of an obs table, and its codes ``[cells, labels]``."""
        for name in names:
            _check_name(name)
        repeated = [name for i, name in enumerate(names) if name in names[:i]]
        if repeated:
            seen = f"{repeated[0]!r} is named twice in {listed(names)}"
            raise DataError(f"labels: {seen}; name each label once")
        labels = tuple(_label_of(obs, name) for name in names)
        codes = _encode(obs, labels)
        if not labels:
            return cls((), np.zeros((1, 0), np.int64), np.array([len(obs)])), codes
        combinations, cells = np.unique(codes, axis=0, return_counts=True)
        return cls(labels, combinations, cells.astype(np.int64)), codes

    def __repr__(self) -> str:
        sizes = [f"{label.name!r}: {len(label.categories)} categories" for label in self.labels]
        combinations = f"{len(self.cells):,} combinations in {self.cells.sum():,} cells"
        return f"Schema({', '.join(sizes) or 'no labels'}; {combinations})"

    @property
    def names(self) -> list[str]:
        """The names of the labels."""
        return [label.name for label in self.labels]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of categories of each label."""
        return tuple(len(label.categories) for label in self.labels)

    def category_cells(self, name: str) -> dict[str, int]:
        """Number of training cells of each category of a label."""
        column = self.names.index(name)
        codes, size = self.combinations[:, column], self.sizes[column]
        counts = np.bincount(codes + 1, weights=self.cells, minlength=size + 1)[1:]
        categories = map(str, self.labels[column].categories)
        return dict(zip(categories, counts.astype(int).tolist(), strict=True))

    def codes(self, obs: pd.DataFrame, lenient: Sequence[str] = ()) -> np.ndarray:
        """Codes ``[cells, labels]`` of an obs table.

        `MISSING` stands for missing columns and values, and for unknown categories of the labels
        in ``lenient``.
        """
        return _encode(obs, self.labels, lenient)

    def draw(
        self, uniforms: np.ndarray, where: Mapping[str, Any], unseen: bool = False
    ) -> np.ndarray:
        """Sample labels ``[n, labels]``: fixed in ``where``, else by their training frequencies.

        Frequencies are those given the fixed labels. If no training cell has all of these and
        ``unseen`` allows it, the others follow the training cells that have most of them; a fixed
        label that such a cell lacks follows its own frequencies.

        Parameters
        ----------
        uniforms
            ``[n, 1 + labels]`` numbers in [0, 1), so that each row depends on its own only.
        where
            Category or list of categories of each fixed label.
        unseen
            Whether a combination without training cells is allowed.
        """
        fixed = self.fixed(where)
        match = [np.isin(self.combinations[:, column], codes) for column, codes in fixed.items()]
        matches = np.array(match).reshape(len(fixed), len(self.cells))
        count = matches.sum(axis=0)
        if count.max() < len(fixed) and not unseen:
            wanted = " and ".join(
                f"{name}={' or '.join(texts)}" for name, texts in self.described(where).items()
            )
            advice = "to generate an unseen combination, add unseen=True (--unseen)"
            raise RequestError(f"where: no training cell has {wanted}; {advice}")
        drawn = _choice(self.cells * (count == count.max()), uniforms[:, 0])
        codes: np.ndarray = self.combinations[drawn]
        for (column, wanted_codes), matched in zip(fixed.items(), matches[:, drawn], strict=True):
            cells = self._code_cells(column, wanted_codes)
            which = _choice(cells, uniforms[~matched, 1 + column])
            codes[~matched, column] = np.array(wanted_codes)[which]
        return codes

    def _code_cells(self, column: int, codes: Sequence[int]) -> np.ndarray:
        """Training cells of these codes of a label, at least one each."""
        values = self.combinations[:, column]
        return np.array([max(1, self.cells[values == code].sum()) for code in codes])

    def seen(self, codes: np.ndarray) -> np.ndarray:
        """Whether any training cell had all specified labels ``[cells]``, of codes given."""
        rows, cells = unique_rows(codes)
        known = [((self.combinations == row) | (row == MISSING)).all(axis=1).any() for row in rows]
        seen: np.ndarray = np.array(known)[cells]
        return seen

    def having(self, where: Mapping[str, Any], place: str = "where") -> np.ndarray:
        """Which combinations of training have these categories; `RequestError` if none has."""
        chosen = np.ones(len(self.cells), bool)
        for column, codes in self.fixed(where, place).items():
            chosen &= np.isin(self.combinations[:, column], codes)
        if not chosen.any():
            wanted = shown(dict(where))
            raise RequestError(f"{place}: no training cell has {wanted}; ask for another")
        return chosen

    def fixed(self, where: Mapping[str, Any], place: str = "where") -> dict[int, list[int]]:
        """Column of each label in ``where`` -> codes of its categories."""
        if not isinstance(where, Mapping):
            allowed = "pass a dict of label and category, such as {'cell_type': 'B cell'}"
            raise RequestError(f"{place}: got {type(where).__name__}; {allowed}")
        fixed: dict[int, list[int]] = {}
        for name, wanted in where.items():
            column = self.column(name, place)
            values = list(wanted) if pd.api.types.is_list_like(wanted) else [wanted]
            if not values:
                advice = f"name a category, or leave {name!r} unspecified"
                raise RequestError(f"{place}: {name!r} is given an empty list; {advice}")
            fixed[column] = sorted({self.labels[column].code(value) for value in values})
        return fixed

    def described(self, where: Mapping[str, Any] | None) -> dict[str, list[str]]:
        """The labels in ``where`` and their categories as text, for the record."""
        fixed = self.fixed(where or {})
        return {
            self.labels[column].name: [self.labels[column].text(code) for code in codes]
            for column, codes in fixed.items()
        }

    def column(self, name: str, place: str) -> int:
        """The position of a label; `RequestError` with the known names if there is none."""
        if name in self.names:
            return self.names.index(name)
        known = f"labels: {listed(self.names)}{nearest(str(name), self.names)}"
        if not self.names:
            known = "it was fitted without labels: fit again with labels=[...]"
        raise RequestError(f"{place}: {name!r} is not a label of this model; {known}")

    def frame(self, codes: np.ndarray) -> pd.DataFrame:
        """Codes ``[cells, labels]`` -> an obs table of categoricals."""
        columns = {
            label.name: pd.Categorical.from_codes(
                codes[:, i].tolist(), pd.Index(label.categories), ordered=label.ordered
            )
            for i, label in enumerate(self.labels)
        }
        return pd.DataFrame(columns, index=pd.RangeIndex(len(codes)).astype(str))

    def to_json(self) -> dict[str, Any]:
        """As plain values, for ``schema.json``."""
        names = ("name", "categories", "ordered")
        return {
            "labels": [{name: getattr(label, name) for name in names} for label in self.labels],
            "combinations": self.combinations.tolist(),
            "cells": self.cells.tolist(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Schema:
        """The inverse of `to_json`; `ValueError` if the values contradict each other."""
        labels = tuple(_label_from_json(label) for label in values["labels"])
        if len({label.name for label in labels}) < len(labels):
            raise ValueError("several labels have the same name")
        cells, combinations = (_whole_numbers(values[name]) for name in ("cells", "combinations"))
        schema = cls(labels, combinations.reshape(len(cells), len(labels)), cells)
        schema._validate()
        return schema

    def _validate(self) -> None:
        codes = self.combinations
        if (codes >= self.sizes).any() or (codes < MISSING).any():
            raise ValueError("combinations hold categories that no label has")
        if not len(self.cells) or (self.cells < 1).any():
            raise ValueError("combinations without cells")
        if self.cells.sum(dtype=float) >= _MOST_CELLS:
            raise ValueError("combinations with more cells than there can be")
        if len(unique_rows(codes)[0]) < len(codes):
            raise ValueError("combinations that occur twice")


def label_names(labels: Any) -> list[str]:
    """One label or several as a list; `DataError` for anything else."""
    if isinstance(labels, str):
        return [labels]
    if hasattr(labels, "obs"):
        example = "Synthesizer(['cell_type']).fit(adata)"
        seen = f"got {type(labels).__name__}"
        raise DataError(
            f"labels: {seen}; name obs columns here, and pass the cells to fit: {example}"
        )
    if not isinstance(labels, Iterable):
        allowed = "name obs columns, as text, or pass [] for none"
        raise DataError(f"labels: got {shown(labels)}; {allowed}")
    names = list(labels)
    for name in names:
        _check_text(name)
    return names


def label_column(
    obs: pd.DataFrame, name: str, *, place: str = "", complete: bool = False
) -> pd.Series:
    """One obs column to take labels from.

    Parameters
    ----------
    obs
        The table.
    name
        Name of the column.
    place
        Put before an error, for example the name of the file.
    complete
        Whether every cell needs a value.

    Raises
    ------
    DataError
        No such column, several of this name, or a missing value although ``complete``.
    """
    prefix, known = f"{place}: " if place else "", list(map(str, obs.columns))
    count = list(obs.columns).count(name)
    if not count:
        columns = f"columns: {listed(known) or 'none'}{nearest(str(name), known)}"
        parts = [part.strip() for part in str(name).split(",")]
        if len(parts) > 1 and set(parts) <= set(known):
            options = " ".join(f"-l {part}" for part in parts)
            columns = f"name several one by one: labels={parts!r} ({options})"
        raise DataError(f"{prefix}label {name!r}: no such obs column; {columns}")
    if count > 1:
        seen = f"{count} obs columns have this name"
        raise DataError(f"{prefix}label {name!r}: {seen}; rename or drop all but one")
    column = obs[name]
    missing = column.isna()
    if complete and missing.any():
        first = str(obs.index[missing][0])
        seen = f"missing for {int(missing.sum()):,} of {len(obs):,} cells (first: {first!r})"
        raise DataError(f"{prefix}label {name!r}: {seen}; fill it in, or drop these cells")
    return column


def unique_rows(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unique rows of codes ``[cells, labels]``, and the row of each cell."""
    if not codes.shape[1]:
        return codes[:1], np.zeros(len(codes), np.int64)
    rows, row_of = np.unique(codes, axis=0, return_inverse=True)
    return rows, row_of.ravel()


def _choice(weights: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Indices with probabilities proportional to the weights, read off at these uniforms."""
    cumulative = np.cumsum(weights)
    indices: np.ndarray = np.searchsorted(cumulative, uniforms * cumulative[-1], side="right")
    return indices


def _encode(obs: pd.DataFrame, labels: Sequence[Label], lenient: Sequence[str] = ()) -> np.ndarray:
    if not labels:
        return np.zeros((len(obs), 0), np.int64)
    columns = [
        label.encode(obs[label.name], label.name in lenient)
        if label.name in obs
        else np.full(len(obs), MISSING)
        for label in labels
    ]
    return np.stack(columns, axis=1).astype(np.int64)


def _label_of(obs: pd.DataFrame, name: str) -> Label:
    column = label_column(obs, name)
    if column.isna().all():
        advice = "name a column with values, or leave this label out"
        raise DataError(f"label {name!r}: every value is missing; {advice}")
    categorical = isinstance(column.dtype, pd.CategoricalDtype)
    values = (
        column.cat.remove_unused_categories().cat.categories if categorical else column.dropna()
    )
    plain = [_plain(value) for value in values]
    kinds = sorted({type(value).__name__ for value in plain})
    if len(kinds) > 1:
        advice = f"use one kind, for example adata.obs[{name!r}] = adata.obs[{name!r}].astype(str)"
        raise DataError(f"label {name!r}: mixes {', '.join(kinds)}; {advice}")
    if categorical and len(set(map(_key, plain))) < len(plain):
        advice = f"use text, for example adata.obs[{name!r}] = adata.obs[{name!r}].astype(str)"
        raise DataError(f"label {name!r}: different categories have the same text; {advice}")
    _check_whole(plain, name, categorical)
    for value in plain:
        _check_category(name, value)
    categories = plain if categorical else sorted(set(plain))
    if len(categories) > max(50, len(column) // 2):
        seen = f"{len(categories):,} different values in {len(column):,} cells"
        advice = "a label needs cells to learn from: name a column with fewer"
        raise DataError(f"label {name!r}: {seen}; {advice}")
    return Label(name, tuple(categories), categorical and bool(column.cat.ordered))


def _check_text(name: Any) -> None:
    if not isinstance(name, str):
        raise DataError(f"labels: got {shown(name)}; name obs columns, as text")


def _check_name(name: Any) -> None:
    """Refuse a label that could not be written to a file after a fit."""
    _check_text(name)
    why = unwritable(name)
    why = why or ("holds a /" if "/" in name else "")
    why = why or ("is reserved by AnnData" if name == "_index" else "")
    if why:
        seen = f"the name {why}, so no file can hold its column"
        raise DataError(f"label {shown(name)}: {seen}; rename it")


def _check_category(name: str, value: Any) -> None:
    why = unwritable(value) if isinstance(value, str) and value else ""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        why = "is an integer of more than 64 bits"
    if why:
        seen = f"category {shown(value)} {why}, so no file can hold it"
        raise DataError(f"label {name!r}: {seen}; rename it")


def _check_whole(values: list[Any], name: str, categorical: bool) -> None:
    fractions = [v for v in values if isinstance(v, float) and not v.is_integer()]
    if fractions and not categorical:
        seen = f"holds numbers such as {fractions[0]:.4g}"
        advice = "labels are categories: bin it first, for example with pandas.cut"
        raise DataError(f"label {name!r}: {seen}; {advice}")


def _plain(value: Any) -> Any:
    """A category as a type that JSON has."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool | int | float | str):
        return value
    try:
        return str(value)
    except Exception as error:  # of another package's __str__
        seen = f"a category of type {type(value).__name__} has no text"
        raise DataError(f"labels: {seen}; use text, integers or booleans") from error


def _key(value: object) -> str:
    """The text by which a category is asked for: 1, 1.0 and "1" are the same, True is not."""
    plain = _plain(value)
    integer = isinstance(plain, float) and plain.is_integer()
    return str(int(plain)) if integer else str(plain)


def _label_from_json(values: Mapping[str, Any]) -> Label:
    """A label of a file; `ValueError` if a fit cannot have written it."""
    label = Label(values["name"], tuple(values["categories"]), values["ordered"])
    kinds = {type(category) for category in label.categories}
    if not isinstance(label.name, str) or not isinstance(label.ordered, bool):
        raise ValueError("a label without a name, or neither ordered nor not")
    if len(kinds) != 1 or not kinds <= {bool, int, float, str}:
        raise ValueError(f"label {label.name!r}: its categories are not of one kind")
    if any(category != category for category in label.categories):
        raise ValueError(f"label {label.name!r}: a category that is not a number")
    if len(label._codes) < len(label.categories):
        raise ValueError(f"label {label.name!r}: a category occurs twice")
    for category in label.categories:
        _check_category(label.name, category)
    return label


def _whole_numbers(values: Any) -> np.ndarray:
    """Integers of 64 bits; `ValueError` for anything else."""
    numbers = np.array(values)
    if numbers.size and numbers.dtype.kind != "i":
        raise ValueError("combinations and numbers of cells are not all integers")
    return numbers.astype(np.int64)


def _is_missing(value: Any) -> bool:
    return pd.api.types.is_scalar(value) and bool(pd.isna(value))
