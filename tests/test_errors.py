import numpy as np
import pytest

import scld
from scld.errors import (
    CheckpointError,
    DataError,
    NotFittedError,
    RequestError,
    SCLDError,
    check_int,
    listed,
    nearest,
    one_line,
    shown,
)

OURS = [DataError, RequestError, NotFittedError, CheckpointError]


@pytest.mark.parametrize("error", OURS)
def test_one_except_clause_catches_every_error_of_scld(error):
    with pytest.raises(SCLDError, match="the place"):
        raise error("the place: the value")


@pytest.mark.parametrize("error", OURS)
def test_unusable_input_is_a_value_error(error):
    with pytest.raises(ValueError, match="the place"):
        raise error("the place: the value")


def test_a_request_and_a_checkpoint_are_distinguished():
    assert issubclass(RequestError, DataError)
    assert issubclass(CheckpointError, DataError)
    assert not issubclass(RequestError, CheckpointError)
    assert not issubclass(CheckpointError, RequestError)


def test_the_base_class_is_not_a_value_error():
    assert not issubclass(SCLDError, ValueError)


def test_not_fitted_is_an_attribute_error_as_in_scikit_learn():
    assert issubclass(NotFittedError, AttributeError)
    assert not issubclass(RequestError, AttributeError)


def test_the_tree_in_the_docstring_is_the_tree_of_classes():
    lines = [line for line in scld.errors.__doc__.splitlines() if "Error " in line]
    drawn = [line.split("──")[-1].split()[0] for line in lines if line.startswith("    ")]
    tree = (SCLDError, DataError, RequestError, NotFittedError, CheckpointError)
    assert drawn == [error.__name__ for error in tree]


@pytest.mark.parametrize("value", [1, 7, np.int64(7), np.uint8(7)])
def test_integers_within_bounds_become_plain_integers(value):
    found = check_int("n", value, 1, 7)
    assert found == value
    assert type(found) is int


@pytest.mark.parametrize("value", [0, 8, 2.0, "3", None, True, np.nan, [3]])
def test_anything_else_is_refused_with_the_bounds(value):
    with pytest.raises(
        RequestError, match=r"n: got .*; allowed are integers from 1 to 7(, such as 2)?$"
    ):
        check_int("n", value, 1, 7)


def test_the_nearest_name_is_suggested():
    assert nearest("Counts", ["raw", "counts"]) == "; did you mean 'counts'?"
    assert nearest("zzz", ["raw", "counts"]) == ""
    assert nearest("x", []) == ""


def test_long_lists_and_long_values_are_cut():
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed(["a", "b", "c"], 2) == "'a', 'b' and 1 more"
    assert one_line("a\nb\t c") == "a b c"
    assert len(one_line("x" * 1000)) == 160
    assert one_line("") == "str"


class Unspeakable:
    """An object without a text."""

    def __repr__(self):
        raise ValueError("no text")


def test_what_has_no_text_or_none_that_can_be_printed_is_shown_all_the_same():
    assert one_line(Unspeakable()) == shown(Unspeakable()) == "Unspeakable"
    assert shown([Unspeakable()]) == "list"
    assert one_line("lone \udc80") == r"lone \udc80"
    assert shown("a\nb") == r"'a\nb'"
