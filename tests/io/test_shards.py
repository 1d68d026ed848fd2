import hashlib
import json
import os
import shutil
import subprocess
import sys

import anndata as ad
import pytest
from toy import make_cells

import scld
from scld.errors import DataError, RequestError
from scld.io.shards import MANIFEST, ShardStore, finished
from scld.io.write import write

REQUEST = {"cells": 50, "shard_cells": 20, "seed": 1}
CELLS = make_cells(50)


@pytest.fixture
def store(tmp_path):
    """Three shards."""
    store = ShardStore.begin(tmp_path / "cells.zarr", REQUEST, overwrite=False)
    parts = [CELLS[slice(*store.span(shard))] for shard in range(store.number)]
    store.finish([store.write(shard, part) for shard, part in enumerate(parts)])
    return store


def test_spans_are_those_of_full_shards_and_the_rest(store):
    assert [store.span(shard) for shard in range(store.number)] == [(0, 20), (20, 40), (40, 50)]


def test_shards_are_read_as_one_table(store):
    cells = scld.data.read(store.path)
    assert (cells.X != CELLS.X).nnz == 0
    assert list(cells.obs_names) == list(CELLS.obs_names)
    assert list(cells.obs["cell_type"]) == list(CELLS.obs["cell_type"])
    assert scld.data.count_matrix(cells).shape == (50, 30)


def test_a_sample_of_shards_is_that_of_one_file(store, tmp_path):
    CELLS.write_h5ad(tmp_path / "cells.h5ad")
    some, other = (
        scld.data.read(path, at_most=13, seed=3) for path in (store.path, tmp_path / "cells.h5ad")
    )
    assert (some.X != other.X).nnz == 0
    assert list(some.obs_names) == list(other.obs_names)


def test_shards_open_with_counts_on_disk(store):
    cells = scld.data.open_shards(store.path)
    assert cells.X.chunks[0] == (20, 20, 10)
    assert (cells.X[15:45].compute() != CELLS.X[15:45]).nnz == 0
    assert list(cells.obs_names) == list(CELLS.obs_names)


def test_a_shard_is_a_store_that_anndata_reads(store):
    assert (CELLS.X[20:40] != ad.read_zarr(store.folder(1)).X).nnz == 0


def test_the_same_cells_are_the_same_bytes(store, tmp_path):
    again = ShardStore.begin(tmp_path / "again.zarr", REQUEST, overwrite=False)
    assert [again.write(shard, CELLS[slice(*again.span(shard))]) for shard in range(3)] == [
        store.digest(shard) for shard in range(3)
    ]


@pytest.mark.parametrize("part", ["zarr/X/data/c/0", "zarr/X/zarr.json", "json"])
def test_a_damaged_shard_is_found(store, part):
    file = store.path / f"shard-000001.{part}"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert [store.digest(shard) is None for shard in range(3)] == [False, True, False]


def test_a_lost_an_added_and_a_foreign_shard_are_found(store):
    shutil.rmtree(store.folder(0))
    (store.folder(1) / "X" / "more").write_text("")
    shutil.rmtree(store.folder(2))
    shutil.copytree(store.folder(1), store.folder(2))
    shutil.copy(store.record(1), store.record(2))
    assert [store.digest(shard) for shard in range(3)] == [None, None, None]


def test_a_shard_of_another_request_is_not_taken(store):
    other = ShardStore(store.path, {**REQUEST, "seed": 2})
    assert other.digest(0) is None


def test_the_manifest_has_the_digest_of_each_shard(store):
    manifest = json.loads((store.path / MANIFEST).read_text())
    assert manifest["complete"]
    for shard, entry in enumerate(manifest["shards"]):
        record = (store.path / entry["name"]).with_suffix(".json").read_bytes()
        assert entry["sha256"] == hashlib.sha256(record).hexdigest() == store.digest(shard)
        assert entry["cells"] == json.loads(record)["cells"]


