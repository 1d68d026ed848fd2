"""The pictures: what is drawn is what was given, and nothing outside the figure changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scld import plots


def test_svg_is_drawn_in_the_pages_ink_with_text_as_text():
    figure, axes = plots._panels(1, 3, 2)
    plots._name(axes[0], "counts per cell")
    text = plots.svg(figure, 'a "quoted" alternative', "one")
    assert "currentColor" in text
    assert plots.INK not in text
    assert ">counts per cell</text>" in text
    assert 'aria-label="a &quot;quoted&quot; alternative"' in text
    assert 'id="one-' in text


def test_drawing_leaves_matplotlib_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.svg(plots.by_type(["a", "b"], np.array([0.7, 0.6]), np.array([0.5, 0.5])), "alt", "two")
    assert dict(matplotlib.rcParams) == before


def test_by_type_puts_the_worst_at_the_top():
    figure = plots.by_type(["mild", "worst", "good"], np.array([0.7, 0.9, 0.55]), np.full(3, 0.5))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["good", "mild", "worst"]


def test_genes_names_those_furthest_off_in_detection():
    rng = np.random.default_rng(0)
    real = {f"{key}_real": rng.random(50) for key in ("mean", "variance", "detection")}
    table = pd.DataFrame({"gene": [f"g{i}" for i in range(50)], **real, **{key: real[f"{key}_real"] for key in ("mean", "variance", "detection")}})
    table.loc[7, "detection"] += 0.5
    assert "g7" in [text.get_text() for text in plots.genes(table).axes[2].texts]


def test_nearest_draws_every_distance_below_the_last_percent():
    rng = np.random.default_rng(0)
    pairs = [(rng.random(200), rng.random(200)) for _ in range(2)]
    figure = plots.nearest(*pairs)
    tops = [patch.get_xy()[:, 1].max() for patch in figure.axes[0].patches]
    assert len(tops) == 4
    assert min(tops) > 0


@pytest.mark.parametrize("gap", [0.0, 0.01])
def test_labels_are_spread_until_they_do_not_overlap(gap):
    places = np.array([[0.5, 0.5 + gap * i] for i in range(5)])
    spread = plots._spread(places, 1, 1)
    assert (np.diff(np.sort(spread[:, 1])) >= 0.045 - 1e-9).all()
    far = np.array([[0.0, 0.0], [0.9, 0.9]])
    np.testing.assert_array_equal(plots._spread(far, 1, 1), far)


def test_colours_of_real_and_synthetic_differ_for_every_kind_of_sight():
    """Machado et al. 2009, full deuteranopia, protanopia and tritanopia: still far apart."""
    import matplotlib.colors as mc

    sights = {
        "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    }
    real, fake = (np.array(mc.to_rgb(colour)) for colour in (plots.REAL, plots.FAKE))
    for matrix in sights.values():
        assert np.linalg.norm(np.array(matrix) @ (real - fake)) > 0.4
