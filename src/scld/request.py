"""What is asked of a fitted model, checked: which cells, and how to sample them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from scld.config import SamplingConfig
from scld.errors import RequestError, nearest
from scld.generator import Plan, Start
from scld.sampler import schedule
from scld.schema import MISSING, Schema

POSTS = {"off": (False, False), "correct": (True, False), "select": (False, True), "both": (True, True)}  # post-guidance: correct, select
SEEN = "seen_in_training"  # the obs column that marks combinations of labels that training never saw


@dataclass(frozen=True)
class Wanted:
    """The cells to make.

    Parameters
    ----------
    codes
        Labels ``[cells, labels]`` to make them under, and to say of them.
    names
        Their names, where they are given.
    start
        Where they begin; in pure noise if None.
    marks
        Further obs columns.
    """

    codes: np.ndarray
    names: pd.Index | None = None
    start: Start | None = None
    marks: Mapping[str, np.ndarray] = field(default_factory=dict)

    def obs(self, cells: slice, schema: Schema) -> pd.DataFrame:
        """What is known of some of them."""
        table = schema.frame(self.codes[cells])
        names = pd.Index([f"cell_{i}" for i in range(cells.start, cells.stop)]) if self.names is None else self.names[cells]
        return table.set_index(names).assign(**{mark: values[cells] for mark, values in self.marks.items()})


def free_name(name: str, schema: Schema) -> str:
    """A name for an obs column that no label has."""
    return free_name(f"{name}_", schema) if name in {label.name for label in schema.labels} else name


def marked(codes: np.ndarray, schema: Schema) -> dict[str, np.ndarray]:
    """The column that marks combinations training never saw; none if it saw all of them."""
    seen = schema.seen(codes)
    return {} if seen.all() else {free_name(SEEN, schema): seen}


def wanted(n: int | None, where: Mapping[str, object] | None, obs: pd.DataFrame | None, schema: Schema, seed: int, unseen: bool = False) -> Wanted:
    """The cells that a person asks for."""
    codes, names = _asked(n, where, obs, schema, seed, unseen)
    return Wanted(codes, names, marks=marked(codes, schema))


def _asked(
    n: int | None, where: Mapping[str, object] | None, obs: pd.DataFrame | None, schema: Schema, seed: int, unseen: bool
) -> tuple[np.ndarray, pd.Index | None]:
    random = np.random.Generator(np.random.Philox(key=np.array([seed, 2**64 - 1], dtype=np.uint64)))  # no page has this number
    if obs is None:
        n = whole("n", n, 1)
        return schema.draw(n, where, random, unseen), None
    if n is not None or where is not None:
        raise RequestError("obs: got n or where as well; the table alone says which cells to make: leave the others out")
    _check_table(obs, [label.name for label in schema.labels])
    codes = schema.codes(obs)
    for row in np.unique(codes[(codes == MISSING).any(axis=1)], axis=0):
        same = np.flatnonzero((codes == row).all(axis=1))
        fixed = {label.name: label.categories[code] for label, code in zip(schema.labels, row, strict=True) if code != MISSING}
        codes[same] = schema.draw(len(same), fixed, random, unseen=True)  # a row says itself what it wants together
    return codes, pd.Index(obs.index.astype(str))


def _check_table(obs: pd.DataFrame, labels: Sequence[str]) -> None:
    if not isinstance(obs, pd.DataFrame):
        raise RequestError(f"obs: got {type(obs).__name__}; pass a pandas DataFrame with one row a cell and a column a label")
    if not labels:
        raise RequestError("obs: this model was fitted without labels; pass the number of cells, or fit again with labels=[...]")
    columns = list(map(str, obs.columns))
    if not len(obs) or not set(labels) & set(columns):
        raise RequestError(f"obs: {len(obs)} rows with columns {columns}; pass one row a cell and at least one of the labels {labels}")
    for label in labels:
        if columns.count(label) > 1:
            raise RequestError(f"obs: {columns.count(label)} columns are named {label!r}; drop all but one")
        near = "" if label in columns else nearest(label, [column for column in columns if column not in labels])
        if near:
            raise RequestError(f"obs: no column {label!r}{near} Rename it, or drop it to leave {label!r} open")


def plan_of(
    guidance: float | Mapping[str, float] | None,
    steps: int | None,
    seed: int,
    labels: Sequence[str],
    sampling: SamplingConfig,
    guidance_interval: tuple[float, float] | None = None,
    post: str | None = None,
    strength: float = 1.0,
) -> Plan:
    """How to sample; what is left out comes from the settings. A strength below 1 starts partly up the noise levels."""
    steps = whole("steps", sampling.steps if steps is None else steps, 1, 10_000)
    seed = whole("seed", seed, 0)
    if guidance and not labels:
        raise RequestError("guidance: this model was fitted without labels, so there are none to follow; leave it out, or fit again with labels=[...]")
    given = sampling.guidance if guidance is None else guidance
    by_label = dict.fromkeys(labels, sampling.guidance) | dict(given) if isinstance(given, Mapping) else dict.fromkeys(labels, given)
    for name, weight in by_label.items():
        if name not in labels:
            raise RequestError(f"guidance: {name!r} is not a label of this model; labels: {', '.join(labels)}{nearest(str(name), labels)}")
        if not isinstance(weight, Real) or not 0 <= weight <= 100:
            raise RequestError(f"guidance: got {weight!r}; allowed are numbers from 0 to 100 (1 follows the labels, 1.5 to 3 exaggerates them)")
    sigmas = schedule(steps, sampling.sigma_max, _checked_strength(strength))
    interval = _interval(guidance_interval, labels, sampling)
    return Plan(sigmas, tuple(map(float, by_label.values())), seed, interval, *_post(sampling.post if post is None else post, sampling))


def _post(kind: object, sampling: SamplingConfig) -> tuple[float, int]:
    """Weight of the critic's gradient, and number of candidates."""
    if not isinstance(kind, str) or kind not in POSTS:
        raise RequestError(f"post: got {kind!r}; allowed are {', '.join(map(repr, POSTS))}{nearest(str(kind), list(POSTS))}")
    correct, select = POSTS[kind]
    return sampling.correction * correct, sampling.candidates if select else 1


def _interval(given: object, labels: Sequence[str], sampling: SamplingConfig) -> tuple[float, float]:
    if given is not None and not labels:
        raise RequestError("guidance_interval: this model was fitted without labels, so there is no guidance; leave it out, or fit again with labels=[...]")
    given = (sampling.guidance_low, sampling.guidance_high) if given is None else given
    pair: tuple[Any, ...] = tuple(given) if isinstance(given, Sequence | np.ndarray) else ()
    if len(pair) != 2 or not all(isinstance(bound, Real) for bound in pair) or not 0 <= pair[0] <= pair[1]:
        allowed = f"two noise levels (low, high) with 0 <= low <= high; sampling goes from {sampling.sigma_max:g} down to 0"
        raise RequestError(f"guidance_interval: got {given!r}; allowed are {allowed}")
    return float(pair[0]), float(pair[1])


def _checked_strength(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value <= 1:
        raise RequestError(f"strength: got {value!r}; allowed are numbers above 0, up to 1 (1 keeps nothing of a cell but its other labels)")
    return float(value)


def whole(name: str, value: object, least: int, most: int = 2**63 - 1) -> int:
    """A whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        upto = f" to {most:,}" if most < 2**63 - 1 else ""
        raise RequestError(f"{name}: got {value!r}; allowed are whole numbers from {least}{upto}")
    return int(value)