def test_what_stopped_workers_left_is_cleared(store):
    (store.path / ".scld-left").mkdir()
    store.finish([store.digest(shard) for shard in range(3)])
    assert not (store.path / ".scld-left").exists()


# Beginning and reading again


def test_the_same_request_is_taken_up(store):
    again = ShardStore.begin(store.path, REQUEST, overwrite=False)
    assert again.digest(0) == store.digest(0)


def test_another_request_is_refused_and_says_what_differs(store):
    with pytest.raises(RequestError, match=r"another request: seed 1, now 2.*overwrite"):
        ShardStore.begin(store.path, {**REQUEST, "seed": 2}, overwrite=False)
    assert store.digest(0) is not None


def test_another_request_replaces_all_shards_if_it_may(store):
    again = ShardStore.begin(store.path, {**REQUEST, "seed": 2}, overwrite=True)
    assert not store.folder(0).exists()
    assert [again.digest(shard) for shard in range(3)] == [None, None, None]


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    path = tmp_path / "cells.zarr"
    path.mkdir()
    (path / "thesis.txt").write_text("")
    for overwrite in (False, True):
        with pytest.raises(RequestError, match=r"cells\.zarr: exists"):
            ShardStore.begin(path, REQUEST, overwrite)
    assert (path / "thesis.txt").exists()


def test_unfinished_shards_are_not_read(tmp_path):
    store = ShardStore.begin(tmp_path / "cells.zarr", REQUEST, overwrite=False)
    store.write(0, CELLS[:20])
    for read in (scld.data.read, scld.data.open_shards, finished):
        with pytest.raises(DataError, match="not all shards are there; run the same command"):
            read(store.path)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": 99}', '{"format": 1}', '{"format": 1, "request": {"cells": 5}}'],
)
def test_a_damaged_manifest_is_one_line(store, content):
    (store.path / MANIFEST).write_text(content)
    for read in (scld.data.read, scld.data.open_shards):
        with pytest.raises(DataError, match=r"manifest\.json: cannot be read") as caught:
            read(store.path)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        ShardStore.begin(store.path, REQUEST, overwrite=False)
    assert ShardStore.begin(store.path, REQUEST, overwrite=True).digest(0) is None


def test_what_holds_no_shards_is_not_opened_as_shards(tmp_path):
    write([CELLS], tmp_path / "cells.zarr")
    for name in ("cells.zarr", "nothing.zarr"):
        with pytest.raises(DataError, match="holds no shards"):
            scld.data.open_shards(tmp_path / name)


def test_a_lost_shard_is_named(store):
    shutil.rmtree(store.folder(1))
    with pytest.raises(DataError, match=r"shard-000001\.zarr: this shard is missing"):
        scld.data.open_shards(store.path)


def test_one_store_replaces_shards_if_it_may(store):
    with pytest.raises(RequestError, match="exists already"):
        write([CELLS], store.path)
    write([CELLS], store.path, overwrite=True)
    assert scld.data.read(store.path).n_obs == 50


_FULL_DISK = """
import resource, sys
from pathlib import Path
from toy import make_cells
from scld.errors import SCLDError
from scld.io.shards import ShardStore
store = ShardStore.begin(Path(sys.argv[1]), {"cells": 50, "shard_cells": 20, "seed": 0}, False)
store.write(0, make_cells(20))
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    store.write(1, make_cells(20))
except SCLDError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 300, 700])
def test_a_disk_that_takes_no_more_is_one_line_and_leaves_whole_shards(tmp_path, limit):
    """Whichever file does not fit, since a process may write files of this size only."""
    path = tmp_path / "cells.zarr"
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__) + "/.."}
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, path, str(limit)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    line = done.stdout.strip()
    assert "shard-000001.zarr: cannot be written" in line
    assert "run the same command again" in line
    assert "\n" not in line
    assert sorted(file.name for file in path.iterdir()) == [
        "manifest.json",
        "shard-000000.json",
        "shard-000000.zarr",
    ]
