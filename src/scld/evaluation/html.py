"""The HTML report: one file with its plots inside, which loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scld.evaluation import interpretation, plots
from scld.evaluation.controls import BASELINE
from scld.evaluation.figures import panels
from scld.evaluation.registry import CATEGORIES, METRICS, PRIVACY, PUBLISHED, Metric
from scld.evaluation.results import Results
from scld.evaluation.table import COST, VALIDITY

COPIES = "bootstrap"  # the negative control that privacy metrics are compared with
MAIN = (  # metrics that the page begins with
    *("c2st", "w2", "type_means_off", "effect_slope", "correlation"),
    *("label_accuracy", "tstr_f1", "nearer_training"),
)
COSTS = {
    "seconds": "seconds",
    "cells_per_second": "cells per second",
    "peak_memory_mb": "peak memory, MB",
    "network_evaluations": "network evaluations",
}


@dataclass(frozen=True)
class Row:
    """One metric of several datasets."""

    metric: Metric
    values: dict[str, float]


@dataclass(frozen=True)
class Plot:
    """One plot as inline SVG."""

    title: str
    caption: str
    svg: str


def render(results: Results, embedding: plots.Embedding) -> str:
    """The whole page.

    Parameters
    ----------
    results
        The results.
    embedding
        The UMAP of real cells and of the datasets with plots.
    """
    return filled(
        "scld.evaluation",
        "report.html",
        results=results,
        summaries=[_summary(results, name, f"set-{i}") for i, name in enumerate(results.datasets)],
        plots={
            name: list(_plots(results, name, embedding, f"s{i}"))
            for i, name in enumerate(results.plotted)
        },
        type_rows={name: _type_rows(results, name) for name in results.datasets},
        per_type=[metric for metric in METRICS if metric.heading],
        main=_main_metrics(results),
        label_rows=_label_rows(results),
        categories=_all_metrics(results),
        columns=[*results.datasets, BASELINE, *results.controls],
        privacy={name: _privacy(results, name) for name in results.datasets},
        checks=_by_dataset(results, VALIDITY),
        costs=_by_dataset(results, COST).rename(index=COSTS),
        heading={BASELINE: "baseline (real)", COPIES: "bootstrap (copies)"},
    )


def filled(package: str, template: str, **values: Any) -> str:
    """A page from a template of a package, which may extend ``page.html`` of this one."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("scld.evaluation")]),
    )
    environment.filters["number"] = formatted
    colours = {"real": plots.REAL, "synthetic": plots.SYNTHETIC}
    return environment.get_template(template).render(colours=colours, **values)


def formatted(value: float | None) -> str:
    """About three significant digits; a dash for a missing value.

    Examples
    --------
    >>> [formatted(value) for value in (1234.5, 12.34, 0.1234, 0.01234, 0.0001234, None)]
    ['1,234', '12.3', '0.123', '0.0123', '1.2e-04', '–']
    """
    if value is None or np.isnan(value):
        return "–"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if 0 < abs(value) < 0.1:
        return f"{value:.3g}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _summary(results: Results, name: str, anchor: str) -> dict[str, Any]:
    """What the section of one dataset shows."""
    table, worst = results.table, results.worst_genes
    found = interpretation.findings(table, name)
    words = [finding.word for finding in found]
    shown = [category for category in CATEGORIES if category != PUBLISHED]
    by_category = {
        category: [finding for finding in found if finding.metric.category == category]
        for category in shown
    }
    return {
        "name": name,
        "anchor": anchor,
        "headline": interpretation.headline(table, name),
        "warnings": [
            *interpretation.warnings(table, name),
            *interpretation.gene_warnings(results.type_genes, name),
        ],
        "categories": {category: rows for category, rows in by_category.items() if rows},
        "counts": {w: words.count(w) for w in interpretation.WORDS if w in words},
        "types": interpretation.worst_types(table, name).to_dict("records"),
        "genes": worst[worst["dataset"] == name].to_dict("records"),
        "steps": interpretation.next_steps(table, name),
    }


def _type_rows(results: Results, name: str) -> list[dict[str, Any]]:
    """Type by type: number of cells, and metric -> (value, baseline)."""
    table = results.table
    of_dataset = table[(table["dataset"] == name) & table["group"].isin(results.types)]
    rows = []
    for group in sorted(of_dataset["group"].unique()):
        values = interpretation.values(table, name, "value", group)
        baseline = interpretation.values(table, name, "baseline", group)
        pairs = {metric: (value, baseline[metric]) for metric, value in values.items()}
        rows.append({"type": group, "cells": results.sizes.get(group, 0), "values": pairs})
    return rows


def _label_rows(results: Results) -> dict[str, list[Row]]:
    """Label -> its metrics, of every dataset; empty unless there are several labels."""
    rows: dict[str, list[Row]] = {}
    for label in results.labels:
        columns = {
            name: interpretation.values(results.table, name, group=label)
            for name in results.table["dataset"].unique()
        }
        for metric in METRICS:
            found = {name: of[metric.name] for name, of in columns.items() if metric.name in of}
            if found:
                rows.setdefault(label, []).append(Row(metric, found))
    return rows


def _all_metrics(results: Results) -> dict[str, list[Row]]:
    """Category -> its metrics, of every dataset."""
    table = results.table[results.table["baseline"].notna()]
    of_datasets = {name: interpretation.values(table, name) for name in table["dataset"].unique()}
    categories: dict[str, list[Row]] = {}
    for metric in METRICS:
        values = {
            name: of_dataset[metric.name]
            for name, of_dataset in of_datasets.items()
            if metric.name in of_dataset
        }
        if values:
            categories.setdefault(metric.category, []).append(Row(metric, values))
    return categories


def _main_metrics(results: Results) -> list[Row]:
    rows = [row for rows in _all_metrics(results).values() for row in rows]
    return [row for row in rows if row.metric.name in MAIN]


def _by_dataset(results: Results, category: str) -> pd.DataFrame:
    """Rows of one category, one column per dataset."""
    rows = results.table[results.table["category"] == category]
    wide = rows.pivot(index="metric", columns="dataset", values="value")
    return wide.reindex(index=rows["metric"].unique(), columns=results.datasets)


def _privacy(results: Results, name: str) -> list[Row]:
    """The privacy metrics of a dataset, the baseline and copies."""
    columns = [name, BASELINE, *(control for control in results.controls if control == COPIES)]
    values = {column: interpretation.values(results.table, column) for column in columns}
    return [
        Row(metric, {column: of[metric.name] for column, of in values.items() if metric.name in of})
        for metric in METRICS
        if metric.category == PRIVACY and metric.name in values[name]
    ]


def _plots(results: Results, name: str, embedding: plots.Embedding, prefix: str) -> Iterator[Plot]:
    from markupsafe import Markup

    for panel in panels(results, name, embedding):
        svg = plots.svg(panel.figure, panel.alt, f"{prefix}-{panel.key}")
        yield Plot(panel.title, panel.caption, Markup(svg))
