"""The plots: they show what was given, and change nothing outside the figure."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from scld.errors import SCLDError
from scld.evaluation import plots
from scld.evaluation.cells import Cells, View
from scld.evaluation.metrics.type_genes import TypeMoments
from scld.evaluation.plots.style import GREY, INK, TYPE_COLOURS, set_labels, subplots


def test_svg_takes_the_text_colour_of_the_page_and_keeps_text():
    figure, axes = subplots(1, 3, 2)
    set_labels(axes[0], "counts per cell")
    text = plots.svg(figure, 'a "quoted" alternative', "one")
    assert "currentColor" in text
    assert INK not in text
    assert ">counts per cell</text>" in text
    assert 'aria-label="a &quot;quoted&quot; alternative"' in text
    assert 'id="one-' in text


def test_drawing_leaves_matplotlib_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.svg(plots.by_type(["a", "b"], np.array([0.7, 0.6]), np.array([0.5, 0.5])), "alt", "two")
    assert dict(matplotlib.rcParams) == before


def test_by_type_has_the_largest_at_the_top():
    figure = plots.by_type(["mild", "worst", "good"], np.array([0.7, 0.9, 0.55]), np.full(3, 0.5))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["good", "mild", "worst"]


def test_genes_names_those_that_differ_most_in_detection():
    rng = np.random.default_rng(0)
    moments = {key: rng.random(50) for key in ("mean", "variance", "detection")}
    real = {f"{key}_real": values for key, values in moments.items()}
    table = pd.DataFrame({"gene": [f"g{i}" for i in range(50)], **real, **moments})
    table.loc[7, "detection"] += 0.5
    assert "g7" in [text.get_text() for text in plots.genes(table).axes[2].texts]


def test_names_of_genes_cover_neither_each_other_nor_the_frame():
    rng = np.random.default_rng(0)
    moments = {key: rng.random(50) for key in ("mean", "variance", "detection")}
    real = {f"{key}_real": values.copy() for key, values in moments.items()}
    table = pd.DataFrame({"gene": [f"ENSG0000000000{i}" for i in range(50)], **real, **moments})
    table.loc[:4, "detection_real"], table.loc[:4, "detection"] = 0.3, 0.5  # all at one place
    figure = plots.genes(table)
    FigureCanvasAgg(figure).draw()
    axis = figure.axes[2]
    boxes = [Text.get_window_extent(text) for text in axis.texts]  # without the lines
    assert len(boxes) == 5
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert all(axis.bbox.contains(*box.min) and axis.bbox.contains(*box.max) for box in boxes)


def test_nearest_shows_four_histograms():
    rng = np.random.default_rng(0)
    pairs = [(rng.random(200), rng.random(200)) for _ in range(2)]
    figure = plots.nearest(*pairs)
    tops = [patch.get_xy()[:, 1].max() for patch in figure.axes[0].patches]
    assert len(tops) == 4
    assert min(tops) > 0


@pytest.mark.parametrize("number", [2, 11, 40])
def test_each_type_has_a_symbol_of_its_own_and_its_name_covers_no_cell(number):
    rng, codes = np.random.default_rng(0), np.repeat(np.arange(number), 5)
    embedding = {name: (rng.random((len(codes), 2)), codes) for name in ("real", "ours")}
    figure = plots.umap(embedding, "ours", [f"type {i}" for i in range(number)])
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    symbols = [(line.get_color(), line.get_marker()) for line in legend.get_lines()]
    assert len(set(symbols)) == number
    assert [text.get_text() for text in legend.get_texts()] == [f"type {i}" for i in range(number)]
    box = legend.get_window_extent()
    assert not any(box.overlaps(axis.get_window_extent()) for axis in figure.axes)
    assert figure.bbox.padded(1).contains(*box.min)
    assert figure.bbox.padded(1).contains(*box.max)


def oklab(colours):
    """Björn Ottosson 2020, "A perceptual color space for image processing"."""
    import matplotlib.colors as mc

    rgb = np.array([mc.to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(linear @ np.transpose(cones)) @ np.transpose(lab)


def test_twenty_types_have_colours_that_differ_and_are_seen_on_light_and_dark_pages():
    """In scanpy's palette of twenty the two nearest colours are 0.05 apart."""
    shown = oklab([*TYPE_COLOURS, GREY, "#ffffff", "#1d2126"])
    assert len(TYPE_COLOURS) == 20
    distances = np.linalg.norm(shown[:, None] - shown, axis=2)
    assert distances[~np.eye(len(shown), dtype=bool)].min() > 0.1


def test_plots_of_cells_say_how_many_and_name_their_axes():
    points, codes = np.random.default_rng(0).random((1200, 2)), np.zeros(1200, int)
    figure = plots.umap({"real": (points, codes), "ours": (points, codes)}, "ours", ["B"])
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["real and synthetic cells", "real (1,200)", "synthetic (1,200)"]
    assert [axis.get_xlabel() for axis in figure.axes] == ["UMAP 1"] * 3
    assert figure.axes[0].get_ylabel() == "UMAP 2"


