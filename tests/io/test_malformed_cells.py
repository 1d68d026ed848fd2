"""Malformed cells, labels and files: one line that names a place, or counts that are right.

benchmarks/hostile_inputs.py makes them; benchmarks/hostile.py tries more of them, with whole fits.
"""

import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from scld.evaluation.inputs import _Reader
from scld.evaluation.options import Options
from scld.io.counts import count_matrix
from scld.io.pieces import Pieces
from scld.io.read import read
from scld.io.write import write
from scld.schema import Schema, label_names

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from hostile_inputs import (
    MOST_UNUSUAL,
    UNUSUAL,
    USUAL,
    ImpossibleError,
    damage_store,
    damaged,
    malformed,
)
from hostile_worker import BAD, BadOutcomeError, Watched, judged

SLOW = {"size": ("30 x 1000",), "label": ("long",)}  # left out here
RECIPES = st.lists(
    st.sampled_from([pair for pair in UNUSUAL if pair[1] not in SLOW.get(pair[0], ())]),
    min_size=1,
    max_size=MOST_UNUSUAL,
).map(lambda pairs: USUAL | dict(pairs))
SEEDS = st.integers(0, 2**16)
FEW, MANY = (
    settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    for number in (200, 2000)
)


def usable(recipe, seed):
    """Cells of a recipe, if an AnnData can be so."""
    try:
        return malformed(recipe, np.random.default_rng(seed))
    except ImpossibleError:
        assume(False)


def check(work, *args):
    kind, text = judged(work, args)
    assert kind != BAD, text


def check_counts(matrix, cells):
    if matrix.shape[0] != cells or not (matrix.data == np.rint(matrix.data)).all():
        raise BadOutcomeError(f"{matrix.shape[0]} cells, or counts that are no counts")


def as_a_fit_reads_them(given):
    """Sources, matrix, labels and their codes: what comes before the training."""
    pieces, names = Pieces.of(given.cells, given.layer, "same"), label_names(given.labels)
    schema, codes = Schema.encode(pieces.obs(names), names)
    check_counts(pieces.in_memory(), given.cells.n_obs)
    back = schema.codes(schema.frame(codes))
    if not (back == codes).all() or Schema.from_json(schema.to_json()).labels != schema.labels:
        raise BadOutcomeError("categories do not come back")
    return "encoded"


def as_an_evaluation_reads_them(given):
    """In the place of training and of synthetic cells: all but the scores."""
    options = Options((given.label,), None, given.layer, "same", False, 100, 1, 0)
    reader = _Reader(set(), options)
    datasets = reader.read(given.cells, None, {"made": given.cells})
    genes, found = reader.genes(datasets), {}
    for name, adata in datasets.items():
        labels = reader.labels(name, adata)
        found[name] = reader.cells(name, adata, labels, sorted(set(labels)), genes)
    check_counts(found["train"].counts, given.cells.n_obs)
    return "matched"


@FEW
@given(RECIPES, SEEDS)
def test_200_malformed_cells_are_refused_or_encoded(recipe, seed):
    check(as_a_fit_reads_them, usable(recipe, seed))


@pytest.mark.slow
@MANY
@given(RECIPES, SEEDS)
def test_2000_malformed_cells_are_refused_or_encoded(recipe, seed):
    check(as_a_fit_reads_them, usable(recipe, seed))


@FEW
@given(RECIPES, SEEDS)
def test_200_malformed_cells_are_refused_or_matched_for_an_evaluation(recipe, seed):
    assume(not recipe["categories"].startswith("unspeakable"))  # has no text, and needs one
    check(as_an_evaluation_reads_them, usable(recipe, seed))


@pytest.mark.slow
@MANY
@given(RECIPES, SEEDS)
def test_2000_malformed_cells_are_refused_or_matched_for_an_evaluation(recipe, seed):
    assume(not recipe["categories"].startswith("unspeakable"))
    check(as_an_evaluation_reads_them, usable(recipe, seed))


# Files


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same cells in both formats, by ending."""
    folder, made = tmp_path_factory.mktemp("whole"), malformed(USUAL, np.random.default_rng(0))
    paths = {ending: folder / f"cells{ending}" for ending in (".h5ad", ".zarr")}
    for path in paths.values():
        write([made.cells], path)
    return paths


def read_whole(path):
    with warnings.catch_warnings():  # AnnData warns of what its old versions wrote
        warnings.simplefilter("ignore")
        cells = read(path)
    check_counts(count_matrix(cells), cells.n_obs)
    return "read"


def damaged_copy(whole, path, random):
    if whole.is_dir():
        shutil.copytree(whole, path)
        damage_store(path, random)
    else:
        path.write_bytes(damaged(whole.read_bytes(), random))


def check_files(ending, whole, folder, number):
    """In a process of its own: HDF5 itself may crash, or never end, on what is damaged."""
    with Watched(seconds=4, grace=6) as watched:
        for seed in range(number):
            path = folder / f"{seed}{ending}"
            damaged_copy(whole[ending], path, np.random.default_rng(seed))
            kind, text = watched(read_whole, path)[:2]
            assert kind != BAD or text.startswith("hangs"), (seed, text)


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_damaged_files_are_refused_or_read(ending, whole, tmp_path):
    check_files(ending, whole, tmp_path, 25)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_250_damaged_files_are_refused_or_read(ending, whole, tmp_path):
    check_files(ending, whole, tmp_path, 250)
