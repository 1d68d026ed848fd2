"""The state of an interrupted training: what is damaged is not used, not even in part."""

import json
import random
import shutil
from collections import Counter

import pytest
import torch
from test_loop import CONFIG, linear, run, weights
from torch import nn

from scld.errors import RequestError
from scld.io.sealed import SUMS, seal
from scld.training.state import State, load_state

FILES = ["averaged", "best", "module", "optimizer"]


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The state after three intervals."""
    folder = tmp_path_factory.mktemp("interrupted") / "state"

    def stop(done, text):
        if done == 4:
            raise Stop

    with pytest.raises(Stop):
        run(linear(), progress=stop, resume=folder)
    return folder


@pytest.fixture
def state(interrupted, tmp_path):
    return shutil.copytree(interrupted, tmp_path / "state")


@pytest.fixture(scope="module")
def complete():
    module = linear()
    run(module)
    return weights(module)


def assert_begins_anew(state, complete, what):
    """With a warning, to the weights of an uninterrupted run."""
    module, done = linear(), []
    with pytest.warns(UserWarning, match=f"damaged: .*{what}.*; this stage begins anew") as seen:
        run(module, resume=state, progress=lambda interval, text: done.append(interval))
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)
    assert done[0] == 1
    assert torch.equal(weights(module), complete)


def test_the_state_is_sealed_and_continued(state, complete):
    names = {path.name for path in state.iterdir()}
    assert names == {"state.json", SUMS, *(f"{name}.safetensors" for name in FILES)}
    module, done = linear(), []
    run(module, resume=state, progress=lambda interval, text: done.append(interval))
    assert done[:2] == [3, 4]
    assert torch.equal(weights(module), complete)


@pytest.mark.parametrize("name", ["state.json", SUMS, *(f"{name}.safetensors" for name in FILES)])
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "one bit", "a folder"])
def test_each_damaged_file_is_noticed(state, complete, name, damage):
    path = state / name
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "one bit":
        place = random.Random(name).randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
    elif damage == "a folder":
        path.mkdir()
    assert_begins_anew(state, complete, "")


def edited(state, **values):
    """Another state.json, with its right checksum."""
    former = json.loads((state / "state.json").read_text())
    (state / "state.json").write_text(json.dumps({**former, **values}))
    seal(state)


@pytest.mark.parametrize(
    "values",
    [
        {"unknown": 1},
        {"interval": 10**30},
        {"interval": -1},
        {"interval": True},
        {"interval": 2},
        {"interval": None},
        {"best_interval": 4},
        {"best_interval": "1"},
        {"validation": 3},
        {"validation": [1.0, "a", 2.0, 3.0]},
        {"seconds": None},
    ],
    ids=str,
)
def test_a_state_that_no_run_can_have_is_not_continued(state, complete, values):
    edited(state, **values)
    assert_begins_anew(state, complete, "state")


def test_the_state_of_another_network_is_not_continued(state, tmp_path, complete):
    other = nn.Linear(7, 1)
    torch.manual_seed(0)
    (state / "module.safetensors").unlink()
    shutil.copy(state / "optimizer.safetensors", state / "module.safetensors")
    seal(state)
    assert_begins_anew(state, complete, "another network")
    optimizer = torch.optim.Adam(other.parameters())
    before = weights(other).clone()
    with pytest.raises(ValueError, match="another network"):
        load_state(state, {"module": other, "averaged": other, "best": other}, optimizer, 6)
    assert torch.equal(weights(other), before)
    assert not optimizer.state_dict()["state"]


def test_the_optimizer_of_another_network_is_not_continued(state, complete):
    (state / "optimizer.safetensors").unlink()
    shutil.copy(state / "module.safetensors", state / "optimizer.safetensors")
    seal(state)
    assert_begins_anew(state, complete, "another network")


def test_a_full_disk_keeps_the_former_state(state, monkeypatch):
    former = {path.name: path.read_bytes() for path in state.iterdir()}

    def full(folder):
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr("scld.training.state.seal", full)
    with pytest.raises(RequestError, match="state: no space left on its disk; free some"):
        run(linear(), resume=state)
    assert {path.name: path.read_bytes() for path in state.iterdir()} == former
    assert Counter(path.name for path in state.parent.iterdir()) == {"state": 1}


def test_a_run_is_over_after_its_intervals_or_without_gain():
    assert State().continues(CONFIG)
    assert not State(interval=CONFIG.intervals, best_interval=CONFIG.intervals - 1).continues(
        CONFIG
    )
    assert not State(interval=CONFIG.patience + 1, best_interval=0).continues(CONFIG)
