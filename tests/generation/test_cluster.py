"""Shards of one request: in one process, and on workers that may die."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import scld
from scld.errors import CheckpointError, RequestError
from scld.generation import cluster
from scld.generation.fitted import FittedModel
from scld.generation.shards import generate_shard
from scld.io.shards import ShardStore, manifest_of

N, SIZE = 5_000, 2_048
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(saved):
    return saved


def generate(checkpoint, output, **options):
    usual = {"n": N, "shard_cells": SIZE, "seed": 7, "progress": False}
    return scld.generate_shards(checkpoint, output, **{**usual, **options})


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory):
    return generate(checkpoint, tmp_path_factory.mktemp("made") / "cells.zarr")


def content(path):
    """Every file and its bytes."""
    return {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"where": {"cell_type": "NK"}},
        {"where": {"cell_type": ["NK", "B"], "donor": 1}, "guidance": 1.5, "steps": 3},
        {"guidance_interval": (0.1, np.inf), "guidance": {"donor": 2.0}},
        {"post": "select"},
    ],
    ids=str,
)
def test_the_cells_are_those_of_one_sample(checkpoint, synth, tmp_path, options):
    cells = scld.data.read(generate(checkpoint, tmp_path / "cells.zarr", **options))
    whole = synth.sample(N, seed=7, progress=False, **options)
    assert (cells.X != whole.X).nnz == 0
    assert cells.obs.equals(whole.obs)


def test_shards_can_be_evaluated_and_fitted(made, config, cells):
    table = scld.evaluate(cells, cells, made, "cell_type", max_cells=50, progress=False).table
    assert len(table)
    assert (
        scld.Synthesizer("cell_type", config=config).fit(made, progress=False).summary["cells"] == N
    )


def test_parts_with_unseen_combinations_have_the_same_columns(checkpoint, tmp_path):
    path = generate(checkpoint, tmp_path / "cells.zarr", unseen=True)
    assert scld.data.read(path).obs["seen_in_training"].all()


def test_only_what_is_missing_is_made(made, checkpoint, tmp_path, monkeypatch):
    output = tmp_path / "cells.zarr"
    generate(checkpoint, output)
    store = ShardStore(output, manifest_of(output)["request"])
    (store.folder(1) / "X" / "data" / "c" / "0").write_bytes(b"damaged")
    numbers = []

    def watched(*arguments):
        numbers.append(arguments[-1])
        return generate_shard(*arguments)

    monkeypatch.setattr(cluster, "generate_shard", watched)
    generate(checkpoint, output)
    assert numbers == [1]
    assert content(output) == content(made)


def test_without_a_seed_the_same_call_finishes_what_it_began(checkpoint, tmp_path, monkeypatch):
    output = tmp_path / "cells.zarr"

    def stops(checkpoint, output, request, shard):
        if shard == 1:
            raise KeyboardInterrupt
        return generate_shard(checkpoint, output, request, shard)

    with monkeypatch.context() as patch:
        patch.setattr(cluster, "generate_shard", stops)
        with pytest.raises(KeyboardInterrupt):
            generate(checkpoint, output, seed=None)
    seed = manifest_of(output)["request"]["seed"]
    generate(checkpoint, output, seed=None)
    assert manifest_of(output)["request"]["seed"] == seed
    whole = generate(checkpoint, tmp_path / "whole.zarr", seed=seed)
    assert content(output) == content(whole)


def test_a_worker_with_another_model_makes_nothing(made, checkpoint, tmp_path):
    request = {**manifest_of(made)["request"], "checkpoint": "0" * 64}
    with pytest.raises(CheckpointError, match="same checkpoint"):
        generate_shard(str(checkpoint), str(tmp_path), request, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, r"n: got 0"),
        ({"shard_cells": 1000}, r"shard_cells: got 1,000; allowed are multiples of 2,048"),
        ({"workers": 0}, r"workers: got 0"),
        ({"workers": 2, "scheduler": "tcp://127.0.0.1:9"}, "one of them"),
        ({"where": {"cell_type": "Bcell"}}, "no category 'Bcell'"),
        ({"output": "cells.h5ad"}, r"ends in \.zarr"),
        ({"guidance": -1}, "guidance"),
    ],
    ids=str,
)
def test_errors_come_before_the_work_and_leave_nothing(checkpoint, tmp_path, options, words):
    options = dict(options)
    output = tmp_path / options.pop("output", "cells.zarr")
    with pytest.raises(RequestError, match=words):
        generate(checkpoint, output, **options)
    assert not list(tmp_path.iterdir())


def test_overwriting_makes_new_cells(checkpoint, tmp_path):
    output = tmp_path / "cells.zarr"
    generate(checkpoint, output, seed=None, n=300)
    before = manifest_of(output)["request"]["seed"]
    generate(checkpoint, output, seed=None, n=300, overwrite=True)
    assert manifest_of(output)["request"]["seed"] != before


@pytest.mark.parametrize("shard_cells", [2_048, 20_480])
def test_what_it_would_take_does_not_depend_on_the_size_of_shards(saved, tmp_path, shard_cells):
    model = FittedModel.load(saved, CPU)
    target = (saved, tmp_path / "cells.zarr", False)
    plan = cluster.Plan.of(model, *target, 10**9, None, False, shard_cells, {"progress": False})
    text = plan.expected(workers=2)
    assert f"1,000,000,000 cells in {plan.shards:,} shards" in text
    per_cell = float(re.search(r"disk: ([\d.]+) GB", text)[1])  # of 10^9 cells: bytes of one
    assert 10 < per_cell < 200
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["foo", "http://x:y", "tcp://host", ""])
def test_an_address_that_is_none_is_refused_at_once(checkpoint, tmp_path, address):
    with pytest.raises(RequestError, match=r"scheduler: got .*addresses such as tcp"):
        generate(checkpoint, tmp_path / "cells.zarr", scheduler=address)
    assert not list(tmp_path.iterdir())


def test_more_workers_than_memory_allows_are_refused(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "memory_left", lambda: 2 * 10**9)
    with pytest.raises(RequestError, match=r"workers: 50 need about .* GB.*use at most \d,"):
        generate(checkpoint, tmp_path / "cells.zarr", workers=50, n=50 * SIZE)
    assert not list(tmp_path.iterdir())


def test_without_dask_the_error_says_how_to_get_it(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RequestError, match=r"pip install 'scld\[cluster\]'"):
        generate(checkpoint, tmp_path / "cells.zarr", workers=2)
    assert not list(tmp_path.iterdir())


def command(checkpoint, output, *arguments):
    """The command line in a process of its own."""
    program = "import sys; from scld.cli import main; sys.exit(main())"
    texts = ["-n", str(N), "--shard-cells", str(SIZE), "--seed", "7", "-o", str(output)]
    return subprocess.Popen(
        [sys.executable, "-c", program, "sample", str(checkpoint), *texts, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def output_of(process):
    text, _ = process.communicate(timeout=180)
    assert process.returncode == 0, text
    return text


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_makes_the_same_bytes(made, checkpoint, tmp_path, workers):
    output = tmp_path / "cells.zarr"
    text = output_of(command(checkpoint, output, "--workers", str(workers)))
    assert "5,000 cells in 3 shards" in text
    assert content(output) == content(made)


def children(process):
    """Processes below this one."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    found = [int(child) for task in tasks for child in task.read_text().split()]
    return [one for child in found for one in (child, *children(child))]


