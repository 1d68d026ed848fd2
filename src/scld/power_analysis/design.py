"""The design of a power analysis: a grid of studies, and what to plant and test in each."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scld.errors import RequestError, check_int, listed, nearest, one_line
from scld.schema import Schema

TESTS = ("pseudobulk", "wilcoxon")
PER = ("study", "donor")
DONOR = "donor"  # the label of donors, where the design does not name one


@dataclass(frozen=True)
class Expression:
    """Differential expression: what is planted, and how it is tested."""

    genes: int = 50  # changed genes of each type
    min_expression: float = 1.0  # of a changed gene: counts per 10,000 in its type
    min_cells: int = 10  # a donor with fewer cells of the type is left out of its test
    min_counts: int = 10  # a gene with fewer counts in the cells of a type is not tested
    tests: tuple[str, ...] = TESTS


@dataclass(frozen=True)
class Rare:
    """Finding rare types: how many cells are enough."""

    types: tuple[str, ...] | None = None  # those of the design
    cells: int = 10  # at least so many
    per: str = "study"  # in the whole study, or in every donor
    replicates: int = 100


@dataclass(frozen=True)
class Composition:
    """Changes of composition: by how much the share of a type is multiplied."""

    types: tuple[str, ...] | None = None  # those of the design whose share allows it
    fold: tuple[float, ...] = (2.0,)
    replicates: int = 100


@dataclass(frozen=True)
class Prices:
    """What a study costs, in any currency."""

    donor: float = 0.0
    cell: float = 0.0
    million_counts: float = 0.0


class Point(NamedTuple):
    """One study of the grid; ``depth`` and ``log2fc`` matter for expression only."""

    donors: int
    cells: int
    depth: float
    log2fc: float


@dataclass(frozen=True)
class PowerDesign:
    """A validated design; `PowerDesign.of` makes it.

    Examples
    --------
    >>> design = PowerDesign.of({"donors": [3, 6], "cells": 500, "rare": {"cells": 20}})
    >>> design.donors, design.cells, design.rare.cells
    ((3, 6), (500,), 20)
    """

    donors: tuple[int, ...]  # of each group
    cells: tuple[int, ...]  # of each donor
    depth: tuple[float, ...] = (1.0,)  # factor of sequencing depth
    log2fc: tuple[float, ...] = (1.0,)  # of the changed genes, up or down
    replicates: int = 10  # simulated studies of each point of the grid
    alpha: float = 0.05
    label: str = "cell_type"
    donor: str | None = DONOR
    where: Mapping[str, object] = field(default_factory=dict)
    types: tuple[str, ...] | None = None  # all
    expression: Expression | None = Expression()
    rare: Rare | None = Rare()
    composition: Composition | None = Composition()
    prices: Prices | None = None

    @classmethod
    def of(cls, source: Any) -> PowerDesign:
        """From a dict, the path of a ``.yaml`` or ``.json`` file, or a design.

        Raises
        ------
        RequestError
            An unknown key, a value out of range, nothing to simulate, a file that cannot be read.
        """
        if isinstance(source, cls):
            return source
        if isinstance(source, str | os.PathLike):
            source = _read(Path(source).expanduser())
        values = _section("design", source, cls)
        for name in ("donors", "cells"):
            if name not in values:
                example = "such as {'donors': [3, 6], 'cells': [500, 2000]}"
                raise RequestError(f"design: {name!r} is missing; name it, {example}")
        design = cls(**_checked(values))
        if not (design.expression or design.rare or design.composition):
            advice = "leave one of expression, rare and composition in"
            raise RequestError(f"design: nothing to simulate; {advice}")
        return design

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Donors of each group and cells of each donor."""
        return list(itertools.product(self.donors, self.cells))

    @property
    def points(self) -> list[Point]:
        """The grid."""
        axes = (self.donors, self.cells, self.depth, self.log2fc)
        return [Point(*values) for values in itertools.product(*axes)]

    def for_model(self, schema: Schema) -> PowerDesign:
        """With the types of a model; `RequestError` if it lacks a label or a type of the design."""
        schema.column(self.label, "design: label")
        shares = self.shares(schema)
        types = _types("types", self.types, shares)
        donor = self.donor if self.donor in schema.names or self.donor != DONOR else None
        if donor is not None:
            schema.column(donor, "design: donor")
        rare, composition = self.rare, self.composition
        if rare:
            rare = replace(rare, types=_types("rare: types", rare.types or types, shares))
        if composition:
            composition = _possible(composition, types, shares)
        parts: dict[str, Any] = {"rare": rare, "composition": composition}
        return replace(self, types=types, donor=donor, **parts)

    def shares(self, schema: Schema) -> dict[str, float]:
        """Share of each type among the training cells within ``where``."""
        chosen = schema.having(self.where, "design: where")
        types, cells = schema.combinations[chosen, schema.names.index(self.label)], schema.cells
        label = schema.labels[schema.names.index(self.label)]
        sums = np.bincount(types + 1, cells[chosen], len(label.categories) + 1)[1:]
        return dict(zip(map(str, label.categories), sums / cells[chosen].sum(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return values


_SECTIONS = {
    "expression": Expression,
    "rare": Rare,
    "composition": Composition,
    "prices": Prices,
}


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """Every value of a design, of the type that the class has."""
    found = {name: _value(name, value) for name, value in values.items() if name not in _SECTIONS}
    for name in set(_SECTIONS) & set(values):
        section = values[name]
        if section is not None:
            kind = _SECTIONS[name]
            section = _section(f"design: {name}", section, kind)
            section = kind(**{key: _value(key, v, name) for key, v in section.items()})
        found[name] = section
    return found


def _value(name: str, value: Any, section: str = "") -> Any:
    """One value, checked by its name."""
    place = f"design: {section}: {name}" if section else f"design: {name}"
    if section == "prices":
        return _number(place, value, 0, 1e12)
    if (section, name) in _INTEGERS:
        return check_int(place, value, _INTEGERS[section, name])
    if (section, name) in _AXES:
        least, most, integer = _AXES[section, name]
        return tuple(_number(place, v, least, most, integer) for v in _several(place, value))
    if name == "types":
        return None if value is None else tuple(map(str, _several(place, value)))
    if name == "tests":
        return tuple(_one_of(place, test, TESTS) for test in _several(place, value))
    if name == "where":
        return _mapping(place, value)
    if name == "per":
        return _one_of(place, value, PER)
    if name in ("alpha", "min_expression"):
        return _number(place, value, *((1e-6, 0.5) if name == "alpha" else (0, 1e4)))
    if not isinstance(value, str) and (name, value) != ("donor", None):
        raise RequestError(f"{place}: got {one_line(value)}; name a label of the model")
    return value


_INTEGERS = {  # least value
    ("", "replicates"): 1,
    ("expression", "genes"): 2,
    ("expression", "min_cells"): 1,
    ("expression", "min_counts"): 1,
    ("rare", "cells"): 1,
    ("rare", "replicates"): 1,
    ("composition", "replicates"): 1,
}
_AXES = {  # least and largest value, and whether they are integers
    ("", "donors"): (2, 10_000, True),
    ("", "cells"): (1, 1_000_000, True),
    ("", "depth"): (0.001, 1000, False),
    ("", "log2fc"): (0, 10, False),
    ("composition", "fold"): (0.01, 100, False),
}


def _read(path: Path) -> Any:
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise RequestError(f"design: {path}: unknown ending; allowed are .yaml, .yml and .json")
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else _yaml(text)
    except OSError as error:
        raise RequestError(f"design: {path}: {error.strerror}; check the path") from error
    except ValueError as error:
        seen = f"not readable {path.suffix[1:]} ({one_line(error)})"
        raise RequestError(f"design: {path}: {seen}; docs/power.md shows one") from error


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        advice = "pip install 'scld[power]', or write the design as .json"
        raise RequestError(f"design: a .yaml file needs pyyaml; {advice}") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _section(place: str, values: Any, kind: type[Any]) -> dict[str, Any]:
    """A dict whose keys are fields of a class."""
    known = [part.name for part in dataclasses.fields(kind)]
    for key in _mapping(place, values):
        if key not in known:
            near = nearest(str(key), known)
            raise RequestError(f"{place}: unknown key {key!r}; known: {listed(known, 20)}{near}")
    return dict(values)


def _mapping(place: str, values: Any) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise RequestError(f"{place}: got {one_line(values)}; write keys and values")
    return values


def _several(place: str, values: Any) -> list[Any]:
    """A list without repeats; one value is a list of one."""
    several = list(values) if pd.api.types.is_list_like(values) else [values]
    if not several:
        raise RequestError(f"{place}: an empty list; name at least one value")
    return list(dict.fromkeys(several))


def _number(place: str, value: Any, least: float, most: float, integer: bool = False) -> Any:
    if integer:
        return check_int(place, value, int(least), int(most))
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        allowed = f"allowed are numbers from {least:g} to {most:g}"
        raise RequestError(f"{place}: got {one_line(value)}; {allowed}")
    return float(value)


def _one_of(place: str, value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        near = nearest(str(value), known)
        raise RequestError(f"{place}: got {value!r}; allowed are {listed(known)}{near}")
    return str(value)


def _types(
    place: str, types: tuple[str, ...] | None, shares: Mapping[str, float]
) -> tuple[str, ...]:
    """These types, or all that have training cells."""
    known = [name for name, share in shares.items() if share]
    for name in types or ():
        if name not in known:
            near = nearest(name, known)
            raise RequestError(f"design: {place}: no type {name!r}; known: {listed(known)}{near}")
    return tuple(types or known)


def _possible(
    composition: Composition, types: tuple[str, ...], shares: Mapping[str, float]
) -> Composition:
    """With types whose share, multiplied by the largest fold change, stays below 1."""
    named = _types("composition: types", composition.types, shares) if composition.types else ()
    largest = max(composition.fold)
    for name in named:
        if shares[name] * largest >= 1:
            seen = f"{name!r} has a share of {shares[name]:.3g}, so not {largest:g} times as much"
            allowed = f"folds below {1 / shares[name]:.3g}"
            raise RequestError(f"design: composition: fold: {seen}; allowed are {allowed}")
    return replace(composition, types=named or tuple(n for n in types if shares[n] * largest < 1))