def test_marker_genes_are_those_detected_in_their_type_and_not_in_others():
    names = ["MT-CO1", "RPL3", "mt-Nd1", "everywhere", "rare", "good", "better"]
    share = np.array([[1, 1, 1, 1, 0.2, 0.6, 0.8], [0.1, 0, 0, 1, 0, 0, 0.1]])
    mean = np.array([[99, 99, 99, 9, 9, 9, 9], [1, 1, 1, 9, 0, 0, 1]], float)
    cells = np.array([100, 100])
    found = TypeMoments(cells, mean, mean, share * cells[:, None], mean[::-1])
    assert plots.marker_genes(found, names) == [[6, 5], []]
    assert plots.marker_genes(found, names, most=1) == [[6], []]


def test_dot_plots_have_one_row_per_type_with_its_cells_and_a_legend_of_sizes():
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(1.0, (30, 4)).astype(np.float32))
    cells = Cells.of_counts(counts, np.repeat([0, 1], [10, 20]))
    view = View(cells, np.ones((30, 2)), np.ones((30, 2)))
    shown = np.array([0, 2]), ["g0", "g2"], np.array([0, 1]), ["B", "T"]
    figure = plots.markers(view, view, *shown)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["B (10)", "T (20)"]
    assert [axis.get_title(loc="left") for axis in figure.axes[:2]] == [
        "real cells (30)",
        "synthetic cells (30)",
    ]
    sizes = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sizes == ["10%", "25%", "50%", "100%"]


def test_colours_differ_for_every_kind_of_colour_vision():
    """Machado et al. 2009: full deuteranopia, protanopia and tritanopia."""
    import matplotlib.colors as mc

    simulations = {
        "deuteranopia": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "protanopia": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "tritanopia": [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    }
    real, synthetic = (np.array(mc.to_rgb(colour)) for colour in (plots.REAL, plots.SYNTHETIC))
    for matrix in simulations.values():
        assert np.linalg.norm(np.array(matrix) @ (real - synthetic)) > 0.4


def pairs_table():
    rng = np.random.default_rng(0)
    means = rng.lognormal(1, 1.5, 60)
    table = pd.DataFrame({"gene": [f"g{i}" for i in range(60)], "type": "B", "identity": False})
    return table.assign(mean_real=means, mean=means, z=0.0, off="")


def test_type_means_names_the_genes_that_are_off():
    table = pairs_table()
    table.loc[7, ["mean", "z", "off"]] = [0.0, -9.0, "level"]
    table.loc[9, ["mean", "z", "off"]] = [99.0, 7.0, "level"]
    table.loc[3, ["z", "off"]] = [0.0, "spread"]
    figure = plots.type_means(pd.concat([table, table.assign(type="T", off="")]), ["B", "T"])
    first, second = figure.axes
    assert {text.get_text() for text in first.texts} == {"g7", "g9"}
    assert not second.texts
    FigureCanvasAgg(figure).draw()


def test_worst_genes_shows_two_halves_and_stands_constant_genes():
    rng = np.random.default_rng(0)
    violins = [
        plots.Violin("g1", "B", rng.random(50), rng.random(40)),
        plots.Violin("g2", "B", rng.random(50), np.zeros(40)),
    ]
    axis = plots.worst_genes(violins).axes[0]
    assert len(axis.collections) == 3  # a constant gene has lines only
    assert [label.get_text() for label in axis.get_xticklabels()] == ["g1\nB", "g2\nB"]


HOSTILE = ["$\\frac$", "$a$ and $b$", "50 % $", "_hidden", "\x1b[31mred", "B\u7ec6\u80de"]


def test_names_are_shown_as_they_are_and_not_as_formulas(tmp_path):
    values = np.linspace(0.5, 0.9, len(HOSTILE))
    text = plots.svg(plots.by_type(HOSTILE, values, values), "alt", "names")
    assert [name for name in HOSTILE[:4] if f">{name}</text>" not in text] == []
    codes, rng = np.repeat(np.arange(len(HOSTILE)), 5), np.random.default_rng(0)
    embedding = {name: (rng.random((len(codes), 2)), codes) for name in ("real", "ours")}
    figure = plots.umap(embedding, "ours", HOSTILE)
    assert [
        name for name in HOSTILE[:4] if f">{name}</text>" not in plots.svg(figure, "", "a")
    ] == []
    plots.save(figure, tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 1000


def test_without_a_folder_for_compiled_code_umap_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "umap.py").write_text("raise RuntimeError('cannot cache function')")
    monkeypatch.delitem(sys.modules, "umap", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    cells = Cells.of_counts(sp.csr_matrix(np.ones((3, 2), np.float32)), np.zeros(3, int))
    view = View(cells, np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(SCLDError, match="set NUMBA_CACHE_DIR"):
        plots.embed(view, {}, 10, seed=0)


def test_numbers_on_log_axes_are_plain():
    figure, (axis,) = subplots(1, 3, 3)
    axis.set(xscale="log", yscale="log", xlim=(0.01, 2000), ylim=(1, 10))
    text = plots.svg(figure, "alt", "log")
    assert "$" not in text
    assert ">1,000</text>" in text
    assert ">0.01</text>" in text
