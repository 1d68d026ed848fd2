"""Plots of genes within types: mean against mean, and the worst genes as violins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scld.evaluation.plots.style import (
    GREY,
    INK,
    REAL,
    SYNTHETIC,
    WIDTH,
    add_legend,
    name_in_corners,
    set_labels,
    shortened,
    subplots,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOWEST = 0.03  # counts per 10,000: lower means are drawn here, as a logarithm has no 0
NAMED = 4  # genes of a type that are named
COLUMNS = 4


@dataclass(frozen=True)
class Violin:
    """One gene in one type: counts per 10,000 of real and of synthetic cells."""

    gene: str
    cell_type: str
    real: np.ndarray
    synthetic: np.ndarray


def type_means(table: pd.DataFrame, types: Sequence[str]) -> Figure:
    """Real against synthetic mean of every gene, one panel per type.

    Parameters
    ----------
    table
        Rows of one dataset, see `Results.type_genes`.
    types
        The types to show, in order.
    """
    rows = -(-len(types) // COLUMNS)
    columns = min(COLUMNS, len(types))
    size: dict[str, Any] = {"sharex": True, "sharey": True, "rows": rows}
    figure, axes = subplots(columns, 0.6 + 2.25 * columns, 0.6 + 2.2 * rows, **size)
    means = table[["mean_real", "mean"]].to_numpy()
    limits = max(LOWEST, 0.6 * float(means.min())), 1.6 * float(means.max())
    for i, (axis, cell_type) in enumerate(zip(axes, types, strict=False)):
        _scatter(axis, table[table["type"] == cell_type], limits)
        last = i + columns >= len(types)
        axis.tick_params(labelbottom=last)
        x = "real, counts per 10,000" if last else ""
        y = "synthetic" if i % columns == 0 else ""
        set_labels(axis, x, y, shortened(cell_type, 30))
    for axis in axes[len(types) :]:
        axis.set_axis_off()
    symbols = axes[0].get_legend_handles_labels()  # of the first panel they would widen it
    style: dict[str, Any] = {"markerscale": 1.5, "handletextpad": 0.1, "ncols": 3}
    add_legend(figure, *symbols, loc="outside upper left", **style)
    return figure


def _scatter(axis: Axes, table: pd.DataFrame, limits: tuple[float, float]) -> None:
    style: dict[str, Any] = {"lw": 0, "rasterized": True}
    off = (table["off"] == "level").to_numpy()
    x, y = (np.maximum(table[key].to_numpy(), 1.05 * limits[0]) for key in ("mean_real", "mean"))
    axis.plot(limits, limits, color=INK, lw=0.8, alpha=0.6)
    axis.scatter(x[~off], y[~off], c=GREY, s=5, alpha=0.4, label="not off", **style)
    axis.scatter(x[off], y[off], c=SYNTHETIC, s=12, alpha=0.9, label="off", **style)
    own = table["identity"].to_numpy()
    ring: dict[str, Any] = {"facecolors": "none", "edgecolors": INK, "lw": 0.8}
    axis.scatter(x[own], y[own], s=26, label="identity gene", **ring)
    axis.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    axis.set_aspect("equal")
    _name_worst(axis, table[off])


def _name_worst(axis: Axes, table: pd.DataFrame) -> None:
    worst = table.iloc[np.argsort(-table["z"].abs().to_numpy(), kind="stable")[:NAMED]]
    low_x, low_y = axis.get_xlim()[0], axis.get_ylim()[0]
    x = np.maximum(worst["mean_real"].to_numpy(), low_x)
    y = np.maximum(worst["mean"].to_numpy(), low_y)
    name_in_corners(axis, list(worst["gene"]), x, y, step=0.09)


def worst_genes(violins: Sequence[Violin]) -> Figure:
    """Halves of violins: real cells on the left, synthetic ones on the right, with quantiles.

    Parameters
    ----------
    violins
        The pairs to show.
    """
    figure, (axis,) = subplots(1, min(WIDTH, 1.6 + 1.05 * max(len(violins), 3)), 4)
    for at, violin in enumerate(violins):
        _half(axis, violin.real, at, "low", REAL)
        _half(axis, violin.synthetic, at, "high", SYNTHETIC)
    names = [f"{shortened(one.gene, 15)}\n{_two_lines(one.cell_type)}" for one in violins]
    axis.set_xticks(range(len(violins)), names, fontsize=7)
    axis.set_xlim(-0.6, len(violins) - 0.4)
    top = max(float(max(one.real.max(), one.synthetic.max())) for one in violins)
    ticks = [0, *(10**k for k in range(5) if 10**k <= 1.2 * top)]
    axis.set_yticks(np.log1p(ticks), [f"{tick:,}" for tick in ticks])
    for colour, label in ((REAL, "real"), (SYNTHETIC, "synthetic")):
        axis.plot([], [], color=colour, lw=6, alpha=0.5, label=label)
    set_labels(axis, y="counts per 10,000")
    add_legend(axis, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def _two_lines(name: str) -> str:
    """A name as wide as a violin."""
    import textwrap

    return "\n".join(textwrap.wrap(name, 14, max_lines=2, placeholder="…"))


def _half(axis: Axes, values: np.ndarray, at: int, side: Any, colour: str) -> None:
    """Half a violin on a log(1 + x) axis, with lines at the 5, 50 and 95% quantiles."""
    shown = np.log1p(values)
    sign = -1 if side == "low" else 1
    if np.ptp(shown) > 0:  # the density of a constant is not defined
        parts = axis.violinplot(shown, [at], widths=0.85, showextrema=False, side=side)
        for body in parts["bodies"]:  # type: ignore[attr-defined]
            body.set(facecolor=colour, alpha=0.5, edgecolor=colour)
    for quantile, width in zip((0.05, 0.5, 0.95), (1.2, 2.6, 1.2), strict=True):
        y = float(np.log1p(np.quantile(values, quantile)))
        axis.plot([at + 0.04 * sign, at + 0.3 * sign], [y, y], color=colour, lw=width)
