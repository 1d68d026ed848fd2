import contextlib
import datetime
import json
import math

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare

from scld.errors import DataError, RequestError
from scld.schema import MISSING, Schema, label_column, label_names


@contextlib.contextmanager
def refused(*words, error=DataError):
    """The error is ours, one line, and holds all these words."""
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def series(values, dtype):
    return pd.Series(values, dtype=dtype)


# An obs column becomes a label

COLUMNS = {  # a column of obs -> categories, codes
    "text": (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
    "text and nan": (["b", np.nan, "a"], ("a", "b"), [1, -1, 0]),
    "text and None": (["b", None, "a"], ("a", "b"), [1, -1, 0]),
    "text and NA": (series(["b", pd.NA, "a"], object), ("a", "b"), [1, -1, 0]),
    "text and NaT": (series(["b", pd.NaT, "a"], object), ("a", "b"), [1, -1, 0]),
    "the text nan": (["nan", "a", "nan"], ("a", "nan"), [1, 0, 1]),
    "empty text": (["", "a", "a"], ("", "a"), [0, 1, 1]),
    "two lines": (["x\ny", "x y", "x y"], ("x\ny", "x y"), [0, 1, 1]),
    "nullable text": (series(["b", None, "a"], "string"), ("a", "b"), [1, -1, 0]),
    "integers": ([10, 9, 10], (9, 10), [1, 0, 1]),
    "small integers": (series([10, 9, 10], "int8"), (9, 10), [1, 0, 1]),
    "nullable integers": (series([10, None, 9], "Int64"), (9, 10), [1, -1, 0]),
    "integral floats": ([10.0, np.nan, 9.0], (9.0, 10.0), [1, -1, 0]),
    "nullable floats": (series([10.0, None, 9.0], "Float64"), (9.0, 10.0), [1, -1, 0]),
    "booleans": ([True, False, True], (False, True), [1, 0, 1]),
    "nullable booleans": (series([True, None, False], "boolean"), (False, True), [1, -1, 0]),
    "booleans and None": (series([True, None, False], object), (False, True), [1, -1, 0]),
    "categories": (pd.Categorical(["b", "a", "b"], ["b", "a"]), ("b", "a"), [0, 1, 0]),
    "unused categories": (
        pd.Categorical(["c", None, "a"], ["c", "b", "a"]),
        ("c", "a"),
        [0, -1, 1],
    ),
    "integer categories": (pd.Categorical([3, 1, 3], [3, 1]), (3, 1), [0, 1, 0]),
    "boolean categories": (pd.Categorical([True, False, None]), (False, True), [1, 0, -1]),
    "fraction categories": (pd.Categorical([0.5, 1.0, 0.5]), (0.5, 1.0), [0, 1, 0]),
    "intervals": (pd.cut([1, 5, 2], [0, 2, 6]), ("(0, 2]", "(2, 6]"), [0, 1, 0]),
    "dates": (
        pd.to_datetime(["2021-01-02", None, "2020-01-02"]),
        ("2020-01-02 00:00:00", "2021-01-02 00:00:00"),
        [1, -1, 0],
    ),
    "one category": (["a", "a", "a"], ("a",), [0, 0, 0]),
}


@pytest.mark.parametrize("column", COLUMNS)
def test_categories_and_codes_of_a_column(column):
    values, categories, codes = COLUMNS[column]
    obs = pd.DataFrame({"label": values})
    schema, encoded = Schema.encode(obs, ["label"])
    found = schema.labels[0].categories
    assert found == categories
    assert [type(category) for category in found] == [type(category) for category in categories]
    assert encoded[:, 0].tolist() == codes == schema.codes(obs)[:, 0].tolist()
    assert schema.sizes == (len(categories),)
    cells = dict(zip(schema.combinations[:, 0].tolist(), schema.cells.tolist(), strict=True))
    assert cells == {code: codes.count(code) for code in codes}


@pytest.mark.parametrize("column", COLUMNS)
def test_codes_become_the_same_categories_again_also_through_a_file(tmp_path, column):
    values, categories, codes = COLUMNS[column]
    schema = Schema.of(pd.DataFrame({"label": values}), ["label"])
    table = schema.frame(np.array(codes)[:, None])
    assert tuple(table["label"].cat.categories) == categories
    assert table["label"].isna().tolist() == [code == MISSING for code in codes]
    assert schema.codes(table)[:, 0].tolist() == codes
    ad.AnnData(np.ones((3, 1)), obs=table).write_h5ad(tmp_path / "cells.h5ad")
    back = ad.read_h5ad(tmp_path / "cells.h5ad").obs
    assert tuple(back["label"].cat.categories) == categories
    assert schema.codes(back)[:, 0].tolist() == codes


def test_text_as_pandas_3_stores_it():
    with pd.option_context("future.infer_string", True):
        obs = pd.DataFrame({"label": ["b", None, "a"]})
        assert obs["label"].dtype == "str"
        schema = Schema.of(obs, ["label"])
        assert schema.labels[0].categories == ("a", "b")
        assert schema.codes(schema.frame(schema.codes(obs)))[:, 0].tolist() == [1, MISSING, 0]


def test_the_order_of_categories_is_kept():
    grade = pd.Categorical(["low", "high", "low"], ["low", "mid", "high"], ordered=True)
    schema = Schema.of(pd.DataFrame({"grade": grade}), ["grade"])
    assert schema.labels[0].categories == ("low", "high")
    assert schema.frame(np.array([[1]]))["grade"].cat.ordered
    unordered = Schema.of(pd.DataFrame({"grade": ["a", "b"]}), ["grade"])
    assert not unordered.frame(np.array([[1]]))["grade"].cat.ordered


def test_several_labels_and_a_table_without_one_of_them():
    obs = pd.DataFrame({"type": ["B", "T", "T"], "donor": [1, 2, 2]}, index=["x", "x", "x"])
    schema = Schema.of(obs, ["donor", "type"])
    assert schema.codes(obs).tolist() == [[0, 0], [1, 1], [1, 1]]
    assert schema.codes(obs[["type"]]).tolist() == [[MISSING, 0], [MISSING, 1], [MISSING, 1]]
    assert (schema.combinations.tolist(), schema.cells.tolist()) == ([[0, 0], [1, 1]], [1, 2])


def test_one_label_may_be_named_without_a_list():
    schema = Schema.of(pd.DataFrame({"type": ["B", "T"]}), "type")
    assert schema.labels[0].name == "type"


def test_no_labels():
    obs = pd.DataFrame(index=["a", "b", "c"])
    schema, codes = Schema.encode(obs, [])
    assert (schema.names, schema.sizes, schema.cells.tolist()) == ([], (), [3])
    assert codes.shape == schema.codes(obs).shape == (3, 0)
    assert schema.draw(np.zeros((5, 1)), {}).shape == (5, 0)
    assert schema.frame(np.zeros((5, 0), int)).shape == (5, 0)


def test_many_categories_have_the_codes_of_pandas():
    values = np.random.default_rng(0).integers(0, 3_000, 10_000).astype(str)
    codes = Schema.encode(pd.DataFrame({"clone": values}), ["clone"])[1]
    np.testing.assert_array_equal(codes[:, 0], pd.Categorical(values).codes)


def test_the_number_of_cells_of_each_category():
    obs = pd.DataFrame({"type": ["B", "T", None, "T"], "donor": [1, 1, 2, 2]})
    schema = Schema.of(obs, ["type", "donor"])
    assert schema.category_cells("type") == {"B": 1, "T": 2}
    assert schema.category_cells("donor") == {"1": 2, "2": 2}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([None, None, None], ["every value is missing"]),
        ([np.nan] * 3, ["every value is missing"]),
        (pd.Categorical([None] * 3, categories=["a"]), ["every value is missing"]),
        ([0.25, 0.5, 0.25], ["0.25", "pandas.cut"]),
        ([1.0, np.inf, 1.0], ["inf", "pandas.cut"]),
        (series([1, "1", True], object), ["mixes bool, int, str", "astype(str)"]),
        (series([True, 1, 0], object), ["mixes bool, int"]),
        (pd.Categorical([1, "a", 1]), ["mixes int, str"]),
        (series([["a"], ["b"], ["a"]], object), ["cannot be categories"]),
        ([str(i) for i in range(101)], ["101 different values in 101 cells"]),
    ],
)
def test_columns_that_cannot_be_labels(values, words):
    with refused("label 'donor'", *words):
        Schema.of(pd.DataFrame({"donor": values}), ["donor"])


