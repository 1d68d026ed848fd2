"""The pictures of a report, each a matplotlib Figure, and `svg`, which makes one fit a light page, a dark one and paper."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scld.judge import Curves, View
from scld.metrics.genes import correlations, gene_moments

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REAL, FAKE, GREY = "#2b83c6", "#e2711d", "#8a8f98"  # told apart by every kind of colour vision, and on light and dark paper
INK = "#010203"  # stands for the page's own text colour: see svg
TYPES = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bb5566", "#004488", "#ddaa33", "#999933", "#882255", "#44aa99")  # after Paul Tol
Places = Mapping[str, tuple[np.ndarray, np.ndarray]]  # set -> where its cells lie on the map, and their types
CLASSIFIERS = {"forest": "random forest, genes", "linear": "logistic regression, genes", "boosting": "boosting, components"}


def svg(figure: Figure, alt: str, name: str) -> str:
    """A figure as inline SVG: text stays text, ink takes the page's colour, ids are its own.

    Examples
    --------
    >>> figure, _ = _panels(1, 2, 2)
    >>> svg(figure, "nothing yet", "empty")[:30]
    '<svg role="img" aria-label="no'
    """
    import html

    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(url\(#|href="#)', rf"\1{name}-", text)
    text = re.sub(r"font: ([^;]*?)'[^;]*;", r"font: \1 sans-serif;", text)
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text)
    wide = float(size.group(1)) if size else 0  # shrunk by a fifth at most: below that the text is too small, and the page scrolls the picture instead
    text = text.replace(size.group(0), f'style="max-width: {wide:.0f}pt; min-width: {0.8 * wide:.0f}pt"') if size else text
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)


def _panels(columns: int, width: float, height: float, rows: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(width, height), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(rows, columns, **options)).ravel())
    for axis in axes:
        _plain(axis)
    return figure, axes


def _plain(axis: Axes) -> None:
    axis.tick_params(colors=INK, labelsize=8, length=3)
    axis.patch.set_alpha(0)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
        spine.set_alpha(0.5)


def _name(axis: Axes, x: str = "", y: str = "", title: str = "") -> None:
    axis.set_xlabel(x, fontsize=9, color=INK)
    axis.set_ylabel(y, fontsize=9, color=INK)
    axis.set_title(title, fontsize=10, color=INK, loc="left")


def _legend(axis: Axes, **options: Any) -> None:
    legend = axis.legend(fontsize=8, frameon=False, labelcolor=INK, **options)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)


def embed(real: View, sets: Mapping[str, View], most: int, seed: int) -> Places:
    """One UMAP of the real cells and of every set together, on the components fitted to the training cells: name -> (places, codes).

    Fitted jointly, since a cell unlike any real one must be free to land elsewhere; a map fitted to real cells alone would
    have to put it among them.
    """
    import warnings

    rng = np.random.default_rng(seed)
    chosen = {name: view[np.sort(rng.permutation(len(view.cells))[:most])] for name, view in {"real": real, **sets}.items()}
    cells = np.concatenate([view.components for view in chosen.values()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies; nothing a reader could act on
        from umap import UMAP

        places = UMAP(n_neighbors=min(15, len(cells) - 1), init="pca", random_state=seed, n_jobs=1).fit_transform(cells)
    ends = np.cumsum([len(view.cells) for view in chosen.values()])
    return {name: (part, view.cells.codes) for (name, view), part in zip(chosen.items(), np.split(places, ends[:-1]), strict=True)}


def umap(places: Places, name: str, types: Sequence[str]) -> Figure:
    """Real and synthetic cells on one map; then by type, real and synthetic apart."""
    (real, real_codes), (fake, fake_codes) = places["real"], places[name]
    figure, axes = _panels(3, 11, 4, sharex=True, sharey=True)
    both = np.concatenate([real, fake])
    colour = np.repeat([REAL, FAKE], [len(real), len(fake)])
    order = np.random.default_rng(0).permutation(len(both))  # neither set on top
    axes[0].scatter(both[order, 0], both[order, 1], c=colour[order], s=4, lw=0, alpha=0.6, rasterized=True)
    for label, shade in (("real", REAL), ("synthetic", FAKE)):
        axes[0].scatter([], [], c=shade, s=20, label=label)
    _legend(axes[0], loc="upper right")
    _name(axes[0], title="real and synthetic")
    for axis, points, codes, title in [(axes[1], real, real_codes, "real, by type"), (axes[2], fake, fake_codes, "synthetic, by type")]:
        axis.scatter(points[:, 0], points[:, 1], c=[TYPES[code % len(TYPES)] for code in codes], s=4, lw=0, alpha=0.7, rasterized=True)
        _name_types(axis, points, codes, types)
        _name(axis, title=title)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=True, color=INK, alpha=0.2)
    return figure


def _name_types(axis: Axes, points: np.ndarray, codes: np.ndarray, types: Sequence[str]) -> None:
    present = np.unique(codes) if len(types) > 1 else np.zeros(0, int)
    middles = np.array([np.median(points[codes == code], axis=0) for code in present]).reshape(-1, 2)
    for code, (x, y) in zip(present, _spread(middles, *np.ptp(points, axis=0)), strict=True):
        axis.text(x, y, _short(types[code]), fontsize=7.5, ha="center", va="center", color=INK, fontweight="bold")


def _spread(places: np.ndarray, width: float, height: float) -> np.ndarray:
    """Label places, from below, each moved up until it overlaps none placed before."""
    spread = places.copy()
    order = np.argsort(places[:, 1], kind="stable")
    for i, row in enumerate(order):
        for other in spread[order[:i]][np.argsort(spread[order[:i], 1])]:
            if abs(other[0] - spread[row, 0]) < 0.3 * width and abs(other[1] - spread[row, 1]) < 0.045 * height:
                spread[row, 1] = other[1] + 0.045 * height
    return spread


def _short(text: str, most: int = 22) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def markers(real: View, fake: View, genes: np.ndarray, names: Sequence[str], codes: np.ndarray, types: Sequence[str]) -> Figure:
    """Dot plots side by side: size is the share of cells with the gene, colour its mean. ``genes``: columns of all genes, in types' order."""
    height = 1.6 + 0.24 * len(codes)
    figure, axes = _panels(2, 11, max(height, 3.2), sharey=True)
    moments = [[gene_moments(view.cells.log[view.cells.codes == t][:, genes]) for t in codes] for view in (real, fake)]
    brightest = max(float(moment["mean"].max()) for moment in moments[0])
    x, y = np.meshgrid(np.arange(len(genes)), np.arange(len(codes)))
    for axis, of_types, title in zip(axes, moments, ("real", "synthetic"), strict=True):
        share, mean = (np.stack([moment[key] for moment in of_types]) for key in ("detection", "mean"))
        dots = axis.scatter(x, y, s=70 * share, c=mean, cmap="viridis", vmin=0, vmax=brightest, lw=0.4, edgecolors=INK)
        axis.set_xticks(range(len(genes)), list(names), rotation=90, fontsize=7)
        axis.set_yticks(range(len(codes)), [_short(types[t]) for t in codes], fontsize=8)
        axis.set_ylim(len(codes) - 0.5, -0.5)
        _name(axis, title=title)
    bar = figure.colorbar(dots, ax=axes, shrink=0.8, pad=0.01)
    bar.set_label("mean log-normalised value", fontsize=8, color=INK)
    bar.ax.tick_params(colors=INK, labelsize=8)
    return figure


