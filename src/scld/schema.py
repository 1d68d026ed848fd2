"""Labels: the obs columns to steer by, their categories, and how often each combination of them occurs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from scld.errors import DataError, RequestError, listed, nearest, one_line

MISSING = -1  # the code of a label that is not known, or left open


@dataclass(frozen=True)
class Label:
    """One label: an obs column and the categories that training saw, in their order."""

    name: str
    categories: tuple[Any, ...]  # all strings, all integers, all floats or all booleans; anything else by its text
    ordered: bool = False

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {_key(category): code for code, category in enumerate(self.categories)}

    def knows(self, value: Any) -> bool:
        """Whether training had this category."""
        return _key(value) in self._codes

    def code(self, value: Any) -> int:
        """The code of one category, given itself or its text; the error names the nearest one."""
        if _is_missing(value):
            return MISSING
        if _key(value) not in self._codes:
            known = list(self._codes)
            raise RequestError(f"label {self.name!r}: no category {_key(value)!r} in training; known: {listed(known)}{nearest(_key(value), known)}")
        return self._codes[_key(value)]


@dataclass(frozen=True, eq=False)
class Schema:
    """The labels of a training set, and how often each combination of them occurred.

    Parameters
    ----------
    labels
        One `Label` per obs column, in the order asked for.
    combinations
        ``[combinations, labels]`` codes, each row once; `MISSING` where a cell had no label.
    cells
        ``[combinations]`` number of training cells of each.

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
    def of(cls, obs: pd.DataFrame, names: Sequence[str]) -> Schema:
        """Read the labels off an obs table; `DataError` where a column is missing or cannot be a label."""
        names = [names] if isinstance(names, str) else list(names)
        repeated = [name for i, name in enumerate(names) if name in names[:i]]
        if repeated:
            raise DataError(f"labels: {repeated[0]!r} is named twice in {listed(names)}; name each label once")
        labels = tuple(_label_of(obs, name) for name in names)
        codes = encode_labels(obs, labels)
        combinations, cells = np.unique(codes, axis=0, return_counts=True) if labels else (np.zeros((1, 0), int), np.array([len(obs)]))
        return cls(labels, combinations.astype(np.int64), cells.astype(np.int64))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of categories of each label."""
        return tuple(len(label.categories) for label in self.labels)

    def category_cells(self, name: str) -> dict[str, int]:
        """Number of training cells of each category of one label."""
        column = [label.name for label in self.labels].index(name)
        counts = np.bincount(self.combinations[:, column] + 1, weights=self.cells, minlength=self.sizes[column] + 1)
        return dict(zip(map(str, self.labels[column].categories), counts[1:].astype(int).tolist(), strict=True))

    def codes(self, obs: pd.DataFrame, lenient: Sequence[str] = ()) -> np.ndarray:
        """Codes ``[cells, labels]`` of an obs table; a missing column or value is left open, and so is a category unknown of the ``lenient`` labels."""
        return encode_labels(obs, self.labels, lenient)

    def draw(self, n: int, where: Mapping[str, Any] | None, rng: np.random.Generator, unseen: bool = False) -> np.ndarray:
        """Draw the labels of ``n`` cells ``[n, labels]``: those in ``where`` fixed, the others by their training frequencies given these.

        A value of ``where`` is one category or a list of them. Where no training cell has all that is fixed, and ``unseen`` allows it,
        the others follow the training cells that have most of it; a fixed label that such a cell lacks follows its own frequencies.
        """
        fixed = self.fixed({} if where is None else where)
        fitting = np.array([np.isin(self.combinations[:, column], codes) for column, codes in fixed.items()]).reshape(len(fixed), len(self.cells))
        fits = fitting.sum(axis=0)
        if fits.max() < len(fixed) and not unseen:
            wanted = ", ".join(f"{name}={one_line(repr(value))}" for name, value in (where or {}).items())
            raise RequestError(f"where: no training cell has {wanted}; to make a combination that training never saw, ask for it with unseen=True (--unseen)")
        weights = self.cells * (fits == fits.max())
        drawn = rng.choice(len(weights), size=n, p=weights / weights.sum())
        codes = self.combinations[drawn]
        for (column, wanted_codes), fit in zip(fixed.items(), fitting[:, drawn], strict=True):
            codes[~fit, column] = self._by_frequency(column, wanted_codes, int((~fit).sum()), rng)
        return codes

    def _by_frequency(self, column: int, codes: Sequence[int], n: int, rng: np.random.Generator) -> np.ndarray:
        """So many of these codes of one label, as often as in training."""
        cells = np.array([max(1, self.cells[self.combinations[:, column] == code].sum()) for code in codes])  # only a missing label can have none
        return rng.choice(codes, size=n, p=cells / cells.sum())

    def seen(self, codes: np.ndarray) -> np.ndarray:
        """Whether training saw the known labels of each of these cells ``[cells]`` together, given codes ``[cells, labels]``."""
        rows, cells = np.unique(codes, axis=0, return_inverse=True) if codes.shape[1] else (codes[:1], np.zeros(len(codes), int))
        known = np.array([((self.combinations == row) | (row == MISSING)).all(axis=1).any() for row in rows])
        return known[cells.ravel()]

    def fixed(self, where: Mapping[str, Any], place: str = "where") -> dict[int, list[int]]:
        """Column of each label named -> the codes asked for."""
        if not isinstance(where, Mapping):
            raise RequestError(f"{place}: got {type(where).__name__}; pass a dict of label and category, such as {{'cell_type': 'B cell'}}")
        fixed: dict[int, list[int]] = {}
        names = [label.name for label in self.labels]
        for name, wanted in where.items():
            if name not in names:
                known = f"labels: {listed(names)}" if names else "it was fitted without labels: fit again with labels=[...]"
                raise RequestError(f"{place}: {name!r} is not a label of this model; {known}{nearest(str(name), names)}")
            values = list(wanted) if pd.api.types.is_list_like(wanted) else [wanted]
            if not values:
                raise RequestError(f"{place}: {name!r} is given an empty list; name a category, or leave {name!r} out to leave it open")
            column = names.index(name)
            fixed[column] = sorted({self.labels[column].code(value) for value in values})
        return fixed

    def frame(self, codes: np.ndarray) -> pd.DataFrame:
        """Codes ``[cells, labels]`` -> an obs table of categoricals with the training categories."""
        columns = {
            label.name: pd.Categorical.from_codes(codes[:, i].tolist(), categories=pd.Index(label.categories), ordered=label.ordered)
            for i, label in enumerate(self.labels)
        }
        return pd.DataFrame(columns, index=pd.RangeIndex(len(codes)).astype(str))

    def to_json(self) -> dict[str, Any]:
        """As plain lists, for `schema.json`."""
        return {
            "labels": [{"name": label.name, "categories": list(label.categories), "ordered": label.ordered} for label in self.labels],
            "combinations": self.combinations.tolist(),
            "cells": self.cells.tolist(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Schema:
        """The inverse of `to_json`."""
        labels = tuple(Label(label["name"], tuple(label["categories"]), label["ordered"]) for label in values["labels"])
        combinations = np.asarray(values["combinations"], dtype=np.int64).reshape(len(values["cells"]), len(labels))
        schema = cls(labels, combinations, np.asarray(values["cells"], dtype=np.int64))
        if (combinations >= schema.sizes).any() or (combinations < MISSING).any():
            raise ValueError("combinations hold categories that no label has")
        return schema


def encode_labels(obs: pd.DataFrame, labels: Sequence[Label], lenient: Sequence[str] = ()) -> np.ndarray:
    """Codes ``[cells, labels]`` of an obs table; `MISSING` where a value or the whole column is absent."""
    columns = [_column_codes(obs[label.name], label, label.name in lenient) if label.name in obs else np.full(len(obs), MISSING) for label in labels]
    return np.stack(columns, axis=1).astype(np.int64) if columns else np.zeros((len(obs), 0), np.int64)


def _column_codes(column: pd.Series, label: Label, lenient: bool) -> np.ndarray:
    try:
        rows, values = pd.factorize(column)
    except TypeError as error:
        raise DataError(f"label {label.name!r}: holds values that cannot be categories ({one_line(error)}); use strings, integers or booleans") from error
    codes = np.array([*(MISSING if lenient and not label.knows(value) else label.code(value) for value in values), MISSING])
    return codes[rows]  # factorize marks what is missing -1: the last


def _label_of(obs: pd.DataFrame, name: str) -> Label:
    if name not in obs:
        known = list(map(str, obs.columns))
        raise DataError(f"label {name!r}: no such obs column; columns: {listed(known) or 'none'}{nearest(str(name), known)}")
    column = obs[name]
    if isinstance(column, pd.DataFrame):
        raise DataError(f"label {name!r}: {column.shape[1]} obs columns have this name; rename or drop all but one")
    if column.isna().all():
        raise DataError(f"label {name!r}: every value is missing; name a column with values, or leave this label out")
    return _label_from(column, name)


def _label_from(column: pd.Series, name: str) -> Label:
    categorical = isinstance(column.dtype, pd.CategoricalDtype)
    values = [_plain(value) for value in (column.cat.remove_unused_categories().cat.categories if categorical else column.dropna())]
    kinds = sorted({type(value).__name__ for value in values})
    if len(kinds) > 1:
        raise DataError(f"label {name!r}: mixes {', '.join(kinds)}; use one kind, for example adata.obs[{name!r}] = adata.obs[{name!r}].astype(str)")
    fractions = [value for value in values if isinstance(value, float) and not value.is_integer()]
    if fractions and not categorical:
        raise DataError(f"label {name!r}: holds numbers such as {fractions[0]:.4g}; labels are categories: bin it first, for example with pandas.cut")
    categories = values if categorical else sorted(set(values))
    if len(categories) > max(50, len(column) // 2):
        seen = f"{len(categories):,} different values in {len(column):,} cells"
        raise DataError(f"label {name!r}: {seen}; a label needs cells to learn from: name a column with fewer")
    return Label(name, tuple(categories), categorical and bool(column.cat.ordered))


def _plain(value: Any) -> Any:
    """A category as JSON can hold it, of the same kind."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, bool | int | float | str) else str(value)


def _key(value: object) -> str:
    """The text by which a category is asked for: 1, 1.0 and "1" are one, True is another."""
    plain = _plain(value)
    return str(int(plain)) if isinstance(plain, float) and plain.is_integer() else str(plain)


def _is_missing(value: Any) -> bool:
    return pd.api.types.is_scalar(value) and bool(pd.isna(value))