def test_a_missing_label_column_is_answered_with_the_nearest():
    with refused("label 'celltype'", "columns: 'cell_type'", "did you mean 'cell_type'?"):
        Schema.of(pd.DataFrame({"cell_type": ["B"]}), ["celltype"])
    with refused("label 'donor'", "columns: none"):
        Schema.of(pd.DataFrame(index=["a"]), ["donor"])
    with refused("'c11' and 28 more"):
        Schema.of(pd.DataFrame({f"c{i}": ["a"] for i in range(40)}), ["donor"])


def test_labels_named_twice():
    with refused("labels: ", "'type' is named twice"):
        Schema.of(pd.DataFrame({"type": ["a"]}), ["type", "type"])
    with refused("label 'type'", "2 obs columns"):
        Schema.of(pd.DataFrame([["a", "b"]], columns=["type", "type"]), ["type"])


def test_a_label_column_may_have_to_be_complete():
    obs = pd.DataFrame({"type": ["B", None, None]}, index=["x", "y", "z"])
    assert label_column(obs, "type").isna().tolist() == [False, True, True]
    with refused("cells.h5ad: label 'type'", "2 of 3 cells", "'y'"):
        label_column(obs, "type", place="cells.h5ad", complete=True)


# Asking for a category


@pytest.mark.parametrize(
    ("categories", "asked"),
    [
        ([1, 2], [2, 2.0, "2", np.int64(2), np.float32(2)]),
        ([1.0, 2.0], [2, 2.0, "2", np.int64(2), np.float32(2)]),
        (["1", "2"], [2, "2", np.str_("2"), np.int64(2)]),
        ([False, True], [True, np.bool_(True), "True"]),
        (["B", "T"], ["T", np.str_("T")]),
    ],
)
def test_a_category_is_found_by_itself_or_by_its_text(categories, asked):
    label = Schema.of(pd.DataFrame({"label": categories}), ["label"]).labels[0]
    assert [label.code(value) for value in asked] == [1] * len(asked)


