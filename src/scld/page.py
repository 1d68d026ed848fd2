"""The HTML page of a report: one file, its pictures inside, nothing fetched from anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scld import plots, verdict
from scld.judge import BASELINES, FLOOR, OVERALL
from scld.metrics.catalogue import FIGURES, GROUPS, Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from scld.report import Report

PER_TYPE = ("c2st", "w2", "mmd2", "correlation", "detection_gap", "de_recall", "label_accuracy", "tstr_f1")
CAPTIONS = {  # title, what to look for
    "map": (
        "Map of cells (UMAP)",
        "Look for synthetic cells where no real cell is, and for real regions without synthetic cells. The map is fitted to real and synthetic cells "
        "together, so that an odd cell is free to land elsewhere. Distances between islands mean nothing, and a set without any noise can look perfect "
        "here: the figures above decide.",
    ),
    "sizes": ("Counts and genes per cell", "Look for the same height, width and tails. Cells that are all alike in size give a narrow peak."),
    "by_type": (
        "Told apart, type by type",
        "Look for long bars: in these types a classifier tells synthetic from real cells, whatever the map shows. "
        "Types with too few test cells are not tested.",
    ),
    "roc": (
        "ROC curves",
        "Look at how far the orange curves bend away from the diagonal: the area under each is its AUC. "
        "The blue curves, real cells against real cells, show what chance looks like.",
    ),
    "nearest": (
        "Nearest neighbours",
        "Look at the two orange lines: they should coincide. A solid line left of the dashed one means that cells sit closer to training cells than to "
        "other cells of the same tissue: memory. A peak at 0 means copies.",
    ),
    "genes": (
        "Gene by gene",
        "Look for orange points below the blue band on the left (genes that vary too little) and above it (too noisy); in the other panels for points "
        "off the diagonal. The five genes furthest off in detection are named.",
    ),
    "markers": (
        "Markers of each type",
        "Look for the same dots on both sides: three marker genes of each type, chosen on the training cells. Colours too bright or dots too large "
        "outside the diagonal are markers that leak into other types; a cleaner pattern than the real one is a caricature.",
    ),
    "together": (
        "Genes that go together, in the largest type",
        "Look for the same blocks on both sides. A right side without blocks means that genes were made one by one: no single-gene figure sees that.",
    ),
}
COSTS = {"seconds": "seconds", "cells_per_second": "cells a second", "peak_memory_mb": "peak memory, MB", "network_evaluations": "network evaluations"}


@dataclass(frozen=True)
class Picture:
    """One picture: what it shows, and what to look for."""

    title: str
    caption: str
    svg: str


def render(report: Report) -> str:
    """The whole page."""
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = _number
    template = environment.from_string(files("scld").joinpath("templates/report.html").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        sizes={report.types[t]: n for t, n in report.judgement.sizes.items()},
        verdicts=[_verdict(report, name, i) for i, name in enumerate(report.sets)],
        pictures={name: list(_pictures(report, name, report.places, f"s{i}")) for i, name in enumerate(report.pictured)},
        pages={name: _type_rows(report, name) for name in report.sets},
        per_type=[figure for figure in FIGURES if figure.name in PER_TYPE],
        groups=_all_figures(report),
        columns=[*report.sets, FLOOR, *(name for name in BASELINES if name in set(report.table["set"]))],
        privacy=[_privacy(report, name) for name in report.sets],
        checks=_wide(report.table, "Validity", report.sets),
        costs=_wide(report.table, "Cost", report.sets).rename(index=COSTS),
        real=plots.REAL,
        fake=plots.FAKE,
    )


def _number(value: float) -> str:
    """Three significant digits, no exponent where it can be avoided; a dash for nothing."""
    if value is None or np.isnan(value):
        return "–"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _verdict(report: Report, name: str, number: int) -> dict[str, object]:
    found = verdict.findings(report.table, name)
    return {
        "name": name,
        "anchor": f"set-{number}",
        "headline": verdict.headline(report.table, name),
        "warnings": verdict.warnings(report.table, name),
        "groups": [(group, [one for one in found if one.figure.group == group]) for group in GROUPS if any(one.figure.group == group for one in found)],
        "counts": {word: count for word in verdict.WORDS if (count := sum(one.word == word for one in found))},
        "types": verdict.worst_types(report.table, name).to_dict("records"),
        "genes": verdict.worst_genes(report.genes, name).to_dict("records"),
    }


def _type_rows(report: Report, name: str) -> list[tuple[str, int, dict[str, tuple[float, float]]]]:
    rows = report.table[(report.table["set"] == name) & (report.table["scope"] != OVERALL)]
    sizes = {report.types[t]: n for t, n in report.judgement.sizes.items()}
    floor = {scope: verdict.values(report.table, name, "floor", scope) for scope in rows["scope"].unique()}
    value = {scope: verdict.values(report.table, name, "value", scope) for scope in floor}
    return [(scope, sizes.get(scope, 0), {key: (value[scope][key], floor[scope][key]) for key in floor[scope]}) for scope in sorted(floor)]


def _all_figures(report: Report) -> list[tuple[str, list[tuple[Figure, dict[str, float]]]]]:
    with_floor = report.table[report.table["floor"].notna()]
    by_set = {name: verdict.values(with_floor, name) for name in with_floor["set"].unique()}
    rows = [(figure, {name: of[figure.name] for name, of in by_set.items() if figure.name in of}) for figure in FIGURES]
    return [(group, of_group) for group in GROUPS if (of_group := [row for row in rows if row[0].group == group and row[1]])]


def _wide(table: pd.DataFrame, group: str, names: list[str]) -> pd.DataFrame:
    rows = table[table["group"] == group]
    return rows.pivot(index="figure", columns="set", values="value").reindex(index=rows["figure"].unique(), columns=names)


def _privacy(report: Report, name: str) -> dict[str, object]:
    by_set = {column: verdict.values(report.table, column) for column in (name, FLOOR, "bootstrap") if (report.table["set"] == column).any()}
    shown = [figure for figure in FIGURES if figure.group == "Privacy" and figure.name in by_set[name]]
    return {"name": name, "columns": list(by_set), "rows": [(figure, [of.get(figure.name, np.nan) for of in by_set.values()]) for figure in shown]}


def _pictures(report: Report, name: str, places: plots.Places, prefix: str) -> Iterator[Picture]:
    from markupsafe import Markup

    for key, alt, figure in drawn(report, name, places):
        title, caption = CAPTIONS[key]
        yield Picture(title, caption, Markup(plots.svg(figure, alt, f"{prefix}-{key}")))


def drawn(report: Report, name: str, places: plots.Places) -> Iterator[tuple[str, str, Canvas]]:
    """Every picture of a set: the key of its caption, text for those who cannot see it, and the figure."""
    return chain(_of_cells(report, name, places), _of_tests(report, name), _of_genes(report, name))


def _of_cells(report: Report, name: str, places: plots.Places) -> Iterator[tuple[str, str, Canvas]]:
    yield (
        "map",
        f"Three UMAP panels: real and synthetic cells together, real cells by type, cells of {name} by type.",
        plots.umap(places, name, report.types),
    )
    yield "sizes", "Histograms of cell sizes, real and synthetic.", plots.sizes(report.judgement.shown["real"], report.judgement.shown[name])


def _of_tests(report: Report, name: str) -> Iterator[tuple[str, str, Canvas]]:
    court = report.judgement
    rows = report.table[(report.table["set"] == name) & (report.table["figure"] == "c2st") & (report.table["scope"] != OVERALL)]
    if len(rows):
        scopes, value, floor = list(rows["scope"]), rows["value"].to_numpy(float), rows["floor"].to_numpy(float)
        top = int(value.argmax())
        alt = f"C2ST AUC of each type beside its floor; the highest is {scopes[top]} with {value[top]:.2f}, floor {floor[top]:.2f}."
        yield "by_type", alt, plots.by_type(scopes, value, floor)
    aucs = [f"{title} {report.value(name, f'c2st_{key}'):.2f}, real {report.value(FLOOR, f'c2st_{key}'):.2f}" for key, title in plots.CLASSIFIERS.items()]
    yield "roc", f"ROC curves, area under each: {'; '.join(aucs)}.", plots.roc(court.curves[name], court.curves[FLOOR])
    if name in court.distances:
        alt = "Histograms of distances to the nearest training and held-out cell, for synthetic and for real cells."
        yield "nearest", alt, plots.nearest(court.distances[name], court.distances[FLOOR])


def _of_genes(report: Report, name: str) -> Iterator[tuple[str, str, Canvas]]:
    court, reference = report.judgement, report.judgement.reference
    real, fake, codes = court.shown["real"], court.shown[name], np.array(list(court.sizes))
    alt = "Scatter plots of every gene: variance against mean, mean and detection rate against those of real cells."
    yield "genes", alt, plots.genes(report.genes[report.genes["set"] == name])
    if reference.markers is not None:
        of_type = dict(zip(reference.types.tolist(), reference.markers, strict=True))
        columns = np.array(list(dict.fromkeys(int(gene) for t in codes for gene in of_type[int(t)][:3])))[:36]
        alt = "Two dot plots of marker genes by type, real on the left and synthetic on the right."
        yield "markers", alt, plots.markers(real, fake, columns, [report.gene_names[i] for i in columns], codes, report.types)
    code = max(court.sizes, key=lambda t: court.sizes[t])
    together = reference.together[code][:40]
    a, b = (view.dense[np.ix_(view.cells.codes == code, together)] for view in (real, fake))
    names = [report.gene_names[i] for i in reference.space.genes[together]]
    alt = f"Heat maps of gene-gene correlations in {report.types[code]}, real and synthetic."
    yield "together", alt, plots.gene_correlations(a, b, names, report.types[code])