def workers_of(process):
    """Processes that Dask started; others keep track of resources."""
    lines = {child: Path(f"/proc/{child}/cmdline").read_text() for child in children(process)}
    found = [child for child, line in lines.items() if "spawn_main" in line]
    assert len(found) == 2
    return found


def wait_for(condition, seconds=120):
    for _ in range(20 * seconds):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("victim", ["a worker", "the command"])
def test_what_is_killed_in_the_middle_is_finished(made, checkpoint, tmp_path, victim):
    """Enough shards that some are made and some are not when the signal comes."""
    output, cells = tmp_path / "cells.zarr", ["-n", str(20 * SIZE)]
    process = command(checkpoint, output, "--workers", "2", *cells)
    wait_for(lambda: len(list(output.glob("shard-*.json"))) >= 2)
    if victim == "a worker":
        os.kill(workers_of(process.pid)[-1], signal.SIGKILL)
        output_of(process)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not manifest_of(output)["complete"]
        text = output_of(command(checkpoint, output, "--workers", "2", *cells))
        assert "of 20 shards are there already" in text
    assert manifest_of(output)["complete"]
    assert not list(output.glob(".scld-*"))
    alone = generate(checkpoint, tmp_path / "alone.zarr", n=20 * SIZE)
    assert content(output) == content(alone)


@pytest.mark.slow
def test_a_scheduler_that_is_there_is_used_and_one_that_is_not_is_named(
    made, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr(cluster, "_ANSWER", 2)
    with pytest.raises(RequestError, match=r"scheduler: 'tcp://127\.0\.0\.1:9' does not answer"):
        generate(checkpoint, tmp_path / "cells.zarr", scheduler="tcp://127.0.0.1:9")
    assert not list(tmp_path.iterdir())
    program = (
        "from distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    with LocalCluster(n_workers=1, dashboard_address=None) as cluster:\n"
        "        print(cluster.scheduler_address, flush=True)\n"
        "        input()\n"
    )
    script = tmp_path / "cluster.py"
    script.write_text(program)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, script], **pipes) as server:
        address = server.stdout.readline().strip()
        text = output_of(command(checkpoint, tmp_path / "cells.zarr", "--scheduler", address))
        server.communicate("\n")
    assert "3 shards" in text
    assert content(tmp_path / "cells.zarr") == content(made)
