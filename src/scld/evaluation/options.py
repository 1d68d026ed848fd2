"""The settings of one evaluation, validated before anything is read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from scld._version import __version__
from scld.errors import RequestError, check_int, listed, nearest
from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE, CONTROLS
from scld.evaluation.protocol import MIN_COMMON_CELLS

REAL = ("train", "test")
RESERVED = {"real", *REAL, BASELINE, OVERALL, *CONTROLS}
Genes = Literal["same", "intersection"]


@dataclass(frozen=True)
class Options:
    """The settings of `scld.evaluate`; see there."""

    labels: tuple[str, ...]
    donor: str | None
    layer: str | None
    genes: Genes
    controls: bool
    max_cells: int
    replicates: int
    seed: int

    def __post_init__(self) -> None:
        texts = all(isinstance(label, str) for label in self.labels)
        if not texts or len({OVERALL, *self.labels}) <= len(self.labels):
            allowed = "one obs column, or a list of different ones"
            raise RequestError(f"label: got {list(self.labels)!r}; allowed: {allowed}")
        check_int("max_cells", self.max_cells, MIN_COMMON_CELLS)
        check_int("replicates", self.replicates, 1)
        check_int(
            "seed", self.seed, 0, 2**31 - 1
        )  # scikit-learn's and UMAP's seeds are below 2**32
        if self.genes not in ("same", "intersection"):
            raise RequestError(f"genes: got {self.genes!r}; allowed: 'same', 'intersection'")


def about(
    options: Options, sources: Mapping[str, Any], sizes: Mapping[str, tuple[int, int]]
) -> dict[str, str]:
    """What is evaluated, when, by which version and with which settings: name -> text."""
    texts = {"scld": __version__, "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}
    for name, (cells, genes) in sizes.items():
        source = sources[name]
        place = os.fspath(source) if isinstance(source, str | os.PathLike) else "AnnData in memory"
        texts[name] = f"{place}, {cells:,} cells x {genes:,} genes"
    if "test" not in sizes:
        texts["test"] = "none: half of the training cells are used"
    settings = {name: value for name, value in vars(options).items() if value is not None}
    settings["labels"] = ", ".join(options.labels) or "none"
    return texts | {name.replace("_", " "): str(value) for name, value in settings.items()}


def label_names(label: str | Sequence[str] | None) -> tuple[str, ...]:
    """The labels as a tuple: none, one or several."""
    if label is None:
        return ()
    return (label,) if isinstance(label, str) else tuple(label)


def named_datasets(synthetic: Any) -> dict[str, Any]:
    """Synthetic datasets by name; a single one is called "synthetic"."""
    datasets = dict(synthetic) if isinstance(synthetic, Mapping) else {"synthetic": synthetic}
    if not datasets:
        allowed = "pass an AnnData, a path, or a mapping of names to these"
        raise RequestError(f"synthetic: no dataset; {allowed}")
    for name in datasets:
        if not isinstance(name, str) or not name.strip():
            advice = f"names are texts: write {{'my cells': ...}} instead of {{{name!r}: ...}}"
            raise RequestError(f"synthetic: got {name!r} as the name of a dataset; {advice}")
        if name in RESERVED:
            raise RequestError(
                f"synthetic: the name {name!r} is reserved for the report; choose another"
            )
    return datasets


def log_normalised_names(log_normalised: bool | Sequence[str], names: Sequence[str]) -> set[str]:
    """Names of the datasets that are log-normalised."""
    if isinstance(log_normalised, bool):
        return set(names) if log_normalised else set()
    given = [log_normalised] if isinstance(log_normalised, str) else list(log_normalised)
    for name in given:
        _check_known("log_normalised", name, names)
    return set(given)


def checked_costs(
    costs: Mapping[str, Mapping[str, float]] | None, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Costs of known datasets, as numbers."""
    for name in costs or {}:
        _check_known("costs", name, names)
    return {
        name: {cost: _number(name, cost, value) for cost, value in of_dataset.items()}
        for name, of_dataset in (costs or {}).items()
    }


def _number(name: str, cost: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        advice = 'allowed are numbers, for example {"seconds": 12}'
        raise RequestError(f"costs: {name!r}, {cost!r}: got {value!r}; {advice}") from error


def _check_known(option: str, name: Any, names: Sequence[str]) -> None:
    if name not in names:
        known = f"datasets: {listed(names)}{nearest(str(name), names)}"
        raise RequestError(f"{option}: {name!r} is not a synthetic dataset; {known}")