@pytest.mark.parametrize("value", [None, np.nan, pd.NA, pd.NaT])
def test_a_missing_value_is_an_unspecified_label(value):
    label = Schema.of(pd.DataFrame({"label": ["a"]}), ["label"]).labels[0]
    assert label.code(value) == MISSING


@pytest.mark.parametrize(
    ("categories", "asked", "words"),
    [
        (
            ["B cell", "plasma cell"],
            "Plasma cel",
            ["'Plasma cel'", "known: 'B cell', 'plasma cell'", "did you mean 'plasma cell'?"],
        ),
        (["B cell", "plasma cell"], "b cell", ["did you mean 'B cell'?"]),
        ([1, 2], True, ["'True'", "known: '1', '2'"]),
        ([False, True], 1, ["'1'", "known: 'False', 'True'"]),
        ([1, 2], 1.5, ["'1.5'"]),
        (["a", "b"], ["a"], ["known: 'a', 'b'"]),
        (["a", "b"], np.array(["a", "b"]), ["known: 'a', 'b'"]),
        (["a", "b"], "a\nb", [r"'a\nb'"]),
    ],
)
def test_an_unknown_category_is_answered_with_the_known_ones(categories, asked, words):
    schema = Schema.of(pd.DataFrame({"type": categories}), ["type"])
    with refused("label 'type': no category", *words, error=RequestError):
        schema.labels[0].code(asked)


def test_an_unknown_category_in_a_table():
    schema = Schema.of(pd.DataFrame({"type": ["B", "T"]}), ["type"])
    unknown = pd.DataFrame({"type": ["B", "NK"]})
    with refused("label 'type': no category 'NK'", error=RequestError):
        schema.codes(unknown)
    assert schema.codes(unknown, lenient=["type"]).tolist() == [[0], [MISSING]]
    unused = pd.DataFrame({"type": pd.Categorical(["B", "T"], categories=["NK", "B", "T"])})
    assert schema.codes(unused).tolist() == [[0], [1]]


# Drawing labels

OBS = pd.DataFrame(
    {
        "type": ["B"] * 50 + ["T"] * 30 + ["NK"] * 20,
        "donor": [1, 2] * 25 + [1] * 24 + [2] * 6 + [3] * 20,
    }
)
SCHEMA = Schema.of(OBS, ["type", "donor"])


