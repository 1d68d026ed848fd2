"""The HTML report: one file that loads nothing, escapes names, and describes its plots."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from simulated import NO_CONTROLS, QUICK
from test_inputs import PathOf

import scld


def tags_of(text):
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append((tag, dict(attrs)))
    parser.feed(text)
    return tags


@pytest.fixture(scope="module")
def page(train, test, fresh, tmp_path_factory):
    found = scld.evaluate(train, test, {"<b>bold</b>": fresh}, **{**QUICK, "max_cells": 90})
    path = tmp_path_factory.mktemp("page") / "report.html"
    found.to_html(PathOf(path))
    assert path.stat().st_size < 10e6
    return path.read_text(encoding="utf-8")


def test_the_page_loads_nothing_and_escapes_names(page):
    assert "<b>bold</b>" not in page
    pattern = r'(?:src|href|xlink:href)="([^"]*)"|url\(([^)]*)\)'
    addresses = [a or b for a, b in re.findall(pattern, page)]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    ids = [attrs["id"] for _, attrs in tags_of(page) if attrs.get("id")]
    assert len(ids) == len(set(ids))
    assert {address[1:] for address in addresses if address.startswith("#")} <= set(ids)


def test_every_plot_has_a_text_alternative(page):
    plots = [attrs for tag, attrs in tags_of(page) if tag == "svg"]
    assert len(plots) == 8
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in plots)


def test_every_category_and_control_is_shown(page):
    for text in ("Two-sample test", "Published variants", "Validity checks", "Poisson", "shuffle"):
        assert text in page
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL).split("<script>")[0]


def test_a_page_without_controls_says_so(train, test, fresh, tmp_path):
    found = scld.evaluate(train, test, fresh, **{**NO_CONTROLS, "label": None, "max_cells": 60})
    path = tmp_path / "report.html"
    found.to_html(str(path))
    text = path.read_text(encoding="utf-8")
    assert "Negative controls were not scored" in text
    assert 'id="types"' not in text


def test_names_break_neither_page_nor_pictures_nor_table(train, test, fresh, tmp_path):
    """Formulas of matplotlib and of spreadsheets, control characters, letters of any script."""
    types = {"B cell": "$\\frac$", "T cell": "=1+1", "monocyte": "\x1b[31m<i>单核</i>"}
    hostile = []
    for cells in (train, test, fresh):
        renamed = cells.copy()
        renamed.obs["cell_type"] = renamed.obs["cell_type"].map(types).to_numpy()
        renamed.var_names = [f"$g_{i}$ & \x07" for i in range(cells.n_vars)]
        hostile.append(renamed)
    found = scld.evaluate(*hostile, **{**QUICK, "max_cells": 90})
    found.to_html(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "$\\frac$" in page
    assert "<i>" not in page
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", page)
    found.to_png(tmp_path / "a.png")
    found.to_csv(tmp_path / "a.csv")
    assert "'=1+1" in (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert "=1+1" in found.to_json(tmp_path / "a.json")
