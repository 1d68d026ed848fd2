from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scld.errors import DataError, RequestError
from scld.generation.request import SamplingRequest, request, request_cells, request_table
from scld.schema import MISSING, Schema

OBS = pd.DataFrame({"type": ["B", "T", "T", "NK"] * 10, "donor": [1, 1, 2, 3] * 10})
SCHEMA = Schema.of(OBS, ["type", "donor"])


def table(rows=100, seed=0):
    """Labels of some cells, each missing at random."""
    random = np.random.default_rng(seed)
    types = random.choice(["B", "T", "NK", None], rows)
    donors = random.choice([1.0, 2.0, 3.0, np.nan], rows)
    return pd.DataFrame({"type": types, "donor": donors}, index=[f"r{i}" for i in range(rows)])


def test_the_first_rows_of_a_table_are_the_same_cells_as_these_rows_alone():
    """One draw per row: the rows that follow, and their labels, make no difference."""
    whole = request_table(table(), SCHEMA, seed=3)
    assert (SCHEMA.codes(table()) == MISSING).any(axis=0).all()
    for rows in (1, 40):
        some = request_table(table()[:rows], SCHEMA, seed=3)
        np.testing.assert_array_equal(some.codes, whole.codes[:rows])
        assert list(some.names) == list(whole.names[:rows])
    others = pd.concat([table()[:40], table(60, seed=1)])
    other = request_table(others, SCHEMA, seed=3)
    np.testing.assert_array_equal(other.codes[:40], whole.codes[:40])


def test_a_row_of_a_table_does_not_depend_on_the_rows_before_it():
    whole = request_table(table(), SCHEMA, seed=3)
    others = pd.concat([table(40, seed=1), table()[40:]])
    other = request_table(others, SCHEMA, seed=3)
    np.testing.assert_array_equal(other.codes[40:], whole.codes[40:])


def test_a_table_keeps_its_labels_and_fills_the_gaps():
    codes, given = request_table(table(), SCHEMA, seed=3).codes, SCHEMA.codes(table())
    assert (codes != MISSING).all()
    np.testing.assert_array_equal(codes[given != MISSING], given[given != MISSING])


def test_the_first_cells_are_the_same_for_any_number_of_cells():
    for where in (None, {"type": "T"}):
        many = request_cells(100, where, SCHEMA, 3, False)
        few = request_cells(40, where, SCHEMA, 3, False)
        np.testing.assert_array_equal(few.codes, many.codes[:40])


def test_a_table_without_labels_is_the_same_as_a_number_of_cells():
    empty = pd.DataFrame({"type": [None] * 50})
    codes = request_table(empty, SCHEMA, seed=3).codes
    np.testing.assert_array_equal(codes, request_cells(50, None, SCHEMA, 3, False).codes)


def test_a_gap_is_filled_in_as_the_same_condition_would():
    given = pd.DataFrame({"type": ["T"] * 50})
    codes = request_table(given, SCHEMA, seed=3).codes
    np.testing.assert_array_equal(codes, request_cells(50, {"type": "T"}, SCHEMA, 3, False).codes)


def test_the_seed_matters():
    one, other = (request_cells(100, None, SCHEMA, seed, False).codes for seed in (3, 4))
    assert (one != other).any()


def test_unseen_combinations_are_marked():
    some = pd.DataFrame({"type": ["B", "B"], "donor": [1, 3]})
    found = request_table(some, SCHEMA, seed=0)
    assert found.columns["seen_in_training"].tolist() == [True, False]
    assert found.obs(slice(1, 2), SCHEMA)["seen_in_training"].tolist() == [False]
    assert not request_table(some[:1], SCHEMA, seed=0).columns


def test_names_of_cells():
    unnamed = SamplingRequest(np.zeros((5, 2), int))
    assert list(unnamed.obs(slice(3, 5), SCHEMA).index) == ["cell_3", "cell_4"]
    named = request_table(pd.DataFrame({"type": ["B", "T"]}, index=["a", "b"]), SCHEMA, seed=0)
    assert list(named.obs(slice(0, 2), SCHEMA).index) == ["a", "b"]
    prefixed = replace(named, prefix="scld", prefixed=True)
    assert list(prefixed.obs(slice(1, 2), SCHEMA).index) == ["scld_b"]
    numbered = request_table(pd.DataFrame({"type": ["B", "T"]}, index=[7, 8]), SCHEMA, seed=0)
    assert list(numbered.obs(slice(0, 2), SCHEMA).index) == ["cell_0", "cell_1"]


