"""Malformed JSON in a model, with checksums that fit: refused in one line, or read as it is.

benchmarks/hostile_inputs.py names the faults; benchmarks/hostile.py tries more, and flips bits.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_malformed_cells import FEW, MANY, check

import scld
from scld.config import Config
from scld.io import checkpoint as disk
from scld.schema import Schema

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from hostile_inputs import REPLACEMENTS, doubled, mutated, nested, places, replaced
from hostile_worker import BAD, BadOutcomeError, judged

SCHEMA = {
    "labels": [
        {"name": "cell_type", "categories": ["B", "T", "NK"], "ordered": False},
        {"name": "donor", "categories": [1, 2], "ordered": True},
    ],
    "combinations": [[0, 0], [1, 0], [2, 1], [-1, 1]],
    "cells": [3, 4, 5, 6],
}
CONFIG = Config().to_dict()


def faults(value):
    """Replacements, brackets and repetitions at any place of a JSON value."""
    every = list(places(value))
    new = st.sampled_from(REPLACEMENTS) | st.integers() | st.floats() | st.text(max_size=5)
    return st.one_of(
        st.builds(replaced, st.just(value), st.sampled_from(every), new),
        st.builds(nested, st.just(value), st.sampled_from(every), st.sampled_from([1, 300])),
        st.builds(doubled, st.just(value), st.sampled_from(every)),
    )


def check_schema(values):
    """What is accepted describes cells, and survives a file."""
    try:
        schema = Schema.from_json(values)
    except (KeyError, TypeError, ValueError):  # what loading makes one line of
        return
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))).labels == schema.labels
    assert len(schema.frame(schema.combinations)) == len(schema.cells)
    assert sum(schema.category_cells(schema.names[0]).values()) <= schema.cells.sum()


def check_config(values):
    config = Config.from_dict(values)
    if Config.from_dict(json.loads(json.dumps(config.to_dict()))) != config:
        raise BadOutcomeError("other settings after a file")
    return "read"


@FEW
@given(faults(SCHEMA))
def test_200_malformed_schemas_are_refused_or_read(values):
    check_schema(values)


@FEW
@given(faults(CONFIG))
def test_200_malformed_settings_are_refused_or_read(values):
    check(check_config, values)


@pytest.mark.slow
@MANY
@given(faults(SCHEMA))
def test_2000_malformed_schemas_are_refused_or_read(values):
    check_schema(values)


@pytest.mark.slow
@MANY
@given(faults(CONFIG))
def test_2000_malformed_settings_are_refused_or_read(values):
    check(check_config, values)


@pytest.fixture(scope="module")
def files(saved, tmp_path_factory):
    """A copy to harm, and the content of its JSON files."""
    path = tmp_path_factory.mktemp("harmed") / "model.scld"
    shutil.copytree(saved, path)
    names = ("manifest.json", "schema.json")
    return path, {name: json.loads((path / name).read_text()) for name in names}


def load_and_sample(path):
    scld.load(path, device="cpu").sample(5, seed=0, progress=False)
    return "sampled"


def check_model(files, random, number):
    path, usual = files
    for _ in range(number):
        name = ["manifest.json", "schema.json"][random.integers(2)]
        changed, what = mutated(usual[name], random)
        for each, content in usual.items():
            (path / each).write_text(json.dumps(changed if each == name else content))
        disk.seal(path)
        kind, text = judged(load_and_sample, (path,))
        assert kind != BAD, (name, what, text)


def test_malformed_models_are_refused_or_generate_cells(files, monkeypatch):
    monkeypatch.setattr(disk, "_AGAIN_SECONDS", 0)
    check_model(files, np.random.default_rng(0), 40)


@pytest.mark.slow
def test_2000_malformed_models_are_refused_or_generate_cells(files, monkeypatch):
    monkeypatch.setattr(disk, "_AGAIN_SECONDS", 0)
    check_model(files, np.random.default_rng(1), 2000)
