"""`evaluate` scores synthetic cells from any tool; `Report` holds the metrics and writes them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from scld.errors import RequestError, listed, nearest
from scld.evaluation import protocol, summary
from scld.evaluation.inputs import Inputs
from scld.evaluation.options import (
    Genes,
    Options,
    about,
    checked_costs,
    label_names,
    log_normalised_names,
    named_datasets,
)
from scld.evaluation.results import Results
from scld.evaluation.table import tabulate
from scld.io.atomic import atomic_write
from scld.io.text import records, write_csv, write_json, write_text
from scld.progress import progress_bars

if TYPE_CHECKING:
    from anndata import AnnData

    from scld.evaluation import plots

MOST_EMBEDDED = 1500  # cells of a dataset on the UMAP


def evaluate(
    train: AnnData | str | os.PathLike[str],
    test: AnnData | str | os.PathLike[str] | None,
    synthetic: AnnData | str | os.PathLike[str] | Mapping[str, AnnData | str | os.PathLike[str]],
    label: str | Sequence[str] | None = None,
    *,
    donor: str | None = None,
    layer: str | None = None,
    log_normalised: bool | Sequence[str] = False,
    genes: Genes = "same",
    costs: Mapping[str, Mapping[str, float]] | None = None,
    controls: bool = True,
    max_cells: int = 2000,
    replicates: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> Report:
    """Score synthetic cells, from any tool, compared with real cells and negative controls.

    Parameters
    ----------
    train
        The real cells that the synthetic cells were generated from: raw counts, an AnnData,
        ``.h5ad`` or ``.zarr``.
    test
        Real cells that no tool was given. None: half of ``train`` is used in their place, and
        metrics that need test cells are left out.
    synthetic
        One dataset, or several by name.
    label
        The obs column of cell types, in every dataset. None: only overall metrics. Several columns:
        each combination of their categories is scored as a type, and label accuracy and "train on
        synthetic" of each label as well. Overall, a cell is right if all of its labels are.
    donor
        The obs column of donors in ``train`` and ``test``, for membership inference by donor.
    layer
        The layer of raw counts, or ``"raw"`` for ``adata.raw``; ``X`` if None, and for synthetic
        datasets without that layer, with a note.
    log_normalised
        True, or the names of the synthetic datasets whose matrix is log(1 + counts per 10,000)
        instead of counts. Metrics that need counts are left out for them.
    genes
        If gene names differ: ``"same"`` raises an error, ``"intersection"`` scores shared genes.
    costs
        What generating each dataset cost, to be shown with its metrics:
        ``{"name": {"seconds": 12, "peak_memory_mb": 900, "network_evaluations": 35}}``.
    controls
        Whether to score the negative controls, which give each metric a scale.
    max_cells
        Largest number of cells of each dataset in one comparison.
    replicates
        Number of random splits of the test cells to average over.
    seed
        Same seed, same values.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Report
        `Report.table`, `Report.worst_genes`, `Report.summary`, `Report.to_json`,
        `Report.to_html`, `Report.to_png`.

    Raises
    ------
    DataError
        Cells that cannot be compared: a missing label, other genes, fewer than 50 cells, no type
        in common, another normalisation.
    RequestError
        An argument out of range.

    Examples
    --------
    >>> import scld
    >>> cells = scld.datasets.pbmc()
    >>> train, test = cells[::2], cells[1::2]
    >>> quick = {"replicates": 1, "max_cells": 100, "controls": False, "progress": False}
    >>> report = scld.evaluate(train, test, {"mine": test}, **quick)
    >>> report.value("mine", "exact_copies")
    0.0
    """
    labels = label_names(label)
    options = Options(labels, donor, layer, genes, controls, max_cells, replicates, seed)
    datasets = named_datasets(synthetic)
    logs = log_normalised_names(log_normalised, list(datasets))
    checked = checked_costs(costs, list(datasets))
    inputs = Inputs.of(train, test, datasets, logs, options)
    with _progress(progress, protocol.steps(len(datasets), replicates, controls)) as step:
        evaluation = protocol.run(
            inputs.train,
            inputs.test,
            inputs.synthetic,
            types=len(inputs.types),
            label_codes=inputs.label_codes,
            held_out=test is not None,
            max_cells=max_cells,
            replicates=replicates,
            controls=controls,
            seed=seed,
            step=step,
        )
    for name, scores in inputs.scores.items():
        evaluation.add(name, scores)
    table = tabulate(evaluation.scores, inputs.types, list(datasets), inputs.validity, checked)
    return Report(
        table=table,
        notes=inputs.notes,
        labels=labels,
        types=inputs.types,
        gene_names=inputs.genes,
        evaluation=evaluation,
        seed=seed,
        about=about(options, {"train": train, "test": test, **datasets}, inputs.sizes),
    )


@contextmanager
def _progress(enabled: bool, steps: int) -> Iterator[Callable[[str], None]]:
    """One bar; the yielded function names the step that begins."""
    with progress_bars(enabled) as bar:
        update, done = bar("evaluate", steps), -1

        def step(text: str) -> None:
            nonlocal done
            done += 1
            update(done, text)

        yield step
        update(steps, "")


class Report(Results):
    """The results of `evaluate`.

    Attributes
    ----------
    table
        One row per dataset, group and metric. ``dataset``: a synthetic dataset, ``baseline``
        (real cells), ``poisson``, ``shuffle`` or ``bootstrap``. ``group``: ``overall``, a cell
        type, or one of several labels. ``value``: mean over replicates; ``sd``, ``lower``,
        ``upper``: standard deviation, smallest and largest. ``baseline``, ``baseline_sd``: the same
        of real cells. ``better``: lower, higher, or target (nearest to ``ideal``). ``position``: 0
        at the baseline, 1 at the worst negative control; ``position_low``, ``position_high``: its
        interval.
    notes
        What was left out and why, one sentence each.
    worst_genes
        The genes that are furthest off, with their type: `Results.worst_genes`. Every gene in
        each type is in ``type_genes``, every gene over all cells in ``genes``.
    """

    @cached_property
    def embedding(self) -> plots.Embedding:
        """One UMAP of real cells and the datasets with plots: name -> (coordinates, codes)."""
        from scld.evaluation import plots

        views = {name: self.view(name) for name in self.plotted}
        return plots.embed(self.real, views, MOST_EMBEDDED, self.seed)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Table, notes and worst genes as JSON, also written to ``path`` if one is given."""
        values = {
            "about": self.about,
            "labels": self.labels,
            "seed": self.seed,
            "genes": len(self.gene_names),
            "notes": self.notes,
            "metrics": records(self.table),
            "worst_genes": json.loads(self.worst_genes.to_json(orient="records")),
        }
        return write_json(path, values)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write a page: summary, plots, cell types, privacy, all metrics. One file, offline."""
        from scld.evaluation import html

        write_text(Path(path), html.render(self, self.embedding))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table."""
        write_csv(Path(path), self.table)

    def to_png(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        """Write one UMAP of real and synthetic cells, of the first dataset or of the one named."""
        from scld.evaluation import plots

        name = name or self.datasets[0]
        if name not in self.plotted:
            known = f"datasets with a plot: {listed(self.plotted)}{nearest(name, self.plotted)}"
            raise RequestError(f"name: {name!r} has no plot; {known}")
        with atomic_write(Path(path)) as temporary:
            plots.save(plots.umap(self.embedding, name, self.types), temporary, dpi=150)

    def summary(self, *, full: bool = False) -> str:
        """What the results mean, in a few lines; with ``full`` every overall metric as a table."""
        return summary.text(self, full)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        metrics, groups = self.table["metric"].nunique(), self.table["group"].nunique()
        return f"Report({', '.join(self.datasets)}: {metrics} metrics, {groups} groups)"

    def _repr_html_(self) -> str:
        """Summary and overall metrics, for a notebook."""
        from html import escape

        from scld.evaluation.cells import OVERALL
        from scld.evaluation.controls import BASELINE

        rows = self.table[self.table["group"] == OVERALL]
        columns = [*self.datasets, BASELINE, *self.controls]
        wide = rows.pivot(index="metric", columns="dataset", values="value")
        table = wide.loc[rows["metric"].unique()].reindex(columns=columns)
        numbers = table.rename_axis(index=None, columns=None).to_html(
            float_format="{:.4g}".format, na_rep="", border=0
        )
        about = f'<pre style="white-space: pre-wrap">{escape(self.summary())}</pre>'
        save = "<p>Next: <code>report.to_html(&quot;report.html&quot;)</code></p>"
        return f"{about}<details><summary>Overall metrics</summary>{numbers}</details>{save}"