def uniforms(n, labels=2, seed=0):
    return np.random.default_rng(seed).random((n, 1 + labels))


def drawn(n, where, seed=0, unseen=False):
    return SCHEMA.frame(SCHEMA.draw(uniforms(n, seed=seed), where, unseen))


def agree(sample, population):
    """Chi-square test of the joint frequencies of all labels."""
    columns = list(population.columns)
    expected = population.value_counts()
    observed = sample.astype(object).value_counts().reindex(expected.index, fill_value=0)
    combinations = set(map(tuple, population[columns].to_numpy()))
    assert set(map(tuple, sample.to_numpy())) <= combinations
    return chisquare(observed, expected / expected.sum() * len(sample)).pvalue > 1e-3


def test_labels_follow_the_joint_frequencies_of_training():
    assert agree(drawn(5_000, {}), OBS)
    shuffled = OBS["type"].sample(frac=1, random_state=0).to_numpy()
    assert not agree(drawn(5_000, {}), OBS.assign(type=shuffled))


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({"type": "T"}, OBS["type"] == "T"),
        ({"donor": 2}, OBS["donor"] == 2),
        ({"donor": "2"}, OBS["donor"] == 2),
        ({"type": ["B", "T"]}, OBS["type"] != "NK"),
        ({"type": ("B", "T"), "donor": {2, 3}}, (OBS["type"] != "NK") & (OBS["donor"] != 1)),
        ({"type": np.array(["B", "NK"])}, OBS["type"] != "T"),
        ({"type": pd.Series(["B", "NK"])}, OBS["type"] != "T"),
    ],
)
def test_unspecified_labels_follow_their_frequencies_given_the_fixed_ones(where, rows):
    assert agree(drawn(4_000, where), OBS[rows])


def test_a_single_combination_that_agrees_and_no_cells():
    assert drawn(7, {"type": "NK"})["donor"].tolist() == [3] * 7
    assert len(drawn(0, {})) == 0


@pytest.mark.parametrize(
    ("where", "unseen"),
    [({}, False), ({"type": "T"}, False), ({"type": "NK", "donor": [1, 2]}, True)],
)
def test_a_row_depends_on_its_own_random_numbers_only(where, unseen):
    numbers = uniforms(1000)
    codes = SCHEMA.draw(numbers, where, unseen)
    np.testing.assert_array_equal(SCHEMA.draw(numbers[:40], where, unseen), codes[:40])
    np.testing.assert_array_equal(SCHEMA.draw(numbers[::-1], where, unseen), codes[::-1])
    alone = [SCHEMA.draw(numbers[i : i + 1], where, unseen)[0] for i in range(20)]
    np.testing.assert_array_equal(alone, codes[:20])


def test_the_ends_of_the_random_numbers_are_combinations_too():
    for number in (0.0, np.nextafter(1, 0)):
        codes = SCHEMA.draw(np.full((3, 3), number), {"type": "NK", "donor": [1, 2]}, unseen=True)
        assert SCHEMA.frame(codes)["type"].tolist() == ["NK"] * 3


def test_an_unseen_combination_when_it_is_allowed():
    """NK cells are of donor 3 alone.

    A list that no cell agrees with follows the frequencies of its categories, each label alone.
    """
    codes = SCHEMA.draw(uniforms(4_000), {"type": "NK", "donor": [1, 2]}, unseen=True)
    made = SCHEMA.frame(codes)
    assert set(made["type"]) == {"NK"}
    some = (OBS["type"] == "NK") | OBS["donor"].isin([1, 2])
    kept = OBS["donor"][some]  # of cells that have one of the two; donor 3 is drawn again
    among = OBS["donor"][OBS["donor"].isin([1, 2])].value_counts(normalize=True)
    expected = [(kept == donor).sum() + (kept == 3).sum() * among[donor] for donor in (1, 2)]
    observed = made["donor"].astype(int).value_counts()[[1, 2]]
    assert chisquare(observed, np.array(expected) / sum(expected) * 4_000).pvalue > 1e-3
    assert not SCHEMA.seen(codes).any()


