"""All simulated studies of a design, from the cache or run, as one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from scld._version import __version__
from scld.power_analysis import detection, results
from scld.power_analysis.cache import Cache
from scld.power_analysis.design import Point
from scld.power_analysis.intervals import interval, yes_or_no
from scld.power_analysis.simulate import Simulator
from scld.progress import Update

BLOCK = 25  # replicates in one file of the cache, where only labels are simulated
FORMAT = 1  # of results in the cache: a change of what is simulated raises it


class Grid:
    """All simulated studies of a design.

    Parameters
    ----------
    simulator
        Of the model and design.
    cache
        Where results are kept.
    model
        `digest` of the model.
    """

    def __init__(self, simulator: Simulator, cache: Cache, model: str) -> None:
        self.simulator, self.design, self.cache = simulator, simulator.design, cache
        design = self.design
        labels = {"label": design.label, "donor": design.donor, "where": design.to_dict()["where"]}
        model_key = {"scld": __version__, "model": model, "seed": simulator.seed}
        self.key: dict[str, Any] = {"format": FORMAT, **model_key, **labels}

    @property
    def steps(self) -> int:
        """Of the progress bar."""
        design, labels = self.design, 0
        if design.rare:
            labels += _blocks(design.rare.replicates)
        if design.composition:
            types = len(design.composition.types or ()) * len(design.composition.fold)
            labels += _blocks(design.composition.replicates) * types
        studies = len(design.points) * design.replicates if design.expression else 0
        return len(design.pairs) * labels + studies

    def table(self, update: Update) -> pd.DataFrame:
        """The table of `PowerStudy`."""
        rows, done = [], 0

        def step(text: str) -> None:
            nonlocal done
            done += 1
            update(done, text)

        for analysis in (self._expression, self._rare, self._composition):
            rows += list(analysis(step))
        return pd.DataFrame(rows).reindex(columns=list(results.COLUMNS))

    def _expression(self, step: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        settings = self.design.expression
        if settings is None:
            return
        for name in self.design.types or ():  # too few expressed genes: before anything is run
            self.simulator.planted(name, 0)
        for point in self.design.points:
            studies = []
            for replicate in range(self.design.replicates):
                studies.append(self._study(point, replicate))
                step(f"{2 * point.donors} donors x {point.cells:,} cells")
            for test in settings.tests:
                for name in (results.OVERALL, *(self.design.types or ())):
                    yield from self._scores(point, name, test, studies)

    def _study(self, point: Point, replicate: int) -> Any:
        """What one simulated study finds."""
        parts = self.design.to_dict()
        settings = {name: parts[name] for name in ("expression", "types", "alpha")}
        study = {"point": point._asdict(), "replicate": replicate}
        versions = {"analysis": results.EXPRESSION, "pydeseq2": detection.version()}
        key = self.key | settings | study | versions
        return self.cache.get(key, lambda: self.simulator.expression_study(point, replicate))

    def _scores(
        self, point: Point, name: str, test: str, studies: Sequence[Any]
    ) -> Iterator[dict[str, Any]]:
        """Power, false discovery rate and false positive rate of a test in one type, or in all."""
        types = (self.design.types or ()) if name == results.OVERALL else (name,)
        outcomes = [[study[one][test] for one in types] for study in studies]
        planted = self.design.expression.genes if self.design.expression and point.log2fc else 0
        sums = pd.DataFrame([_sum(of_study, planted) for of_study in outcomes])
        untested = sum(all(one is None for one in of_study) for of_study in outcomes)
        row = {"analysis": results.EXPRESSION, "type": name, "test": test, "untested": untested}
        row |= {"replicates": len(studies), "cost": self._cost(point), **point._asdict()}
        false = sums["false"] / sums["discoveries"].clip(lower=1)
        values = {
            results.POWER: interval(sums["found"].tolist(), sums["planted"].tolist()),
            results.FDR: interval(false.tolist(), [1.0] * len(studies)),
            results.FALSE_POSITIVES: interval(sums["below"].tolist(), sums["unchanged"].tolist()),
        }
        for metric, found in values.items():
            yield row | {"metric": metric} | _bounds(found)

    def _rare(self, step: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        rare = self.design.rare
        if rare is None:
            return
        for donors, cells in self.design.pairs:
            counts = self._replicates(
                {"analysis": results.RARE, "donors": donors, "cells": cells},
                partial(self.simulator.type_cells, donors, cells),
                rare.replicates,
                step,
            )
            for name in rare.types or ():
                numbers = [np.array(study[name]) for study in counts]
                smallest = [(n.sum() if rare.per == "study" else n.min()) for n in numbers]
                found = yes_or_no([bool(n >= rare.cells) for n in smallest])
                row = {"analysis": results.RARE, "type": name, "metric": results.PROBABILITY}
                yield row | self._labels_only(donors, cells, rare.replicates) | _bounds(found)

    def _composition(self, step: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        settings = self.design.composition
        if settings is None:
            return
        for donors, cells in self.design.pairs:
            for fold in settings.fold:
                for name in settings.types or ():
                    key = {"analysis": results.COMPOSITION, "donors": donors, "cells": cells}
                    p = self._replicates(
                        key | {"type": name, "fold": fold},
                        partial(self.simulator.composition_p, donors, cells, name, fold),
                        settings.replicates,
                        step,
                    )
                    found = yes_or_no([value <= self.design.alpha for value in p])
                    row: dict[str, Any] = {
                        "analysis": results.COMPOSITION,
                        "type": name,
                        "fold": fold,
                    }
                    row |= {"test": "t_test", "metric": results.POWER} | _bounds(found)
                    yield row | self._labels_only(donors, cells, settings.replicates)

    def _replicates(
        self,
        key: dict[str, Any],
        compute: Callable[[int], Any],
        replicates: int,
        step: Callable[[str], None],
    ) -> list[Any]:
        """The results of replicates that simulate labels only, in blocks."""
        found: list[Any] = []
        for block in range(_blocks(replicates)):
            numbers = range(block * BLOCK, (block + 1) * BLOCK)
            whole = self.key | key | {"block": block, "size": BLOCK}
            found += self.cache.get(whole, partial(_each, compute, numbers))
            step(str(key["analysis"]))
        return found[:replicates]

    def _labels_only(self, donors: int, cells: int, replicates: int) -> dict[str, Any]:
        """Columns of a study whose depth does not matter: the cost is that of the smallest."""
        cost = self._cost(Point(donors, cells, min(self.design.depth), 0.0))
        return {"donors": donors, "cells": cells, "replicates": replicates, "cost": cost}

    def _cost(self, point: Point) -> float:
        prices = self.design.prices
        if prices is None:
            return np.nan
        counts = self.simulator.counts_per_cell if prices.million_counts else 0.0
        cells = 2 * point.donors * point.cells
        sequencing = prices.million_counts * cells * point.depth * counts / 1e6
        return 2 * point.donors * prices.donor + cells * prices.cell + sequencing


def _each(compute: Callable[[int], Any], numbers: range) -> list[Any]:
    return [compute(number) for number in numbers]


def _blocks(replicates: int) -> int:
    return -(-replicates // BLOCK)


def _sum(outcomes: Sequence[dict[str, int] | None], planted: int) -> dict[str, int]:
    """The outcomes of several types together; in one that was not tested nothing is found."""
    names = ("planted", "found", "discoveries", "false", "unchanged", "below")
    none = dict.fromkeys(names, 0) | {"planted": planted}
    known = [none if one is None else one for one in outcomes]
    return {name: sum(one[name] for one in known) for name in names}


def _bounds(found: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("value", "lower", "upper"), found, strict=True))
