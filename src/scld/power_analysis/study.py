"""`power` simulates studies of a design; `PowerStudy` holds what they find and writes it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from scld.errors import RequestError, check_int, listed
from scld.io.text import records, with_interval, write_csv, write_json, write_text
from scld.power_analysis import detection, results
from scld.power_analysis.cache import Cache, digest
from scld.power_analysis.design import PowerDesign
from scld.power_analysis.grid import Grid
from scld.power_analysis.results import Results
from scld.power_analysis.simulate import Simulator
from scld.progress import progress_bars
from scld.synthesizer import Synthesizer, load


def power(
    pilot: Synthesizer | str | os.PathLike[str],
    design: Any,
    *,
    cache: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> PowerStudy:
    """Power analysis: power, false discoveries and cost of studies of each size, by simulation.

    Parameters
    ----------
    pilot
        A model fitted on a pilot study, or the path of its checkpoint. Its label of donors shows
        how donors vary: those of the simulated studies are new ones.
    design
        A dict, or the path of a ``.yaml`` or ``.json`` file: docs/power.md lists its keys.
    cache
        A folder for the results of single studies. With more replicates or points of the grid, only
        the new ones are simulated; an interrupted call continues.
    seed
        Same seed, same results.
    progress
        Whether to show progress on standard error.

    Returns
    -------
    PowerStudy
        `PowerStudy.table`, `PowerStudy.summary`, `PowerStudy.to_html`, `PowerStudy.to_json`.

    Warns
    -----
    UserWarning
        Donors do not vary, because the model has no label of donors: power is too high then.

    Raises
    ------
    RequestError
        An unknown key, type or label, a value out of range, PyDESeq2 is not installed.

    Examples
    --------
    >>> import scld
    >>> cells = scld.datasets.pbmc()
    >>> cells.obs["donor"] = [f"donor_{i % 4}" for i in range(cells.n_obs)]
    >>> config = scld.Config.preset("quick")
    >>> synth = scld.Synthesizer(["cell_type", "donor"], config=config)
    >>> synth = synth.fit(cells, progress=False)
    >>> design = {"donors": [2, 4], "cells": 100, "expression": None, "composition": None}
    >>> study = scld.power(synth, design, progress=False)
    >>> platelets = study.table[study.table["type"] == "platelet"]
    >>> bool(platelets["value"].is_monotonic_increasing)
    True
    """
    checked = PowerDesign.of(design)
    number = check_int("seed", seed, 0)
    folder = Cache(None if cache is None else Path(cache).expanduser())
    if checked.expression and "pseudobulk" in checked.expression.tests:
        detection.check_extra()
    synth = _model(pilot)
    full = checked.for_model(synth.schema)
    notes = _notes(checked, full, synth)
    grid = Grid(Simulator(synth, full, number), folder, digest(synth))
    with progress_bars(progress) as bar:
        table = grid.table(bar("power", grid.steps))
    return PowerStudy(table, full, notes, number)


def _model(pilot: Any) -> Synthesizer:
    if isinstance(pilot, Synthesizer):
        return pilot
    if not isinstance(pilot, str | os.PathLike):
        advice = "pass a fitted Synthesizer, or the path of its checkpoint"
        raise RequestError(f"pilot: got {type(pilot).__name__}; {advice}")
    return load(Path(pilot).expanduser())


def _notes(asked: PowerDesign, full: PowerDesign, synth: Synthesizer) -> tuple[str, ...]:
    """What limits the results; the most important one is a warning, too."""
    notes = []
    if full.donor is None:
        labels = f"the labels of this model are {listed(synth.labels) or 'none'}"
        seen = "the design ignores donors" if asked.donor is None else f"no label {asked.donor!r}"
        effect = "simulated donors do not differ, so power and false discoveries are too optimistic"
        notes = [f"donor: {seen} ({labels}): {effect}; name the label, or fit again with it"]
        warnings.warn(notes[0], stacklevel=3)
    if full.composition and full.types:
        named = asked.composition.types if asked.composition else None
        left = [name for name in named or full.types if name not in (full.composition.types or ())]
        if left:
            seen = f"{listed(left)} left out: the largest fold change would make a share above 1"
            notes.append(f"composition: {seen}")
    return tuple(notes)


class PowerStudy(Results):
    """The results of `scld.power`.

    Attributes
    ----------
    table
        One row per point of the grid, type, test and metric. ``analysis``: ``expression``, ``rare``
        or ``composition``. ``type``: a cell type, or ``overall``. ``test``: ``pseudobulk``,
        ``wilcoxon``, or ``t_test`` of shares. ``metric``: ``power`` (share of changed genes that
        are found; of simulated studies that find the change of a share), ``fdr`` (mean false
        discovery proportion), ``false_positive_rate`` (share of unchanged genes with a p-value of
        at most alpha), ``probability`` (of enough cells of a rare type). ``donors`` of each group,
        ``cells`` of each donor, ``depth``, ``log2fc``, ``fold`` (of a share). ``value`` with its
        95% interval over replicates, ``lower`` to ``upper``. ``untested``: replicates in which
        too few donors had cells of the type. ``cost``: of the study, at these prices.
    design
        The design, with the types of the model.
    notes
        What limits the results, one sentence each.
    seed
        The seed.
    """

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Design, notes and table as JSON, also written to ``path`` if one is given."""
        values = {"seed": self.seed, "notes": self.notes, "design": self.design.to_dict()}
        return write_json(path, {**values, "results": records(self.table)})

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table."""
        write_csv(Path(path), self.table)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write a page: curves, the table, design and notes. One file, offline."""
        from scld.power_analysis.report import render

        write_text(Path(path), render(self))

    def summary(self) -> str:
        """A short text table: all types together for expression, each type for the rest."""
        from rich.console import Console
        from rich.table import Table

        console = Console(width=110, color_system=None, markup=False)
        with console.capture() as capture:
            for title, columns, rows in self._summaries():
                text = Table(*columns, box=None, pad_edge=False)
                for row in rows:
                    text.add_row(*row)
                console.print(title, highlight=False)
                console.print(text)
            for note in self.notes:
                console.print(f"- {note}", highlight=False, soft_wrap=True)
        return "\n".join(line.rstrip() for line in capture.get().splitlines()).rstrip()

    def _summaries(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """Title, columns and rows of each analysis."""
        rows, titles = self.table, {results.EXPRESSION: "Differential expression, all types"}
        titles |= {results.RARE: self._rare_title(), results.COMPOSITION: "Change of composition"}
        shown = (rows["analysis"] != results.EXPRESSION) | (rows["type"] == results.OVERALL)
        for analysis, some in rows[shown].groupby("analysis", sort=False):
            keys = ["type", "donors", "cells", "depth", "log2fc", "fold", "cost", "test"]
            if analysis == results.EXPRESSION:
                keys.remove("type")
            keys = [key for key in keys if some[key].notna().any()]
            wide = some.assign(text=[with_interval(row) for row in some.to_dict("records")])
            table = wide.pivot(index=keys, columns="metric", values="text")
            table = table.reindex(columns=pd.unique(some["metric"])).reset_index()
            texts = [[_text(value) for value in row] for row in table.to_numpy(object)]
            yield titles[str(analysis)], [str(name) for name in table.columns], texts

    def _rare_title(self) -> str:
        if self.design.rare is None:
            return ""
        where = {"study": "in the study", "donor": "in every donor"}[self.design.rare.per]
        return f"Rare types: at least {self.design.rare.cells} cells {where}"

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"PowerStudy({len(self.table):,} results of {len(self.design.points)} designs)"


def _text(value: Any) -> str:
    return f"{value:,.6g}" if isinstance(value, int | float) else str(value)
