"""Plots of genes: marker genes, moments of each gene, gene-gene correlations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scld.evaluation.cells import View
from scld.evaluation.metrics.genes import correlations, gene_moments
from scld.evaluation.plots.style import (
    INK,
    REAL,
    SYNTHETIC,
    WIDTH,
    add_colourbar,
    add_legend,
    counted,
    name_in_corners,
    set_labels,
    shortened,
    subplots,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from scld.evaluation.metrics.type_genes import TypeMoments

LEAST_RATE, LEAST_EFFECT = 0.25, 1.0  # of a marker gene: detection rate, log2 fold change
_IN_EVERY_TYPE = re.compile("MT-|RP[LS]", re.IGNORECASE)
LARGEST_DOT = 75  # of the dot plots, in square points


def marker_genes(moments: TypeMoments, names: Sequence[str], most: int = 3) -> list[list[int]]:
    """Marker genes of each type: those whose detection rate is highest above that of other cells.

    Only genes that are detected in at least a quarter of the cells of the type and at least twice
    as abundant there as in all other cells. Mitochondrial and ribosomal genes (MT-, RPL, RPS) are
    left out: they are abundant in every type and follow the state of a cell.

    Parameters
    ----------
    moments
        Moments of the training cells.
    names
        Names of the genes.
    most
        Largest number of genes of a type. A type can have fewer, or none.

    Returns
    -------
    list of list of int
        Columns of the genes, one list per type.
    """
    left_out = np.array([_IN_EVERY_TYPE.match(name) is not None for name in names])
    cells, detected = moments.cells[:, None], moments.detected
    rate = detected / np.maximum(cells, 1)
    others = (detected.sum(axis=0) - detected) / np.maximum(cells.sum() - cells, 1)
    suitable = (rate >= LEAST_RATE) & (moments.effects >= LEAST_EFFECT) & ~left_out
    above = np.where(suitable, rate - others, -np.inf)
    ranked = np.argsort(-above, axis=1, kind="stable")[:, :most]
    return [
        [int(i) for i in genes if of_type[i] > -np.inf]
        for genes, of_type in zip(ranked, above, strict=True)
    ]


def markers(
    real: View,
    synthetic: View,
    genes: np.ndarray,
    names: Sequence[str],
    codes: np.ndarray,
    types: Sequence[str],
) -> Figure:
    """Dot plots one above the other: size is the share of cells with the gene, colour its mean.

    Parameters
    ----------
    real, synthetic
        Cells.
    genes, names
        Columns of the genes, in the order of types, and their names.
    codes, types
        Types to show, and the name of each code.
    """
    size: dict[str, Any] = {"rows": 2, "sharex": True}
    figure, axes = subplots(1, 9, 2.2 + 0.44 * max(len(codes), 4), **size)
    tables = [_dots(view, genes, codes) for view in (real, synthetic)]
    brightest = float(tables[0][1].max())
    x, y = np.meshgrid(np.arange(len(genes)), np.arange(len(codes)))
    sources = (("real", real), ("synthetic", synthetic))
    for axis, (share, mean), (title, view) in zip(axes, tables, sources, strict=True):
        style: dict[str, Any] = {"cmap": "viridis", "lw": 0.4, "edgecolors": INK}
        dots = axis.scatter(x, y, s=LARGEST_DOT * share, c=mean, vmin=0, vmax=brightest, **style)
        cells = view.cells.sizes(len(types))
        rows = [f"{shortened(types[code])} ({cells[code]:,})" for code in codes]
        axis.set_yticks(range(len(codes)), rows, fontsize=8.5)
        axis.set_ylim(len(codes) - 0.5, -0.5)
        set_labels(axis, title=counted(f"{title} cells", view))
    axes[1].set_xticks(range(len(genes)), list(names), rotation=90, fontsize=8.5)
    add_colourbar(figure, dots, axes, "mean log-normalised value", shrink=0.6, pad=0.01)
    _add_share_legend(figure)
    return figure


def _add_share_legend(figure: Figure) -> None:
    """What the sizes of the dots mean."""
    from matplotlib.lines import Line2D

    symbol: dict[str, Any] = {"ls": "", "marker": "o", "mfc": "none", "mec": INK, "mew": 0.6}
    shares = (0.1, 0.25, 0.5, 1)
    dots = [Line2D([], [], ms=(LARGEST_DOT * share) ** 0.5, **symbol) for share in shares]
    style: dict[str, Any] = {"fontsize": 8.5, "frameon": False, "labelcolor": INK, "ncols": 4}
    names = [f"{share:.0%}" for share in shares]
    title = "share of cells with the gene"
    legend = figure.legend(dots, names, loc="outside upper left", title=title, **style)
    legend.get_title().set(color=INK, fontsize=8.5)


def _dots(view: View, genes: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Detection rate and mean of each gene in each type ``[types, genes]``."""
    of_types = [gene_moments(view.cells.log[view.cells.codes == t][:, genes]) for t in codes]
    detection = np.stack([moments["detection"] for moments in of_types])
    return detection, np.stack([moments["mean"] for moments in of_types])