def genes(table: pd.DataFrame) -> Figure:
    """Gene by gene: mean against variance, and means and detection rates against the real ones. ``table``: see `Report.genes`."""
    figure, axes = _panels(3, 11, 3.8)
    style: dict[str, Any] = {"s": 6, "lw": 0, "alpha": 0.35, "rasterized": True}
    axes[0].scatter(table["mean_real"], table["variance_real"], c=REAL, label="real", **style)
    axes[0].scatter(table["mean"], table["variance"], c=FAKE, label="synthetic", **style)
    _legend(axes[0], loc="upper right", markerscale=2)
    _name(axes[0], "mean", "variance", "variance at each mean")
    for axis, key, title in [(axes[1], "mean", "mean of each gene"), (axes[2], "detection", "share of cells with each gene")]:
        axis.scatter(table[f"{key}_real"], table[key], c=FAKE, **style)
        top = float(max(table[f"{key}_real"].max(), table[key].max()))
        axis.plot([0, top], [0, top], color=INK, lw=0.8, alpha=0.6)
        _name(axis, "real", "synthetic", title)
    worst = table.iloc[(table["detection"] - table["detection_real"]).abs().argsort()[-5:]]
    for gene, x, y in zip(worst["gene"], worst["detection_real"], worst["detection"], strict=True):
        axes[2].annotate(gene, (x, y), fontsize=7, color=INK, xytext=(4, -2), textcoords="offset points")
    return figure