def test_seen_combinations_are_those_of_training_and_unspecified_labels_do_not_count():
    table = {"type": ["NK", "NK", None, "NK", None], "donor": [3, 1, 1, None, None]}
    codes = SCHEMA.codes(pd.DataFrame(table))
    assert SCHEMA.seen(codes).tolist() == [True, False, True, True, True]
    assert SCHEMA.seen(SCHEMA.codes(OBS)).all()
    assert Schema.of(OBS, []).seen(np.zeros((2, 0), int)).tolist() == [True, True]


def test_the_same_random_numbers_give_the_same_labels_and_others_do_not():
    pd.testing.assert_frame_equal(drawn(100, {}), drawn(100, {}))
    assert not drawn(100, {}).equals(drawn(100, {}, seed=1))


def test_missing_labels_are_drawn_as_often_as_they_were_missing():
    schema = Schema.of(pd.DataFrame({"type": ["B", None, "B", "B"]}), ["type"])
    codes = schema.draw(uniforms(8_000, 1), {})[:, 0]
    observed = [np.sum(codes == MISSING), np.sum(codes == 0)]
    assert chisquare(observed, [2_000, 6_000]).pvalue > 1e-3
    assert (schema.draw(uniforms(10, 1), {"type": "B"}) == 0).all()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"typ": "B"}, ["where: 'typ'", "labels: 'type', 'donor'", "did you mean 'type'?"]),
        ({3: "B"}, ["where: 3", "labels: 'type', 'donor'"]),
        ({"type": "b"}, ["label 'type'", "no category 'b'", "did you mean 'B'?"]),
        ({"type": ["B", "Tt"]}, ["label 'type'", "no category 'Tt'"]),
        (
            {"type": "NK", "donor": 1},
            ["where: no training cell has type=NK and donor=1", "unseen=True"],
        ),
        ({"type": pd.Series(["NK", "NK"]), "donor": 1}, ["where: no training cell has"]),
        ({"type": None}, ["where: no training cell has type=unspecified"]),
        ({"type": []}, ["where: 'type'", "empty list"]),
        ("type=B", ["where: got str", "dict"]),
        ([("type", "B")], ["where: got list", "dict"]),
    ],
)
def test_a_condition_that_cannot_be_met(where, words):
    with refused(*words, error=RequestError):
        drawn(3, where)


def test_a_condition_on_a_model_without_labels():
    with refused("where: 'type'", "without labels", error=RequestError):
        Schema.of(OBS, []).draw(np.zeros((3, 1)), {"type": "B"})


def test_a_condition_is_recorded_as_text():
    where = {"donor": np.int64(2), "type": ("T", "B")}
    assert SCHEMA.described(where) == {"donor": ["2"], "type": ["B", "T"]}
    assert SCHEMA.described(None) == {}
    assert SCHEMA.described({"type": None}) == {"type": ["unspecified"]}


# JSON


@pytest.mark.parametrize("names", [[], ["type"], ["donor", "type"], ["type", "sure", "grade"]])
def test_a_schema_survives_json(names):
    grade = pd.Categorical([1, 2] * 50, categories=[2, 1], ordered=True)
    obs = OBS.assign(sure=[True, False, None, True] * 25, grade=grade)
    schema = Schema.of(obs, names)
    back = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert back.labels == schema.labels
    for one, other in zip(back.labels, schema.labels, strict=True):
        assert list(map(type, one.categories)) == list(map(type, other.categories))
    np.testing.assert_array_equal(back.combinations, schema.combinations)
    np.testing.assert_array_equal(back.cells, schema.cells)
    numbers = uniforms(50, len(names))
    np.testing.assert_array_equal(back.draw(numbers, {}), schema.draw(numbers, {}))


CONTRADICTIONS = {
    "a category that no label has": {"combinations": [[3, 0], [0, 1]], "cells": [1, 1]},
    "a code below that of a missing label": {"combinations": [[-2, 0], [0, 1]], "cells": [1, 1]},
    "a combination without cells": {"combinations": [[0, 0], [0, 1]], "cells": [1, 0]},
    "a negative number of cells": {"combinations": [[0, 0], [0, 1]], "cells": [1, -1]},
    "no combinations": {"combinations": [], "cells": []},
    "fewer numbers of cells than combinations": {"combinations": [[0, 0], [0, 1]], "cells": [1]},
    "a label too few": {"combinations": [[0], [1]], "cells": [1, 1]},
}


