"""Evaluate anybody's synthetic cells: `evaluate` reads and checks, `Report` holds the figures and writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from scld import judge, verdict
from scld.errors import RequestError, nearest
from scld.evidence import REAL, Evidence
from scld.judge import BASELINES, FLOOR, OVERALL, Judgement, Record
from scld.metrics.catalogue import FIGURES
from scld.metrics.genes import gene_moments

if TYPE_CHECKING:
    from anndata import AnnData

    from scld import plots

BY_NAME = {figure.name: figure for figure in FIGURES}
MOST_PICTURED = 6  # sets with pictures
MOST_MAPPED = 1500  # cells of a set on the map


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
        The layer of raw counts; ``X`` if None, and for synthetic sets without that layer, which is said.
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
    cells = Evidence.of(train, test, _named(synthetic), label, donor, layer, log_normalised, genes, max_cells, seed)
    cost_rows = _costs(costs or {}, list(cells.sets))
    steps = halvings * (1 + len(cells.sets)) + (len(BASELINES) if baselines else 0) + 1
    with _progress(progress, steps) as tick:
        judgement = judge.judge(
            cells.train, cells.test, cells.sets, max_cells=max_cells, baselines=baselines, halvings=halvings, held_out=test is not None, seed=seed, tick=tick
        )
    table = _tabulate(judgement, cells, cost_rows)
    return Report(table=table, notes=cells.notes, label=label, types=cells.types, gene_names=cells.genes, judgement=judgement, seed=seed)


def _named(synthetic: Any) -> dict[str, Any]:
    sets = dict(synthetic) if isinstance(synthetic, Mapping) else {"synthetic": synthetic}
    if not sets:
        raise RequestError("synthetic: no set; pass an AnnData, a path, or a mapping of names to these")
    taken = {FLOOR, OVERALL, "real", *REAL, *BASELINES} & set(sets)
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


def _tabulate(judgement: Judgement, cells: Evidence, costs: pd.DataFrame) -> pd.DataFrame:
    """Every score beside its floor, averaged over halvings: one row a set, scope and figure."""
    of_sets = [Record(name, OVERALL, figure, 0, value) for name, scores in cells.whole.items() for figure, value in scores.items()]
    long = pd.DataFrame([vars(record) for record in judgement.records + of_sets])
    if len(cells.types) == 1:  # the only type says what the whole says
        long = long[long["scope"] == OVERALL]
    long["scope"] = [scope if isinstance(scope, str) else cells.types[scope] for scope in long["scope"]]
    table = long.groupby(["set", "scope", "figure"], sort=False)["value"].agg(value="mean", sd="std", lower="min", upper="max").reset_index()
    floor = table[table["set"] == FLOOR].rename(columns={"value": "floor", "sd": "floor_sd"})[["scope", "figure", "floor", "floor_sd"]]
    table = table.merge(floor, how="left", on=["scope", "figure"])
    table["better"] = [BY_NAME[name].better for name in table["figure"]]
    ideal = pd.Series([BY_NAME[name].ideal for name in table["figure"]])
    table["ideal"] = ideal.fillna(table["floor"])
    table["group"] = [BY_NAME[name].group for name in table["figure"]]
    table["position"] = verdict.positions(table)
    order = {name: i for i, name in enumerate([*cells.sets, FLOOR, *BASELINES])}
    table = pd.concat([part for part in (table, _pass_or_fail(cells), costs) if len(part)], ignore_index=True)
    table = table.sort_values("set", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    return table[["set", "scope", "group", "figure", "value", "sd", "lower", "upper", "floor", "floor_sd", "better", "ideal", "position"]]


def _pass_or_fail(cells: Evidence) -> pd.DataFrame:
    rows = [(name, OVERALL, "Validity", check, float(ok), "higher", 1.0) for name, checks in cells.validity.items() for check, ok in checks.items()]
    return pd.DataFrame(rows, columns=["set", "scope", "group", "figure", "value", "better", "ideal"])


def _costs(costs: Mapping[str, Mapping[str, float]], names: list[str]) -> pd.DataFrame:
    unknown = [name for name in costs if name not in names]
    if unknown:
        raise RequestError(f"costs: {unknown[0]!r} is not a synthetic set; sets: {', '.join(map(repr, names))}{nearest(unknown[0], names)}")
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
    gene_names: list[str]
    judgement: Judgement
    seed: int

    @property
    def sets(self) -> list[str]:
        """The names of the synthetic sets."""
        return [name for name in self.table["set"].unique() if name not in {FLOOR, *BASELINES}]

    @property
    def pictured(self) -> list[str]:
        """The sets with pictures: each takes about half a megabyte of the page."""
        return self.sets[:MOST_PICTURED]

    @cached_property
    def places(self) -> plots.Places:
        """Where the real cells and those of each pictured set lie on one UMAP."""
        from scld import plots

        shown = self.judgement.shown
        return plots.embed(shown["real"], {name: shown[name] for name in self.pictured}, MOST_MAPPED, self.seed)

    def value(self, name: str, figure: str, scope: str = OVERALL) -> float:
        """One figure; nan where it was left out."""
        rows = self.table[(self.table["set"] == name) & (self.table["figure"] == figure) & (self.table["scope"] == scope)]
        return float(rows["value"].iloc[0]) if len(rows) else float("nan")

    @cached_property
    def genes(self) -> pd.DataFrame:
        """Gene by gene, one row a set and gene: mean, variance and detection rate, and those of the real cells (``_real``)."""
        real = {f"{key}_real": values for key, values in gene_moments(self.judgement.shown["real"].cells.log).items()}
        shown = {name: gene_moments(self.judgement.shown[name].cells.log) for name in [*self.sets, FLOOR]}
        return pd.concat([pd.DataFrame({"set": name, "gene": self.gene_names, **moments, **real}) for name, moments in shown.items()], ignore_index=True)

    def to_json(self, path: str | Path | None = None) -> str:
        """The table and the notes as JSON, also written to ``path`` if one is given."""
        rows = json.loads(self.table.to_json(orient="records", double_precision=8))
        text = json.dumps({"label": self.label, "seed": self.seed, "genes": len(self.gene_names), "notes": self.notes, "figures": rows}, indent=1)
        if path is not None:
            Path(path).write_text(text)
        return text

    def to_html(self, path: str | Path) -> None:
        """A page to read: verdict, pictures, types, privacy, all figures. One file that needs no network."""
        from scld import page

        Path(path).write_text(page.render(self), encoding="utf-8")

    def to_png(self, path: str | Path, name: str | None = None) -> None:
        """Real and synthetic cells side by side on one UMAP, of the first set or of the one named."""
        from scld import plots

        name = name or self.sets[0]
        if name not in self.pictured:
            raise RequestError(f"name: {name!r} has no picture; sets with one: {', '.join(self.pictured)}{nearest(name, self.pictured)}")
        plots.umap(self.places, name, self.types).savefig(path, dpi=150)

    def summary(self) -> str:
        """The overall figures as a text table: every set beside the floor and the trivial fakes, and the notes."""
        from rich.console import Console
        from rich.table import Table

        rows = self.table[(self.table["scope"] == OVERALL) & self.table["floor"].notna()]
        wide = rows.pivot(index="figure", columns="set", values="value")
        columns = [*self.sets, FLOOR, *(name for name in BASELINES if name in wide)]
        drawn = Table("", "better", box=None, pad_edge=False)
        for column in columns:
            drawn.add_column(column, justify="right")
        for figure in (figure for figure in FIGURES if figure.name in wide.index):
            near = "at floor" if np.isnan(figure.ideal) else f"near {figure.ideal:g}"
            values = ["" if np.isnan(value) else f"{value:.4g}" for value in wide.loc[[figure.name], columns].to_numpy(float)[0].tolist()]
            drawn.add_row(figure.title, near if figure.better == "target" else figure.better, *values)
        console = Console(width=60 + 14 * len(columns), color_system=None)
        with console.capture() as capture:
            console.print(drawn)
            for note in self.notes:
                console.print(f"- {note}", highlight=False, markup=False, soft_wrap=True)
        return capture.get().rstrip()

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"Report({', '.join(self.sets)}: {self.table['figure'].nunique()} figures, {self.table['scope'].nunique()} scopes)"
