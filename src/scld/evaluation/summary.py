"""The results as text for a terminal: what they mean, then every metric if asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from scld.evaluation import interpretation
from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE
from scld.evaluation.interpretation import values
from scld.evaluation.registry import METRICS
from scld.evaluation.results import Results

MOST_WARNINGS, MOST_TYPES = 3, 3
COPIES = "bootstrap"


def text(results: Results, full: bool) -> str:
    """A few lines about each dataset; with ``full`` the table of every metric, and the notes."""
    parts = ["\n".join(_about(results, name)) for name in results.datasets]
    if full:
        parts.append(_table(results))
    if results.notes:
        parts.append("\n".join(f"- {note}" for note in results.notes))
    return "\n\n".join(parts)


def _about(results: Results, name: str) -> Iterator[str]:
    """Verdict, words, warnings, worst types and privacy of one dataset."""
    table = results.table
    yield f"{name}: {interpretation.headline(table, name)}"
    words = [finding.word for finding in interpretation.findings(table, name)]
    counts = [f"{words.count(word)} {word}" for word in interpretation.WORDS if word in words]
    yield f"  Metrics: {', '.join(counts)}."
    about_genes = interpretation.gene_warnings(results.type_genes, name)
    for warning in [*interpretation.warnings(table, name), *about_genes][:MOST_WARNINGS]:
        yield f"  Warning: {warning}"
    worst = interpretation.worst_types(table, name, MOST_TYPES).to_dict("records")
    if worst:
        types = [f"{row['group']} {row['value']:.2f} ({row['baseline']:.2f})" for row in worst]
        yield f"  Types that differ most, {worst[0]['title']} (baseline): {', '.join(types)}."
    yield from _privacy(results, name)


def _privacy(results: Results, name: str) -> Iterator[str]:
    nearer, real, copies = (
        values(results.table, of).get("nearer_training", np.nan) for of in (name, BASELINE, COPIES)
    )
    if not np.isnan(nearer):
        of_copies = "" if np.isnan(copies) else f", copies: {copies:.0%}"
        seen = f"{nearer:.0%} of the cells are nearer to a training cell than to a test cell"
        yield f"  Privacy: {seen} (real cells: {real:.0%}{of_copies})."


def _table(results: Results) -> str:
    """The overall metrics, with baseline and controls."""
    from rich.console import Console
    from rich.table import Table

    columns = [*results.datasets, BASELINE, *results.controls]
    table = Table("", "better", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    for row in _rows(results, columns):
        table.add_row(*row)
    console = Console(width=60 + 14 * len(columns), color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip()


def _rows(results: Results, columns: Sequence[str]) -> Iterator[list[str]]:
    table = results.table
    rows = table[(table["group"] == OVERALL) & table["baseline"].notna()]
    wide = rows.pivot(index="metric", columns="dataset", values="value")
    for metric in (metric for metric in METRICS if metric.name in wide.index):
        numbers = wide.loc[[metric.name], columns].to_numpy(float)[0].tolist()
        texts = ["" if np.isnan(number) else f"{number:.4g}" for number in numbers]
        yield [metric.title, metric.direction, *texts]