def test_names_of_empty_droplets_come_after_those_of_the_cells():
    some = SamplingRequest(np.zeros((5, 2), int), prefix="p", empty=2)
    assert list(some.obs(slice(0, 5), SCHEMA).index) == [
        "p_0",
        "p_1",
        "p_2",
        "p_empty_0",
        "p_empty_1",
    ]
    assert list(some.obs(slice(4, 5), SCHEMA).index) == ["p_empty_1"]
    assert list(some.obs(slice(1, 2), SCHEMA).index) == ["p_1"]
    named = SamplingRequest(np.zeros((3, 2), int), pd.Index(["a"]), prefix="p", empty=2)
    assert list(named.obs(slice(0, 3), SCHEMA).index) == ["a", "p_empty_0", "p_empty_1"]


def test_a_key_tells_requests_apart_and_not_their_number_of_cells():
    def key(where, n=9):
        return request_cells(n, where, SCHEMA, 3, False).key

    assert key({"type": ["T", "B"]}) == key({"type": ["B", "T"]}, 4)
    assert len({key(None), key({"type": "T"}), key({"type": "B"}), key({"donor": 1})}) == 4
    tables = [table(), table()[:40], table(seed=1)]
    assert len({request_table(some, SCHEMA, 3).key for some in tables}) == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ["n: got None", "from 1"]),
        ({"n": 0}, ["n: got 0", "from 1"]),
        ({"n": -3}, ["n: got -3"]),
        ({"n": 2.5}, ["n: got 2.5"]),
        ({"n": "9"}, ["n: got '9'"]),
        ({"n": True}, ["n: got True"]),
        ({"n": 3, "where": {"typ": "B"}}, ["where: 'typ'", "did you mean 'type'?"]),
        ({"n": 3, "where": {"type": "nk"}}, ["no category 'nk'", "did you mean 'NK'?"]),
        ({"n": 3, "where": {"type": []}}, ["empty list"]),
        ({"n": 3, "where": {0: "B"}}, ["where: 0"]),
        ({"n": 3, "where": "type=B"}, ["where: got str"]),
        ({"n": 3, "where": {"type": "B", "donor": 3}}, ["no training cell", "unseen=True"]),
        ({"obs": {"type": ["B"]}}, ["obs: got dict", "DataFrame"]),
        ({"obs": pd.DataFrame({"type": []})}, ["obs: 0 rows"]),
        ({"obs": pd.DataFrame({"x": [1]})}, ["obs: 1 rows with columns ['x']", "type"]),
        (
            {"obs": pd.DataFrame({"types": ["B"], "donor": [1]})},
            ["obs: no column 'type'", "did you mean 'types'?"],
        ),
        (
            {"obs": pd.DataFrame([["B", "T"]], columns=["type"] * 2)},
            ["obs: 2 columns are named 'type'"],
        ),
        ({"obs": pd.DataFrame({"type": ["b cell"]})}, ["no category 'b cell'"]),
        ({"obs": pd.DataFrame({"type": [["B"]]})}, ["type", "cannot be categories"]),
        ({"n": 1, "obs": pd.DataFrame({"type": ["B"]})}, ["obs: got n or where as well"]),
        (
            {"where": {}, "obs": pd.DataFrame({"type": ["B"]})},
            ["obs: got n or where as well"],
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_request_that_cannot_be_met_is_one_clear_line(given, words):
    arguments = {"n": None, "where": None, "obs": None} | given
    with pytest.raises(DataError) as caught:
        request(**arguments, unseen=False, schema=SCHEMA, seed=0)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_model_without_labels_has_no_table():
    with pytest.raises(RequestError, match="without labels"):
        request_table(pd.DataFrame({"type": ["B"]}), Schema.of(OBS, []), 0)
    assert request_cells(3, None, Schema.of(OBS, []), 0, False).codes.shape == (3, 0)
