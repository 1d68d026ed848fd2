"""Evaluate anybody's synthetic cells: `evaluate` reads and checks, `Report` holds the figures and writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld import data, judge, metrics
from scld.errors import DataError, RequestError
from scld.judge import BASELINES, COUNTS_ONLY, FIGURES, FLOOR, OVERALL, Cells, Judgement

if TYPE_CHECKING:
    from anndata import AnnData

Source = "AnnData | str | Path"
FEWEST_CELLS = 50
PRIVACY = ("nearer_training", "membership_auc", "donor_membership_auc")
BY_NAME = {figure.name: figure for figure in FIGURES}


def evaluate(
    train: AnnData | str | Path,
    test: AnnData | str | Path | None,
    synthetic: AnnData | str | Path | Mapping[str, AnnData | str | Path],
    label: str | None = None,
    *,
    donor: str | None = None,
    layer: str | None = None,
    log_normalised: bool | Sequence[str] = False,
    genes: Literal["same", "intersection"] = "same",
    costs: Mapping[str, Mapping[str, float]] | None = None,
    baselines: bool = True,
    max_cells: int = 2000,
    halvings: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> Report:
    """Score synthetic cells, from any tool, beside real cells and trivial fakes.

    Parameters
    ----------
    train
        The real cells that the synthetic ones were learnt from: raw counts, an AnnData, ``.h5ad`` or ``.zarr``.
    test
        Real cells that no maker of synthetic cells saw. None: part of ``train`` is set aside for the floors, and the figures that need
        held-out cells are left out.
    synthetic
        One set, or several by name.
    label
        The obs column of cell types, in every set. None: overall figures only.
    donor
        The obs column of donors in ``train`` and ``test``, for membership inference by donor.
    layer
        The layer of raw counts, in every set; ``X`` if None.
    log_normalised
        True, or the names of the synthetic sets whose matrix is log(1 + counts per 10,000) rather than counts. Figures that need counts
        are left out for them.
    genes
        What to do where gene names differ: ``"same"`` stops, ``"intersection"`` scores the shared genes.
    costs
        What making each set took, to be shown with its figures: ``{"name": {"seconds": 12, "peak_memory_mb": 900, "network_evaluations": 35}}``.
    baselines
        Whether to score the trivial fakes too; without them a verdict has no worst case.
    max_cells
        The most cells a side in one comparison.
    halvings
        How many random halves of the test cells to average over.
    seed
        Same seed, same figures.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Report
        `Report.table`, `Report.summary`, `Report.to_json`, `Report.to_html`.

    Raises
    ------
    DataError
        Cells that cannot be compared: a label that is missing in one file, other genes, fewer than 50 cells, another normalisation.

    Examples
    --------
    >>> import scld
    >>> cells = scld.data.read(scld.datasets.pbmc())
    >>> report = scld.evaluate(cells[::2], cells[1::2], cells[1::2], halvings=1, max_cells=100, baselines=False, progress=False)
    >>> bool(report.table.query("figure == 'exact_copies' and set == 'synthetic'").value.item() == 0)
    True
    """
    bench = _Bench.of(train, test, _named(synthetic), label, donor, layer, log_normalised, genes, max_cells, seed)
    steps = halvings * (1 + len(bench.sets)) + (len(BASELINES) if baselines else 0) + 1
    with _progress(progress, steps) as tick:
        judgement = judge.judge(
            bench.train, bench.test, bench.sets, max_cells=max_cells, baselines=baselines, halvings=halvings, held_out=test is not None, seed=seed, tick=tick
        )
    table = _tabulate(judgement, bench, costs or {})
    return Report(table=table, notes=bench.notes, label=label, types=bench.types, genes=bench.genes, judgement=judgement, seed=seed)


def _named(synthetic: Any) -> dict[str, Any]:
    sets = dict(synthetic) if isinstance(synthetic, Mapping) else {"synthetic": synthetic}
    if not sets:
        raise RequestError("synthetic: no set; pass an AnnData, a path, or a mapping of names to these")
    taken = {FLOOR, "real", *BASELINES} & set(sets)
    if taken:
        raise RequestError(f"synthetic: the name {sorted(taken)[0]!r} is kept for the report itself; choose another")
    return sets


@contextmanager
def _progress(show: bool, steps: int) -> Iterator[Callable[[str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not show) as bar:
        task = bar.add_task("evaluating", total=steps)
        started = False

        def tick(text: str) -> None:
            nonlocal started
            bar.update(task, description=text, advance=int(started))
            started = True

        yield tick
        bar.update(task, completed=steps)


def _tabulate(judgement: Judgement, bench: _Bench, costs: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Every score beside its floor, averaged over halvings: one row a set, scope and figure."""
    long = pd.DataFrame([vars(record) for record in judgement.records])
    long["scope"] = [scope if isinstance(scope, str) else bench.types[scope] for scope in long["scope"]]
    table = long.groupby(["set", "scope", "figure"], sort=False)["value"].agg(value="mean", sd="std", lower="min", upper="max").reset_index()
    floor = table[table["set"] == FLOOR].rename(columns={"value": "floor", "sd": "floor_sd"})[["scope", "figure", "floor", "floor_sd"]]
    table = table.merge(floor, how="left", on=["scope", "figure"])
    table["better"] = [BY_NAME[name].better for name in table["figure"]]
    ideal = pd.Series([BY_NAME[name].ideal for name in table["figure"]])
    table["ideal"] = ideal.fillna(table["floor"])
    table["group"] = [BY_NAME[name].group for name in table["figure"]]
    table["position"] = _positions(table)
    order = {name: i for i, name in enumerate([*bench.sets, FLOOR, *BASELINES])}
    table = pd.concat([part for part in (table, _pass_or_fail(bench), _costs(costs, list(bench.sets))) if len(part)], ignore_index=True)
    table = table.sort_values("set", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    return table[["set", "scope", "group", "figure", "value", "sd", "lower", "upper", "floor", "floor_sd", "better", "ideal", "position"]]


def gap(value: pd.Series, better: pd.Series, ideal: pd.Series) -> pd.Series:
    """How far a value is on the wrong side: the larger the worse."""
    signed = value.where(better == "lower", -value)
    return signed.where(better != "target", (value - ideal).abs())


def _positions(table: pd.DataFrame) -> pd.Series:
    """0: where real cells lie. 1: where the worst trivial fake lies. nan: the figure does not tell that fake from real cells."""
    here = gap(table["value"], table["better"], table["ideal"])
    floor = gap(table["floor"], table["better"], table["ideal"])
    worst = here.where(table["set"].isin(list(BASELINES))).groupby([table["scope"], table["figure"]]).transform("max")
    span = worst - floor
    tells = span > np.maximum(2 * table["floor_sd"].fillna(0), 1e-6)
    return ((here - floor) / span.where(tells)).where(table["set"] != FLOOR, 0.0)


def _pass_or_fail(bench: _Bench) -> pd.DataFrame:
    rows = [(name, OVERALL, "Validity", check, float(ok), "higher", 1.0) for name, checks in bench.validity.items() for check, ok in checks.items()]
    return pd.DataFrame(rows, columns=["set", "scope", "group", "figure", "value", "better", "ideal"])


def _costs(costs: Mapping[str, Mapping[str, float]], names: list[str]) -> pd.DataFrame:
    unknown = [name for name in costs if name not in names]
    if unknown:
        raise RequestError(f"costs: {unknown[0]!r} is not a synthetic set; sets: {', '.join(map(repr, names))}{data.nearest(unknown[0], names)}")
    rows = [(name, OVERALL, "Cost", figure, float(value), "lower") for name, of_set in costs.items() for figure, value in of_set.items()]
    return pd.DataFrame(rows, columns=["set", "scope", "group", "figure", "value", "better"])


@dataclass(frozen=True, repr=False)
class Report:
    """The figures of one evaluation.

    Parameters
    ----------
    table
        One row a set, scope and figure: ``value`` (mean over halvings), ``sd``, ``lower`` and ``upper`` (smallest and largest halving), ``floor``
        (real cells), ``better`` (lower, higher, or target: nearest to ``ideal``), ``position`` (0 as real, 1 as the worst trivial fake).
        ``set`` is a synthetic set, ``floor``, ``poisson``, ``shuffle`` or ``bootstrap``; ``scope`` is ``overall`` or a type.
    notes
        What was left out and why, one sentence each.
    """

    table: pd.DataFrame
    notes: list[str]
    label: str | None
    types: list[str]
    genes: list[str]
    judgement: Judgement
    seed: int
    _cache: dict[str, Any] = field(default_factory=dict)

    @property
    def sets(self) -> list[str]:
        """The names of the synthetic sets."""
        return [name for name in self.table["set"].unique() if name not in {FLOOR, *BASELINES}]

    def to_json(self, path: str | Path | None = None) -> str:
        """The table and the notes as JSON, also written to ``path`` if one is given."""
        rows = json.loads(self.table.to_json(orient="records", double_precision=8))
        text = json.dumps({"label": self.label, "seed": self.seed, "genes": len(self.genes), "notes": self.notes, "figures": rows}, indent=1)
        if path is not None:
            Path(path).write_text(text)
        return text

    def summary(self) -> str:
        """The overall figures as a text table: every set beside the floor and the trivial fakes."""
        from rich.console import Console
        from rich.table import Table

        wide = self.table[(self.table["scope"] == OVERALL) & ~self.table["group"].isin(["Validity", "Cost"])].pivot(index="figure", columns="set", values="value")
        columns = [*self.sets, FLOOR, *(name for name in BASELINES if name in wide)]
        drawn = Table(*["", "better", *columns], box=None, pad_edge=False)
        for figure in (figure for figure in FIGURES if figure.name in wide.index):
            cells = ["" if np.isnan(value) else f"{value:.4g}" for value in wide.loc[figure.name, columns]]
            drawn.add_row(figure.title, {"target": f"near {figure.ideal:g}" if figure.ideal == figure.ideal else "at floor"}.get(figure.better, figure.better), *cells)
        console = Console(width=60 + 14 * len(columns), color_system=None)
        with console.capture() as capture:
            console.print(drawn)
            for note in self.notes:
                console.print(f"- {note}", highlight=False)
        return capture.get().rstrip()

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"Report({', '.join(self.sets)}: {self.table['figure'].nunique()} figures, {self.table['scope'].nunique()} scopes)"
