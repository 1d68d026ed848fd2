"""Plots of cells: UMAP, cell sizes, distances to the nearest real cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scld.errors import SCLDError
from scld.evaluation.cells import View
from scld.evaluation.plots.style import (
    INK,
    REAL,
    SYNTHETIC,
    TYPE_COLOURS,
    WIDTH,
    add_legend,
    counted,
    set_labels,
    shortened,
    subplots,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Mapping[str, tuple[np.ndarray, str]]  # name -> UMAP of its cells, colour
Embedding = Mapping[str, tuple[np.ndarray, np.ndarray]]  # dataset -> UMAP of its cells, their codes
Distances = tuple[np.ndarray, np.ndarray]  # to the nearest training cell, to the nearest held-out
MIN_DIST = 0.5  # of UMAP, as in scanpy: at 0.1 clusters are small dots in an empty plot


def embed(real: View, datasets: Mapping[str, View], most: int, seed: int) -> Embedding:
    """One UMAP of real cells and every dataset together, on the components of the training cells.

    It is fitted jointly, so that a cell unlike any real one can be placed elsewhere; a UMAP fitted
    to real cells alone would place it among them.

    Parameters
    ----------
    real, datasets
        Cells.
    most
        Largest number of cells of each.
    seed
        Seed of the sample and of UMAP.
    """
    import warnings

    rng = np.random.default_rng(seed)
    chosen = {
        name: view[np.sort(rng.permutation(len(view))[:most])]
        for name, view in {"real": real, **datasets}.items()
    }
    cells = np.concatenate([view.components for view in chosen.values()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of UMAP's dependencies; nothing a user could act on
        UMAP = _umap_class()
        neighbours = min(15, len(cells) - 1)
        options: dict[str, Any] = {"min_dist": MIN_DIST, "init": "pca"}
        fitted = UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1, **options)
        points = fitted.fit_transform(cells)
    ends = np.cumsum([len(view) for view in chosen.values()])
    parts = zip(chosen.items(), np.split(points, ends[:-1]), strict=True)
    return {name: (part, view.cells.codes) for (name, view), part in parts}


def _umap_class() -> Any:
    try:
        from umap import UMAP
    except RuntimeError as error:  # of numba, where neither its package nor home can be written
        advice = "set NUMBA_CACHE_DIR to a folder that can be written"
        raise SCLDError(f"UMAP: no folder for its compiled code; {advice}; {error}") from error
    return UMAP


def umap(embedding: Embedding, name: str, types: Sequence[str]) -> Figure:
    """Real and synthetic cells on one UMAP; then each of them by type."""
    (real, real_codes), (synthetic, synthetic_codes) = embedding["real"], embedding[name]
    rows = -(-len(types) // _legend_columns(types, WIDTH)) if len(types) > 1 else 0
    figure, axes = subplots(3, WIDTH, 3.6 + 0.2 * rows, sharex=True, sharey=True)
    _both(axes[0], real, synthetic)
    add_types(axes[1], real, real_codes)
    add_types(axes[2], synthetic, synthetic_codes)
    by_type = ", by type" if len(types) > 1 else ""
    titles = ("real and synthetic cells", counted(f"real{by_type}", real))
    for axis, title in zip(axes, (*titles, counted(f"synthetic{by_type}", synthetic)), strict=True):
        set_umap_axes(axis, title)
    if len(types) > 1:
        add_type_legend(figure, np.union1d(real_codes, synthetic_codes), types)
    return figure


def set_umap_axes(axis: Axes, title: str = "") -> None:
    """Names of the axes of a UMAP; no numbers, as they mean nothing."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(visible=True, color=INK, alpha=0.2)
    place: Any = axis.get_subplotspec()
    x, y = "UMAP 1" * place.is_last_row(), "UMAP 2" * place.is_first_col()
    set_labels(axis, x, y, title)


def _both(axis: Axes, real: np.ndarray, synthetic: np.ndarray) -> None:
    points = {"real": (real, REAL), "synthetic": (synthetic, SYNTHETIC)}
    add_mixed(axis, points)
    axis.margins(y=0.12)  # room for the legend
    add_legend(axis, loc="upper right", ncols=2, borderpad=0, columnspacing=1)


def add_mixed(axis: Axes, points: Points, size: float | None = None) -> None:
    """Cells of several colours in random order, so that none of the colours covers the others."""
    of_all = np.concatenate([of_one for of_one, _ in points.values()])
    numbers = [len(of_one) for of_one, _ in points.values()]
    colours = np.repeat([colour for _, colour in points.values()], numbers)
    order = np.random.default_rng(0).permutation(len(of_all))
    style: dict[str, Any] = {"lw": 0, "alpha": 0.7, "rasterized": True}
    (x, y), size = of_all[order].T, size or dot_size(len(of_all))
    axis.scatter(x, y, s=size, c=colours[order], **style)
    for label, (_, colour) in points.items():
        axis.scatter([], [], c=colour, s=20, label=label)


