"""The HTML page of a power analysis: curves, the table, design and notes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scld.evaluation.html import filled
from scld.evaluation.plots import style
from scld.power_analysis import results
from scld.power_analysis.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_LINES, MOST_PANELS, MOST_TYPES = 12, 12, 8  # on one figure; types with a figure of their own
COLUMNS = 3  # panels side by side
ENOUGH = 0.8  # power that studies are usually planned for
BANDS = "Bands: 95% intervals over simulated studies."
PLACES = {"study": "in the study", "donor": "in every donor"}
TITLES = {results.FDR: "False discovery rate", results.FALSE_POSITIVES: "False positive rate"}
FALSE = {
    results.FDR: "Mean false discovery proportion",
    results.FALSE_POSITIVES: "Share of unchanged genes with a p-value of at most alpha",
}
PANELS = {
    "donors": "{:g} donors",
    "cells": "{:g} cells",
    "depth": "depth {:g}",
    "log2fc": "log2fc {:g}",
}
AXES = {
    "donors": "donors per group",
    "cells": "cells per donor",
    "depth": "depth factor",
    "log2fc": "log2 fold change",
    "type": "",
    "test": "",
}


@dataclass(frozen=True)
class Plot:
    """One plot as inline SVG."""

    title: str
    caption: str
    svg: str


def render(study: Results) -> str:
    """The whole page."""
    shown = [name for name in results.COLUMNS if study.table[name].notna().any()]
    return filled(
        "scld.power_analysis",
        "power.html",
        study=study,
        plots=list(_plots(study)),
        columns=shown,
        rows=study.table[shown].to_dict("records"),
        design=json.dumps(study.design.to_dict(), indent=1),
        most={"types": MOST_TYPES, "lines": MOST_LINES, "panels": MOST_PANELS},
    )


def _plots(study: Results) -> Iterator[Plot]:
    from markupsafe import Markup

    for number, (title, caption, figure) in enumerate(_figures(study)):
        svg = style.svg(figure, f"{title}. {caption}", f"power-{number}")
        yield Plot(title, caption, Markup(svg))


def _figures(study: Results) -> Iterator[tuple[str, str, Figure]]:
    """Title, caption and figure of each plot."""
    table, rare = study.table, study.design.rare
    yield from _of_expression(table[table["analysis"] == results.EXPRESSION], study.design.alpha)
    if rare is not None:
        caption = f"Probability of at least {rare.cells} cells {PLACES[rare.per]}. {BANDS}"
        some = table[table["analysis"] == results.RARE]
        yield "Rare types", caption, curves(some, "type", "probability", ENOUGH)
    for fold, some in table[table["analysis"] == results.COMPOSITION].groupby("fold", sort=False):
        caption = f"Share of simulated studies that find the change (t-test of donors). {BANDS}"
        title = f"Composition: share multiplied by {fold:g}"
        yield title, caption, curves(some, "type", "power", ENOUGH)


def _of_expression(table: pd.DataFrame, alpha: float) -> Iterator[tuple[str, str, Figure]]:
    """Power of the first test in each type; false results of all tests."""
    tests = pd.unique(table["test"])[:1]
    power = table[(table["metric"] == results.POWER) & table["test"].isin(tests)]
    for name, some in power.dropna(subset=["value"]).groupby("type", sort=False):
        if name in pd.unique(power["type"])[: 1 + MOST_TYPES]:
            caption = f"Share of the changed genes that are found ({tests.item()}). {BANDS}"
            what = "all types" if name == results.OVERALL else str(name)
            yield f"Power: {what}", caption, curves(some, "log2fc", "power", ENOUGH)
    for metric, meaning in FALSE.items():
        some = table[(table["metric"] == metric) & (table["type"] == results.OVERALL)]
        if some["value"].notna().any():
            caption = f"{meaning}, all types. Dashed: {alpha:g}, what it should be at most. {BANDS}"
            title = TITLES[metric]
            yield title, caption, curves(some, "test", title.lower(), alpha)


def curves(table: pd.DataFrame, line: str, y: str, level: float) -> Figure:
    """Curves of ``value`` with bands, and a dashed line at a level.

    Parameters
    ----------
    table
        Rows of `PowerStudy.table`, of one metric.
    line
        The column with one curve per value.
    y
        Name of the y axis.
    level
        Where the dashed line lies.
    """
    axes = [name for name in ("donors", "cells", "depth", "log2fc") if name != line]
    several = [name for name in axes if table[name].nunique() > 1]
    x, *others = several or ["donors"]
    groups: list[tuple[Any, Any]] = [((), table)]
    groups = list(table.groupby(others, sort=True)) if others else groups
    columns = min(COLUMNS, len(groups[:MOST_PANELS]))
    rows = -(-len(groups[:MOST_PANELS]) // columns)
    options: dict[str, Any] = {"sharey": True, "squeeze": False}
    figure, panels = style.subplots(columns, 1.6 + 2.9 * columns, 2.7 * rows, rows, **options)
    for number, (panel, (values, some)) in enumerate(zip(panels, groups, strict=False)):
        named = zip(others, values, strict=True)
        title = ", ".join(PANELS[other].format(value) for other, value in named)
        _draw(panel, some, x, line)
        panel.axhline(level, color=style.GREY, linewidth=1, linestyle="--")
        style.set_labels(panel, AXES[x], "" if number % columns else y, title)
    for panel in panels[len(groups) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "outside right upper", "frameon": False, "fontsize": 8}
    legend = figure.legend(handles, labels, title=AXES[line], labelcolor=style.INK, **place)
    legend.get_title().set(color=style.INK, fontsize=8)
    return figure


def _draw(panel: Axes, table: pd.DataFrame, x: str, line: str) -> None:
    for number, (name, some) in enumerate(table.groupby(line, sort=False)):
        if number >= MOST_LINES:
            break
        ordered = some.sort_values(x)
        colour = style.TYPE_COLOURS[number % len(style.TYPE_COLOURS)]
        text = f"{name:g}" if isinstance(name, float) else style.shortened(str(name))
        at, value = ordered[x].to_numpy(float), ordered["value"].to_numpy(float)
        panel.plot(at, value, color=colour, marker="o", markersize=3.5, linewidth=1.4, label=text)
        low, high = ordered["lower"].to_numpy(float), ordered["upper"].to_numpy(float)
        if len(at) > 1:
            panel.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
        else:
            panel.vlines(at, low, high, color=colour, alpha=0.4)
    ticks = np.unique(table[x].to_numpy(float))
    ratios = [b / a for a, b in pairwise(ticks) if a > 0]
    if ratios and min(ticks) > 0 and max(ratios) >= 1.8:  # doubled at each step
        panel.set_xscale("log")
        panel.minorticks_off()
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.set_ylim(-0.03, 1.03)