def genes(table: pd.DataFrame) -> Figure:
    """Every gene: variance against mean; mean and detection rate against the real ones.

    Parameters
    ----------
    table
        Rows of one dataset, see `Results.genes`.
    """
    figure, axes = subplots(3, WIDTH, 3.6)
    style: dict[str, Any] = {"s": 6, "lw": 0, "alpha": 0.35, "rasterized": True}
    axes[0].scatter(table["mean_real"], table["variance_real"], c=REAL, label="real", **style)
    axes[0].scatter(table["mean"], table["variance"], c=SYNTHETIC, label="synthetic", **style)
    add_legend(axes[0], loc="upper right", markerscale=2)
    set_labels(axes[0], "mean", "variance", "variance and mean")
    _against_real(axes[1], table, "mean", "mean of each gene", style)
    _against_real(axes[2], table, "detection", "detection rate of each gene", style)
    _name_worst(axes[2], table)
    return figure


def _against_real(
    axis: Axes, table: pd.DataFrame, key: str, title: str, style: dict[str, Any]
) -> None:
    real, synthetic = table[f"{key}_real"], table[key]
    axis.scatter(real, synthetic, c=SYNTHETIC, **style)
    top = float(max(real.max(), synthetic.max()))
    axis.plot([0, top], [0, top], color=INK, lw=0.8, alpha=0.6)
    set_labels(axis, "real", "synthetic", title)


def _name_worst(axis: Axes, table: pd.DataFrame) -> None:
    difference = (table["detection"] - table["detection_real"]).abs()
    worst = table.iloc[difference.argsort()[-5:]]
    x, y = (worst[key].to_numpy() for key in ("detection_real", "detection"))
    name_in_corners(axis, list(worst["gene"]), x, y, step=0.075)


def gene_correlations(
    real: np.ndarray, synthetic: np.ndarray, names: Sequence[str], cell_type: str
) -> Figure:
    """Gene-gene correlations within one type, genes clustered by those of the real cells.

    Parameters
    ----------
    real, synthetic
        ``[cells, genes]`` cells of the type.
    names
        Names of the genes.
    cell_type
        Name of the type.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage

    of_real, of_synthetic = correlations(real), correlations(synthetic)
    order = leaves_list(linkage(of_real, "average")).tolist()
    off_diagonal = np.abs(of_real[~np.eye(len(of_real), dtype=bool)])
    limit = float(np.clip(np.quantile(off_diagonal, 0.98), 0.1, 1))
    figure, axes = subplots(2, WIDTH, 4.8)
    for axis, matrix, source in [
        (axes[0], of_real, "real"),
        (axes[1], of_synthetic, "synthetic"),
    ]:
        shown = matrix[np.ix_(order, order)].copy()
        np.fill_diagonal(shown, np.nan)
        colours: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
        image = axis.imshow(shown, interpolation="nearest", **colours)
        axis.set_xticks([])
        labels = [names[i] for i in order] if source == "real" else [""] * len(order)
        axis.set_yticks(range(len(order)), labels, fontsize=6)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        set_labels(axis, title=f"{source} {shortened(cell_type)}")
    add_colourbar(figure, image, axes, "correlation", shrink=0.7, pad=0.02)
    return figure