def sizes(real: View, fake: View) -> Figure:
    """Library size and genes per cell, on a log scale; the library only where both sets have counts."""
    from matplotlib.ticker import LogLocator, NullFormatter

    pairs = [("genes per cell", real.cells.detected, fake.cells.detected)]
    if real.cells.library is not None and fake.cells.library is not None:
        pairs.insert(0, ("counts per cell", real.cells.library, fake.cells.library))
    figure, axes = _panels(len(pairs), 4.6 * len(pairs), 3)
    for axis, (title, x, y) in zip(axes, pairs, strict=True):
        edges = np.geomspace(max(1, min(x.min(), y.min())), max(x.max(), y.max()) * 1.001, 45).tolist()
        axis.hist(x, edges, color=REAL, alpha=0.35, label="real")
        axis.hist(x, edges, color=REAL, histtype="step", lw=1.2)
        axis.hist(y, edges, color=FAKE, histtype="step", lw=2, label="synthetic")
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        _name(axis, title, "cells")
        _legend(axis)
    return figure


def gene_correlations(real: np.ndarray, fake: np.ndarray, names: Sequence[str], kind: str) -> Figure:
    """Gene-gene correlations within one type (``kind``), genes in the order of a clustering of the real ones. Arrays: ``[cells, genes]``."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    a, b = correlations(real), correlations(fake)
    order = leaves_list(linkage(a, "average")).tolist()
    figure, axes = _panels(2, 9.6, 4.4)
    limit = float(np.clip(np.quantile(np.abs(a[~np.eye(len(a), dtype=bool)]), 0.98), 0.1, 1))
    for axis, matrix, title in [(axes[0], a, f"real {_short(kind)}"), (axes[1], b, f"synthetic {_short(kind)}")]:
        shown = matrix[np.ix_(order, order)].copy()
        np.fill_diagonal(shown, np.nan)
        image = axis.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks(range(len(order)), [names[i] for i in order] if axis is axes[0] else [""] * len(order), fontsize=4.5)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        _name(axis, title=title)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02)
    bar.set_label("correlation", fontsize=8, color=INK)
    bar.ax.tick_params(colors=INK, labelsize=8)
    return figure


def roc(curves: Curves, floor: Curves) -> Figure:
    """ROC curves of the three classifiers on synthetic cells, and of the same on real cells."""
    from sklearn.metrics import roc_curve

    figure, axes = _panels(1, 4.4, 4)
    for (name, title), line in zip(CLASSIFIERS.items(), ("-", "--", ":"), strict=True):
        for source, colour, who in [(curves, FAKE, "synthetic"), (floor, REAL, "real")]:
            of_real, of_fake = source[name]
            x, y, _ = roc_curve(np.repeat([0, 1], [len(of_real), len(of_fake)]), np.concatenate([of_real, of_fake]))
            axes[0].plot(x, y, line, color=colour, lw=1.6, label=f"{who}: {title}")
    axes[0].plot([0, 1], [0, 1], color=INK, lw=0.8, alpha=0.5)
    axes[0].set_aspect("equal")
    _name(axes[0], "real cells called synthetic", "synthetic cells called synthetic")
    _legend(axes[0], loc="lower right", handlelength=2.6)
    return figure


def nearest(fake: tuple[np.ndarray, np.ndarray], floor: tuple[np.ndarray, np.ndarray]) -> Figure:
    """Distances to the nearest training cell and to the nearest held-out cell, of synthetic cells and of real ones."""
    figure, axes = _panels(1, 5.2, 3.4)
    everything = np.concatenate([*fake, *floor])
    edges = np.linspace(0, float(np.quantile(everything, 0.99)), 50).tolist()
    for (to_train, to_held_out), colour, who in [(floor, REAL, "real"), (fake, FAKE, "synthetic")]:
        axes[0].hist(to_train, edges, histtype="step", color=colour, lw=1.8, label=f"{who}, to training cells")
        axes[0].hist(to_held_out, edges, histtype="step", color=colour, lw=1.2, ls="--", label=f"{who}, to held-out cells")
    _name(axes[0], "distance to the nearest, in 30 components", "cells")
    _legend(axes[0], loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def by_type(names: Sequence[str], value: np.ndarray, floor: np.ndarray) -> Figure:
    """C2ST AUC of each type beside its floor, worst at the top."""
    figure, axes = _panels(1, 5.6, 1.1 + 0.26 * len(names))
    order = np.argsort(value)
    rows = np.arange(len(order))
    axes[0].hlines(rows, floor[order], value[order], color=GREY, lw=2)
    axes[0].scatter(floor[order], rows, c=REAL, s=36, label="real (floor)", zorder=3)
    axes[0].scatter(value[order], rows, c=FAKE, s=36, marker="D", label="synthetic", zorder=3)
    axes[0].axvline(0.5, color=INK, lw=0.8, alpha=0.5)
    axes[0].set_yticks(rows, [_short(names[i]) for i in order], fontsize=8)
    axes[0].set_xlim(min(0.4, float(floor.min()) - 0.02), 1.01)
    _name(axes[0], "C2ST AUC, worst of three classifiers")
    _legend(axes[0], loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure
