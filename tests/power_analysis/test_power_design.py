"""Designs: read from dicts and files, refused in one line."""

from __future__ import annotations

import json
import sys

import pytest

from scld.errors import RequestError
from scld.power_analysis.design import PowerDesign

GRID = {"donors": [3, 6], "cells": 100}


def test_a_design_is_the_same_from_a_dict_json_and_yaml(tmp_path):
    values = {**GRID, "log2fc": [1, 2], "rare": None, "composition": {"fold": 2}}
    (tmp_path / "a.json").write_text(json.dumps(values))
    (tmp_path / "a.yaml").write_text(
        "donors: [3, 6]\ncells: 100\nlog2fc: [1, 2]\nrare: null\ncomposition: {fold: 2}\n"
    )
    expected = PowerDesign.of(values)
    assert PowerDesign.of(str(tmp_path / "a.json")) == expected
    pytest.importorskip("yaml")
    assert PowerDesign.of(tmp_path / "a.yaml") == expected
    assert PowerDesign.of(expected) is expected
    assert len(expected.points) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"donors": 1}, r"design: donors: got 1; allowed are integers from 2"),
        ({"donors": []}, r"design: donors: an empty list"),
        ({"cells": 0}, r"design: cells: got 0"),
        ({"cells": 10.5}, r"design: cells: got 10.5"),
        ({"depth": 0}, r"design: depth: got 0; allowed are numbers from 0.001"),
        ({"log2fc": [-1]}, r"design: log2fc: got -1"),
        ({"replicates": 0}, r"design: replicates: got 0"),
        ({"alpha": True}, r"design: alpha: got True"),
        ({"donor_count": 3}, r"design: unknown key 'donor_count'; known: 'donors'"),
        ({"rare": {"cell": 3}}, r"design: rare: unknown key 'cell'.*did you mean 'cells'"),
        ({"rare": {"per": "cell"}}, r"design: rare: per: got 'cell'; allowed are 'study', 'donor'"),
        ({"expression": {"tests": "wilcox"}}, r"tests: got 'wilcox'.*did you mean 'wilcoxon'"),
        ({"expression": 3}, r"design: expression: got 3; write keys and values"),
        ({"prices": {"cell": -1}}, r"design: prices: cell: got -1"),
        ({"composition": {"fold": "two"}}, r"design: composition: fold: got two"),
        ({"label": 3}, r"design: label: got 3"),
        (
            {"expression": None, "rare": None, "composition": None},
            r"design: nothing to simulate; leave one of",
        ),
    ],
)
def test_what_cannot_be_simulated_is_refused(change, message):
    with pytest.raises(RequestError, match=message) as caught:
        PowerDesign.of({**GRID, **change})
    assert "\n" not in str(caught.value)


def test_a_design_needs_donors_and_cells():
    with pytest.raises(RequestError, match="'cells' is missing"):
        PowerDesign.of({"donors": 3})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "", "unknown ending"),
        ("a.json", "{", "not readable json"),
        ("a.yaml", "a: [", "not readable yaml"),
        ("a.yaml", "- 3", "write keys and values"),
    ],
)
def test_a_file_that_is_no_design_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match=message):
        PowerDesign.of(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RequestError, match="check the path"):
        PowerDesign.of(tmp_path / "none.json")


def test_yaml_without_pyyaml_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "a.yaml").write_text("donors: 3")
    with pytest.raises(RequestError, match=r"pip install 'scld\[power\]'"):
        PowerDesign.of(tmp_path / "a.yaml")


def test_labels_and_types_are_those_of_the_model(synth):
    full = PowerDesign.of({**GRID, "composition": {"fold": 2}}).for_model(synth.schema)
    assert full.types == ("B", "NK", "T")
    assert full.rare.types == full.composition.types == full.types
    assert full.donor == "donor"
    shares = PowerDesign.of(GRID).shares(synth.schema)
    assert shares == pytest.approx({"B": 1 / 3, "NK": 1 / 3, "T": 1 / 3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"types": ["nk"]}, r"design: types: no type 'nk'.*did you mean 'NK'"),
        ({"rare": {"types": "X"}}, r"design: rare: types: no type 'X'"),
        ({"label": "cell_typ"}, r"design: label: 'cell_typ'.*did you mean 'cell_type'"),
        ({"donor": "patient"}, r"design: donor: 'patient' is not a label"),
        ({"where": {"condition": "a"}}, r"design: where: 'condition' is not a label"),
        (
            {"composition": {"types": "B", "fold": 3}},
            r"fold: 'B' has a share of 0.333.*allowed are folds below 3",
        ),
    ],
)
def test_what_the_model_does_not_have_is_refused(synth, change, message):
    with pytest.raises(RequestError, match=message):
        PowerDesign.of({**GRID, **change}).for_model(synth.schema)


def test_types_that_would_be_more_than_everything_are_left_out(synth):
    full = PowerDesign.of({**GRID, "composition": {"fold": 4}}).for_model(synth.schema)
    assert full.composition.types == ()


def test_the_defaults_in_the_docs_are_those_of_the_code(pytestconfig):
    yaml = pytest.importorskip("yaml")
    page = (pytestconfig.rootpath / "docs" / "power.md").read_text()
    values = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    grid = {"donors": values["donors"], "cells": values["cells"]}
    assert PowerDesign.of(values) == PowerDesign.of(grid)
    assert set(values) == set(PowerDesign.of(grid).to_dict())
