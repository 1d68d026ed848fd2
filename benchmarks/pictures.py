"""Plots of synthetic cells beside real ones, as PNG files.

    python benchmarks/pictures.py --output FOLDER [--data-dir DIR] [--datasets NAME ...]
        [--models MODELS]

Each dataset is split 70/30 within type (with the first of --seeds), and SCLD is fitted on the
training part, or loaded from --models, where `quality.py --models` has saved it. Real cells are
test cells. Files of each dataset:

    NAME-overview.png    real cells, synthetic cells, and cells conditioned on three types
    NAME-umap.png        one UMAP of real and synthetic cells, together and by type
    NAME-types.png       the same UMAP, one panel per type: real and synthetic cells of that type
    NAME-targeted.png    cells conditioned on one type each, on the UMAP of the real cells
    NAME-markers.png     dot plots of marker genes, real and synthetic
    NAME-KEY.png         the other plots of an HTML report: sizes, by_type, roc, nearest, genes,
                         correlations
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from common import (
    LABEL,
    LABELS,
    arguments,
    as_cells,
    begin,
    evaluation_options,
    fitted,
    split_cells,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import scld
from scld.evaluation import plots
from scld.evaluation.cells import View
from scld.evaluation.figures import panels

SCLD, TARGETED = "SCLD", "targeted"
CELLS_PER_TYPE = 150  # that are conditioned on one type
MOST_EMBEDDED = 1500
Points = Mapping[str, tuple[np.ndarray, str]]  # name -> UMAP coordinates, colour


def grid(real: np.ndarray, types: Mapping[str, Points]) -> Figure:
    """One panel per type: all real cells in grey, and the cells of that type."""
    columns = min(4, len(types))
    rows = -(-len(types) // columns)
    figure = Figure(figsize=(3.2 * columns, 3 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axis, (name, points) in zip(axes, types.items(), strict=False):
        _panel(axis, real, name, points)
    for axis in axes[len(types) :]:
        axis.set_visible(False)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper right", ncols=3, frameon=False, markerscale=2)
    return figure


def _panel(axis: Axes, real: np.ndarray, name: str, points: Points) -> None:
    axis.scatter(*real.T, c=plots.GREY, s=3, lw=0, alpha=0.4, label="all real cells")
    for label, (coordinates, colour) in points.items():
        axis.scatter(*coordinates.T, c=colour, s=6, lw=0, alpha=0.7, label=label)
    axis.set_title(name, fontsize=10, loc="left")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_alpha(0.2)


def by_type(embedding: plots.Embedding, name: str, types: Sequence[str], with_real: bool) -> Figure:
    """Cells of one dataset by type, alone or with the real ones of that type."""
    (real, real_codes), (synthetic, codes) = embedding["real"], embedding[name]
    shown: dict[str, Points] = {}
    for code in np.unique(codes):
        of_real = {"real": (real[real_codes == code], plots.REAL)} if with_real else {}
        of_type = {"synthetic": (synthetic[codes == code], plots.SYNTHETIC)}
        shown[types[code]] = of_real | of_type
    return grid(real, shown)


def overview(embedding: plots.Embedding, types: Sequence[str]) -> Figure:
    """Real cells, synthetic cells, and cells conditioned on three of the types."""
    (real, real_codes), (synthetic, codes) = embedding["real"], embedding[SCLD]
    targeted, targeted_codes = embedding[TARGETED]
    figure = Figure(figsize=(13, 4), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    plots.add_types(axes[0], real, real_codes)
    plots.add_types(axes[1], synthetic, codes)
    chosen = np.isin(targeted_codes, _farthest_types(real, real_codes))
    axes[2].scatter(*real.T, c=plots.GREY, s=4, lw=0, alpha=0.3)
    plots.add_types(axes[2], targeted[chosen], targeted_codes[chosen])
    titles = ("real cells", "synthetic cells", "synthetic, conditioned on one type each")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=11, loc="left")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_alpha(0.2)
    plots.add_type_legend(figure, np.union1d(real_codes, codes), types)
    return figure


def _farthest_types(points: np.ndarray, codes: np.ndarray, number: int = 3) -> list[int]:
    """Types far from each other on the UMAP: the first with most cells, then the farthest."""
    present, cells = np.unique(codes, return_counts=True)
    centres = {int(code): points[codes == code].mean(axis=0) for code in present}
    chosen = [int(present[cells.argmax()])]
    while len(chosen) < min(number, len(centres)):
        distance = {
            code: min(float(np.linalg.norm(centre - centres[other])) for other in chosen)
            for code, centre in centres.items()
        }
        chosen.append(max(distance, key=lambda code: distance[code]))
    return chosen


def figures(name: str, given: argparse.Namespace) -> dict[str, Figure]:
    """Every plot of a dataset."""
    seed, labels = given.seeds[0], LABELS.get(name, [LABEL])
    train, test = split_cells(name, seed, given)
    synth = fitted(train, labels, seed, given, name)
    cells = synth.sample(obs=test.obs[labels], seed=seed, progress=False)
    options = evaluation_options(given) | {"controls": False, "replicates": 1, "seed": seed}
    report = scld.evaluate(train, test, {SCLD: cells}, LABEL, **options)
    views = {SCLD: report.view(SCLD), TARGETED: targeted_view(synth, report, seed + 1)}
    embedding = plots.embed(report.real, views, MOST_EMBEDDED, seed)
    found = {panel.key: panel.figure for panel in panels(report, SCLD, embedding)}
    found["types"] = by_type(embedding, SCLD, report.types, with_real=True)
    found["overview"] = overview(embedding, report.types)
    found["targeted"] = by_type(embedding, TARGETED, report.types, with_real=False)
    return found


def targeted_view(synth: scld.Synthesizer, report: scld.Report, seed: int) -> View:
    """Equally many cells of each type, in the space of the report."""
    table = pd.DataFrame({LABEL: np.repeat(report.types, CELLS_PER_TYPE)})
    cells = synth.sample(obs=table, seed=seed, progress=False)
    return report.evaluation.reference.view(as_cells(cells, report.types))


def main() -> None:
    parser = arguments(__doc__, ["teaseq_pbmc"], seeds=[0], results=False)
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    given = begin(parser)
    given.output.mkdir(parents=True, exist_ok=True)
    for name in given.datasets:
        for key, figure in figures(name, given).items():
            path = given.output / f"{name}-{key}.png"
            figure.savefig(path, dpi=150)
            print(path, flush=True)


if __name__ == "__main__":
    main()
