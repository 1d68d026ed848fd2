"""Colours and axes of every plot; `svg` makes a figure fit light, dark and printed pages."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, Any

import numpy as np

from scld.errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REAL, SYNTHETIC, GREY = "#2b83c6", "#e2711d", "#8a8f98"  # safe for every kind of colour vision
INK = "#010203"  # a placeholder for the text colour of the page: see `svg`
TYPE_COLOURS = (  # matplotlib's tab10 without its grey, which is that of cells in the background
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#8c564b", "#9467bd", "#e377c2", "#bcbd22"),
    # from here each is the farthest from all before it and from grey (Glasbey et al. 2007, in the
    # OKLab colour space), of those that are seen on a light and on a dark page
    *("#17becf", "#196446", "#aa0078", "#463cd7", "#8caaff", "#8c7d05", "#41d796", "#8c14b4"),
    *("#ffa0a0", "#c864ff", "#6ed70a", "#f03282"),
)
SMALLEST = 0.8  # of a figure's width: below it text is too small, and the page scrolls instead
WIDTH = 9.6  # inches of a wide figure, so that it is seen as a whole on a page of 800 pixels


def svg(figure: Figure, alt: str, name: str) -> str:
    """A figure as inline SVG: text stays text and takes the colour of the page.

    Parameters
    ----------
    figure
        The figure.
    alt
        A text alternative.
    name
        Prefix of every id, so that several figures fit on one page.

    Examples
    --------
    >>> figure, _ = subplots(1, 2, 2)
    >>> svg(figure, "no data", "empty")[:30]
    '<svg role="img" aria-label="no'
    """
    import html

    import matplotlib

    buffer = io.StringIO()
    options: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
    }
    with matplotlib.rc_context(options):
        metadata = {"Date": None, "Creator": None}
        save(figure, buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(url\(#|href="#)', rf"\1{name}-", text)
    text = re.sub(r"font: ([^;]*?)'[^;]*;", r"font: \1 sans-serif;", text)
    text = _flexible_width(text)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)


def save(figure: Figure, target: Any, **options: Any) -> None:
    """Write a figure whose names are shown as they are: dollar signs begin no formula."""
    import matplotlib
    from matplotlib.text import Text

    for axis in (part for axes in figure.axes for part in (axes.xaxis, axes.yaxis)):
        _plain_numbers(axis)
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        # the browser has the letters that the font for measuring lacks
        warnings.filterwarnings("ignore", "Glyph .* missing|Matplotlib currently does not support")
        for text in figure.findobj(Text):
            text.set_parse_math(False)
            text.set_text(printable(text.get_text()))
        figure.savefig(target, **options)


def _plain_numbers(axis: Any) -> None:
    """Numbers in place of powers of ten, which matplotlib writes as formulas."""
    from matplotlib.ticker import LogFormatter, NullFormatter

    if isinstance(axis.get_major_formatter(), LogFormatter):
        axis.set_major_formatter("{x:,g}")
    if isinstance(axis.get_minor_formatter(), LogFormatter):
        axis.set_minor_formatter(NullFormatter())


def _flexible_width(text: str) -> str:
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text)
    if size is None:
        return text
    width = float(size.group(1))
    style = f'style="max-width: {width:.0f}pt; min-width: {SMALLEST * width:.0f}pt"'
    return text.replace(size.group(0), style)


def subplots(
    columns: int, width: float, height: float, rows: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with rows of axes; width and height in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(rows, columns, **options)).ravel())
    for axis in axes:
        _set_style(axis)
    return figure, axes


def _set_style(axis: Axes) -> None:
    axis.tick_params(colors=INK, labelsize=8, length=3)
    axis.patch.set_alpha(0)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
        spine.set_alpha(0.5)


def set_labels(axis: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Names of both axes, and a title."""
    axis.set_xlabel(x, fontsize=9, color=INK)
    axis.set_ylabel(y, fontsize=9, color=INK)
    axis.set_title(title, fontsize=10, color=INK, loc="left")


def add_legend(place: Axes | Figure, *symbols: Any, **options: Any) -> None:
    """A legend of opaque symbols; that of a figure needs handles and labels."""
    legend = place.legend(*symbols, fontsize=8, frameon=False, labelcolor=INK, **options)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)


def name_in_corners(
    axis: Axes, names: Sequence[str], x: np.ndarray, y: np.ndarray, step: float
) -> None:
    """Names of some points of a plot of synthetic against real values.

    They are in the empty corners, with lines to the points: beside these they would overlap.

    Parameters
    ----------
    axis
        The plot; its diagonal divides the points between the two corners.
    names, x, y
        The points.
    step
        Distance of two names, as a share of the height of the plot.
    """
    above = [i for i in np.argsort(-y, kind="stable") if y[i] > x[i]]  # the highest point first
    below = [i for i in np.argsort(y, kind="stable") if y[i] <= x[i]]
    for rank, i in enumerate(above):
        _name(axis, names[i], (x[i], y[i]), (0.02, 0.94 - rank * step), "left")
    for rank, i in enumerate(below):
        _name(axis, names[i], (x[i], y[i]), (0.98, 0.04 + rank * step), "right")


def _name(
    axis: Axes, name: str, point: tuple[float, float], at: tuple[float, float], side: Any
) -> None:
    line: dict[str, Any] = {"arrowstyle": "-", "lw": 0.5, "color": INK, "alpha": 0.5}
    text: dict[str, Any] = {"fontsize": 7.5, "color": INK, "ha": side, "va": "center"}
    axis.annotate(shortened(name), point, at, textcoords="axes fraction", arrowprops=line, **text)


def add_colourbar(
    figure: Figure, mappable: Any, axes: list[Axes], label: str, **options: Any
) -> None:
    """One colour bar for several axes."""
    bar = figure.colorbar(mappable, ax=axes, **options)
    bar.set_label(label, fontsize=8, color=INK)
    bar.ax.tick_params(colors=INK, labelsize=8)


def counted(text: str, cells: Sized) -> str:
    """A title with the number of cells.

    Examples
    --------
    >>> counted("real", range(1500))
    'real (1,500)'
    """
    return f"{text} ({len(cells):,})"


def shortened(text: str, most: int = 22) -> str:
    """A name of at most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