NO_SCHEMA = {
    "cells that no computer counts": {"cells": [1, 10**30]},
    "more cells than are added exactly": {"cells": [2**62, 2**62]},
    "half a cell": {"cells": [1, 1.5]},
    "infinitely many cells": {"cells": [1, math.inf]},
    "text for cells": {"cells": [1, "1"]},
    "a huge code": {"combinations": [[0, 0], [0, 2**63]]},
    "a combination that occurs twice": {"combinations": [[0, 0], [0, 0]]},
}
NO_LABEL = {
    "a list for a name": {"name": ["type"]},
    "the name of another label": {"name": "donor"},
    "a category that occurs twice": {"categories": ["B", "B", "T"]},
    "a category that is a list": {"categories": ["B", [], "T"]},
    "no categories": {"categories": []},
    "text and numbers": {"categories": ["B", 1, "T"]},
    "a category that is not a number": {"categories": [math.nan, 1.0, 2.0]},
    "a category that no file can hold": {"categories": ["B", "a\0b", "T"]},
    "neither ordered nor not": {"ordered": "no"},
}


@pytest.mark.parametrize("kind", NO_SCHEMA)
def test_numbers_that_no_fit_has_written_are_refused(kind):
    usual = {"combinations": [[0, 0], [0, 1]], "cells": [1, 1]}
    with pytest.raises(ValueError, match=r"combinations|int"):
        Schema.from_json(SCHEMA.to_json() | usual | NO_SCHEMA[kind])


@pytest.mark.parametrize("kind", NO_LABEL)
def test_labels_that_no_fit_has_written_are_refused(kind):
    values = SCHEMA.to_json()
    values["labels"][0] |= NO_LABEL[kind]
    with pytest.raises(ValueError, match="label"):
        Schema.from_json(values)


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_a_schema_that_contradicts_itself_is_refused(kind):
    with pytest.raises(ValueError, match=r"combinations|reshape"):
        Schema.from_json(SCHEMA.to_json() | CONTRADICTIONS[kind])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("cell type/sub", "holds a /"),
        ("_index", "reserved by AnnData"),
        ("a\0b", "NUL character"),
        ("\ud800", "not valid Unicode"),
        ("x" * 5000, "5,000 characters"),
        ("", "is empty"),
        (["type"], "name obs columns, as text"),
        (3, "name obs columns, as text"),
    ],
)
def test_labels_that_no_file_can_hold_are_refused_before_a_fit(name, why):
    with pytest.raises(DataError, match=why):
        Schema.of(pd.DataFrame({"type": ["B", "T"]}), [name])


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (["B", "a\0b"], "NUL character"),
        (["B", "\ud800"], "not valid Unicode"),
        (["B", "x" * 5000], "5,000 characters"),
        ([2**70, 1], "more than 64 bits"),
    ],
)
def test_categories_that_no_file_can_hold_are_refused_before_a_fit(values, why):
    with pytest.raises(DataError, match=why):
        Schema.of(pd.DataFrame({"type": pd.Series(values, dtype=object)}), ["type"])


class Unspeakable:
    """An object without a text."""

    def __repr__(self):
        raise ValueError("no text")


@pytest.mark.parametrize("labels", [[["type"]], [Unspeakable()], None, 5, Unspeakable()])
def test_what_is_no_list_of_labels_is_told_in_one_line(labels):
    with refused("labels: got ", "name obs columns, as text"):
        label_names(labels)


def test_one_label_or_several():
    assert label_names("type") == ["type"]
    assert label_names(name for name in ("type", "donor")) == ["type", "donor"]
    assert label_names(()) == []


@pytest.mark.parametrize("kind", [list, pd.Categorical])
def test_categories_without_a_text_are_told_in_one_line(kind):
    values = kind([Unspeakable(), Unspeakable()])
    with refused("labels: a category of type Unspeakable has no text"):
        Schema.of(pd.DataFrame({"type": pd.Series(values)}), ["type"])


def test_categories_with_the_same_text_are_told_in_one_line():
    day = pd.Categorical([datetime.date(2020, 1, 2), "2020-01-02"])
    with refused("label 'day': different categories have the same text", "astype(str)"):
        Schema.of(pd.DataFrame({"day": day}), ["day"])
