import pytest

import scld
from scld.errors import CheckpointError, DataError, RequestError, SCLDError


@pytest.mark.parametrize("error", [DataError, RequestError, CheckpointError])
def test_one_except_catches_everything_of_ours(error):
    with pytest.raises(SCLDError, match="the place"):
        raise error("the place: the value")


@pytest.mark.parametrize("error", [DataError, RequestError, CheckpointError])
def test_bad_input_is_a_value_error(error):
    with pytest.raises(ValueError, match="the place"):
        raise error("the place: the value")


def test_a_request_and_a_checkpoint_are_told_apart():
    assert issubclass(RequestError, DataError)
    assert issubclass(CheckpointError, DataError)
    assert not issubclass(RequestError, CheckpointError)
    assert not issubclass(CheckpointError, RequestError)


def test_the_root_is_not_a_value_error():
    assert not issubclass(SCLDError, ValueError)


def test_the_tree_drawn_in_the_module_is_the_tree():
    drawn = [line.split("──")[-1].split()[0] for line in scld.errors.__doc__.splitlines() if "Error " in line and "   " in line]
    assert drawn == [error.__name__ for error in (SCLDError, DataError, RequestError, CheckpointError)]
