"""Plots of synthetic and real cells, as PNG files.

    python benchmarks/pictures.py --output FOLDER [--data-dir DIR] [--datasets NAME ...]
        [--models MODELS]

Each dataset is split 70/30 within type (with the first of --seeds), and SCLD is fitted on the
training part, or loaded from --models, where `quality.py --models` has saved it. Real cells are
test cells. Files of each dataset:

    NAME-overview.png    real cells, synthetic cells, and cells conditioned on three types
    NAME-umap.png        one UMAP of real and synthetic cells, together and by type
    NAME-types.png       the same UMAP, one panel per type: real and synthetic cells of that type
    NAME-targeted.png    the same for cells conditioned on one type each
    NAME-KEY.png         the other plots of an HTML report: sizes, by_type, roc, nearest, genes,
                         markers, correlations
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
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
from matplotlib.figure import Figure
from PIL import Image

import scld
from scld.evaluation import plots
from scld.evaluation.cells import View
from scld.evaluation.figures import panels

SCLD, TARGETED = "SCLD", "targeted"
CELLS_PER_TYPE = 150  # that are conditioned on one type
MOST_EMBEDDED = 2000
LEAST_REAL = 30  # real cells of a type that can be one of the three
OTHERS = "#a0a6b0"  # grey of cells in the background
DOT = 8  # square points of a cell
WIDTH, DPI = 9, 170  # inches: where the docs show a picture, 10 points are about as high as text


def by_type(embedding: plots.Embedding, name: str, types: Sequence[str]) -> Figure:
    """One panel per type of one dataset: its cells, real ones of that type, all others in grey."""
    (real, real_codes), (synthetic, codes) = embedding["real"], embedding[name]
    present = np.unique(codes)
    columns = min(4, len(present))
    rows = -(-len(present) // columns)
    figure = Figure(figsize=(WIDTH, 2.3 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axis, code in zip(axes, present, strict=False):
        of_type = real_codes == code
        plots.add_mixed(axis, {"other real cells": (real[~of_type], OTHERS)}, size=5)
        points = {
            "real cells of the type": (real[of_type], plots.REAL),
            "synthetic cells of the type": (synthetic[codes == code], plots.SYNTHETIC),
        }
        plots.add_mixed(axis, points, size=5)
        numbers = f"{of_type.sum():,} real, {(codes == code).sum():,} synthetic"
        plots.set_umap_axes(axis, f"{types[code]}\n{numbers}")
        axis.title.set_fontsize(9)
    for axis in axes[len(present) :]:
        axis.set_visible(False)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


def overview(embedding: plots.Embedding, types: Sequence[str]) -> Figure:
    """Real cells, synthetic cells, and cells conditioned on three of the types."""
    (real, real_codes), (synthetic, codes) = embedding["real"], embedding[SCLD]
    targeted, targeted_codes = embedding[TARGETED]
    chosen = np.isin(targeted_codes, _farthest_types(real, real_codes))
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    plots.add_types(axes[0], real, real_codes, DOT)
    plots.add_types(axes[1], synthetic, codes, DOT)
    axes[2].scatter(*real.T, c=OTHERS, s=DOT, lw=0, alpha=0.5)
    plots.add_types(axes[2], targeted[chosen], targeted_codes[chosen], DOT)
    requested = plots.counted("synthetic cells of three\nrequested types", targeted[chosen])
    plots.set_umap_axes(axes[0], plots.counted("real test cells", real))
    plots.set_umap_axes(axes[1], plots.counted("synthetic cells", synthetic))
    plots.set_umap_axes(axes[2], f"{requested}; grey: real")
    plots.add_type_legend(figure, np.union1d(real_codes, codes), types)
    return figure


def _farthest_types(points: np.ndarray, codes: np.ndarray, number: int = 3) -> list[int]:
    """Types far from each other on the UMAP: the first with most cells, then the farthest.

    Of those with enough real cells to see where the synthetic ones should be.
    """
    present, cells = np.unique(codes, return_counts=True)
    enough = cells >= min(LEAST_REAL, int(np.sort(cells)[-number:].min()))
    present, cells = present[enough], cells[enough]
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
    found["types"] = by_type(embedding, SCLD, report.types)
    found["overview"] = overview(embedding, report.types)
    found["targeted"] = by_type(embedding, TARGETED, report.types)
    return found


def targeted_view(synth: scld.Synthesizer, report: scld.Report, seed: int) -> View:
    """Equally many cells of each type, in the space of the report."""
    table = pd.DataFrame({LABEL: np.repeat(report.types, CELLS_PER_TYPE)})
    cells = synth.sample(obs=table, seed=seed, progress=False)
    return report.evaluation.reference.view(as_cells(cells, report.types))


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of 256 colours: a third of the size, and no difference is seen."""
    drawn = io.BytesIO()
    plots.save(figure, drawn, format="png", dpi=DPI, facecolor="white")
    image = Image.open(drawn).convert("RGB")
    image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1).save(path, optimize=True)


def main() -> None:
    parser = arguments(__doc__, ["teaseq_pbmc"], seeds=[0], results=False)
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    given = begin(parser)
    given.output.mkdir(parents=True, exist_ok=True)
    for name in given.datasets:
        for key, figure in figures(name, given).items():
            path = given.output / f"{name}-{key}.png"
            save(figure, path)
            print(path, flush=True)


if __name__ == "__main__":
    main()