def add_types(axis: Axes, points: np.ndarray, codes: np.ndarray, size: float | None = None) -> None:
    """Points ``[cells, 2]`` in the colours of their types ``[cells]``, in random order."""
    size = size or dot_size(len(points))
    style: dict[str, Any] = {"s": size, "lw": 0, "alpha": 0.8, "rasterized": True}
    order = np.random.default_rng(0).permutation(len(points))
    symbols = [_symbol(code) for code in codes[order]]
    for marker in dict.fromkeys(symbol["marker"] for symbol in symbols):
        chosen = [i for i, symbol in enumerate(symbols) if symbol["marker"] == marker]
        colours = [symbols[i]["color"] for i in chosen]
        x, y = points[order[chosen]].T
        axis.scatter(x, y, c=colours, marker=marker, **style)


def dot_size(cells: int) -> float:
    """Area of the dot of a cell: the fewer cells, the larger."""
    return float(np.clip(8000 / max(cells, 1), 4, 16))


def add_type_legend(figure: Figure, codes: np.ndarray, types: Sequence[str]) -> None:
    """The names of these types, below the plots: on them they would cover cells."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], ls="", ms=6, **_symbol(code)) for code in codes]
    names = [shortened(types[code]) for code in codes]
    style: dict[str, Any] = {"fontsize": 9, "frameon": False, "labelcolor": INK}
    style |= {"handletextpad": 0.1, "columnspacing": 1}
    columns = _legend_columns(names, figure.get_figwidth())
    figure.legend(handles, names, loc="outside lower center", ncols=columns, **style)


def _legend_columns(names: Sequence[str], width: float) -> int:
    """As many columns as fit, of the width of the longest name; in inches, at 9 points."""
    longest = max(len(shortened(name)) for name in names)
    return max(1, min(len(names), int(width / (0.35 + 0.08 * longest))))


def _symbol(code: int) -> dict[str, Any]:
    """Colour and marker of a type; beyond the colours, the marker changes."""
    cycle, colour = divmod(int(code), len(TYPE_COLOURS))
    return {"color": TYPE_COLOURS[colour], "marker": "o^sDv"[cycle % 5]}


def sizes(real: View, synthetic: View) -> Figure:
    """Library size and genes per cell, on a log scale; library size only if both have counts."""
    pairs = [("genes per cell", real.cells.detected, synthetic.cells.detected)]
    if real.cells.library is not None and synthetic.cells.library is not None:
        pairs.insert(0, ("counts per cell", real.cells.library, synthetic.cells.library))
    figure, axes = subplots(len(pairs), 4.6 * len(pairs), 3)
    for axis, (title, of_real, of_synthetic) in zip(axes, pairs, strict=True):
        _two_histograms(axis, of_real, of_synthetic)
        set_labels(axis, title, "cells")
        add_legend(axis)
    return figure


def _two_histograms(axis: Axes, real: np.ndarray, synthetic: np.ndarray) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = min(real.min(), synthetic.min()), max(real.max(), synthetic.max())
    edges = np.geomspace(max(1, low), high * 1.001, 45).tolist()
    axis.hist(real, edges, color=REAL, alpha=0.35, label="real")
    axis.hist(real, edges, color=REAL, histtype="step", lw=1.2)
    axis.hist(synthetic, edges, color=SYNTHETIC, histtype="step", lw=2, label="synthetic")
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def nearest(synthetic: Distances, baseline: Distances) -> Figure:
    """Distances to the nearest training and held-out cell, of synthetic and of real cells."""
    figure, (axis,) = subplots(1, 4.4, 3.8)
    largest = float(np.quantile(np.concatenate([*synthetic, *baseline]), 0.99))
    edges = np.linspace(0, largest, 50).tolist()
    for distances, colour, name in [
        (baseline, REAL, "real"),
        (synthetic, SYNTHETIC, "synthetic"),
    ]:
        to_training, to_held_out = distances
        style: dict[str, Any] = {"histtype": "step", "color": colour}
        axis.hist(to_training, edges, lw=1.8, label=f"{name}, to training cells", **style)
        axis.hist(to_held_out, edges, lw=1.2, ls="--", label=f"{name}, to held-out cells", **style)
    set_labels(axis, "distance to the nearest cell, in 30 components", "cells")
    add_legend(axis, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure
