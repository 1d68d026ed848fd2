"""Two processes that train together, as one would alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toy import QUICK, make_cells

import scld
from scld.errors import RequestError
from scld.training.processes import ALONE, Processes

TESTS = Path(__file__).parents[1]
CPU = torch.device("cpu")

TRAIN = """
import atexit, sys, torch
from torch import nn
from scld.config import TrainingConfig
from scld.training.loop import train
from scld.training.processes import Processes

def save_state():  # runs after all that is registered later
    torch.save(torch.distributed.is_initialized(), f"{sys.argv[2]}.{processes.rank}.connected")

atexit.register(save_state)
processes = Processes.start(int(sys.argv[1]), 1, torch.device("cpu"))
torch.manual_seed(0)
inputs = torch.randn(200, 5)
target = inputs.square().sum(1, keepdim=True)
module = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 1))

def loss(module, cells):  # without noise, which each process draws for itself
    return (module(inputs[cells]) - target[cells]).square().mean()

config = TrainingConfig(
    steps=300, epochs=1, batch=20, learning_rate=0.01, intervals=6, patience=2, clip=0.5
)
groups = [{"params": list(module.parameters())}]
cells, held_out = torch.arange(180), torch.arange(180, 200)
history = train(module, groups, loss, cells, held_out, config, seed=3, processes=processes)
torch.save([module.state_dict(), history.validation], f"{sys.argv[2]}.{processes.rank}")
"""

FIT = """
import sys, scld
from toy import TINY, QUICK, make_cells
training = {**QUICK, "intervals": 8, "steps": int(sys.argv[3]), "save_seconds": 0.0}
settings = {**TINY, "autoencoder_training": training, "denoiser_training": training}
settings["sampling"] = {**TINY["sampling"], "post": "off"}
config = scld.Config.from_dict(settings)
synth = scld.Synthesizer("cell_type", config=config, device="cpu")
synth.fit(make_cells(), devices=int(sys.argv[1]), checkpoint=sys.argv[2], progress=False)
"""


def start(program, folder, *arguments):
    script = folder / "script.py"
    script.write_text(program)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = [sys.executable, script, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def run(*arguments):
    process = start(*arguments)
    text, _ = process.communicate(timeout=180)
    assert process.returncode == 0, text


@pytest.mark.slow
def test_two_processes_reach_the_weights_of_one(tmp_path):
    """Adam, clipping, averaging and early stopping, up to rounding."""
    for number in (1, 2):
        run(TRAIN, tmp_path, number, tmp_path / f"of_{number}")
    one, first, second = (torch.load(tmp_path / name) for name in ("of_1.0", "of_2.0", "of_2.1"))
    assert len(one[1]) == len(first[1])
    torch.testing.assert_close(torch.tensor(first[1]), torch.tensor(one[1]), rtol=1e-3, atol=1e-6)
    for name, weight in one[0].items():
        torch.testing.assert_close(first[0][name], weight, rtol=1e-3, atol=1e-5)
        assert torch.equal(first[0][name], second[0][name])
    assert not any(torch.load(tmp_path / f"of_2.{rank}.connected") for rank in range(2))


@pytest.mark.slow
def test_a_fit_of_two_processes_is_written_once_and_continued_by_one(tmp_path):
    path = tmp_path / "model.scld"
    process = start(FIT, tmp_path, 2, path, 4000)
    state = path / "resume" / "autoencoder" / "state.json"
    for _ in range(1200):
        if state.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert state.exists()
    with pytest.raises(scld.CheckpointError, match="interrupted"):
        scld.load(path)
    run(FIT, tmp_path, 1, path, 4000)
    again = tmp_path / "again.scld"
    run(FIT, tmp_path, 2, again, 40)
    assert scld.load(again).sample(50, progress=False).n_obs == 50
    assert scld.load(path).summary["cells"] == make_cells().n_obs
    assert {file.name for file in tmp_path.iterdir()} == {"script.py", "model.scld", "again.scld"}


def test_alone_nothing_is_shared():
    cells = torch.arange(7)
    assert ALONE.part(cells).equal(cells)
    assert ALONE.first
    assert ALONE.of_first(3) == 3
    assert Processes.start(1, 1, CPU) == ALONE


def test_parts_are_disjoint_and_cover_the_batch():
    parts = [Processes(rank, 3).part(torch.arange(12)) for rank in range(3)]
    assert {len(part) for part in parts} == {4}
    assert torch.cat(parts).sort().values.equal(torch.arange(12))


@pytest.mark.parametrize(("devices", "nodes"), [(0, 1), (1, 0), ("two", 1)])
def test_numbers_are_checked(devices, nodes):
    with pytest.raises(RequestError, match=r"devices|nodes"):
        Processes.start(devices, nodes, CPU)


def test_batches_that_cannot_be_shared_are_refused_before_anything_starts():
    with pytest.raises(RequestError, match="3 processes cannot share batches of 32"):
        Processes.start(3, 1, CPU, (QUICK["batch"],))


def test_without_fabric_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(RequestError, match=r"pip install 'scld\[distributed\]'"):
        Processes.start(2, 1, CPU)
