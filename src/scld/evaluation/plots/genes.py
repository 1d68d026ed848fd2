"""Plots of genes: marker genes, moments of each gene, gene-gene correlations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scld.evaluation.cells import View
from scld.evaluation.metrics.genes import correlations, gene_moments
from scld.evaluation.plots.style import (
    INK,
    REAL,
    SYNTHETIC,
    add_colourbar,
    add_legend,
    set_labels,
    shortened,
    subplots,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def markers(
    real: View,
    synthetic: View,
    genes: np.ndarray,
    names: Sequence[str],
    codes: np.ndarray,
    types: Sequence[str],
) -> Figure:
    """Dot plots side by side: size is the share of cells with the gene, colour its mean.

    Parameters
    ----------
    real, synthetic
        Cells.
    genes, names
        Columns of the genes, in the order of types, and their names.
    codes, types
        Types to show, and the name of each code.
    """
    figure, axes = subplots(2, 11, max(1.6 + 0.24 * len(codes), 3.2), sharey=True)
    tables = [_dots(view, genes, codes) for view in (real, synthetic)]
    brightest = float(tables[0][1].max())
    x, y = np.meshgrid(np.arange(len(genes)), np.arange(len(codes)))
    for axis, (share, mean), title in zip(axes, tables, ("real", "synthetic"), strict=True):
        style: dict[str, Any] = {"cmap": "viridis", "lw": 0.4, "edgecolors": INK}
        dots = axis.scatter(x, y, s=70 * share, c=mean, vmin=0, vmax=brightest, **style)
        axis.set_xticks(range(len(genes)), list(names), rotation=90, fontsize=7)
        axis.set_yticks(range(len(codes)), [shortened(types[t]) for t in codes], fontsize=8)
        axis.set_ylim(len(codes) - 0.5, -0.5)
        set_labels(axis, title=title)
    add_colourbar(figure, dots, axes, "mean log-normalised value", shrink=0.8, pad=0.01)
    return figure


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
    figure, axes = subplots(3, 11, 3.8)
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
    style: dict[str, Any] = {"fontsize": 7, "color": INK, "textcoords": "offset points"}
    points = zip(worst["gene"], worst["detection_real"], worst["detection"], strict=True)
    for gene, x, y in points:
        axis.annotate(gene, (x, y), xytext=(4, -2), **style)


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
    figure, axes = subplots(2, 9.6, 4.4)
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
        axis.set_yticks(range(len(order)), labels, fontsize=4.5)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        set_labels(axis, title=f"{source} {shortened(cell_type)}")
    add_colourbar(figure, image, axes, "correlation", shrink=0.7, pad=0.02)
    return figure
