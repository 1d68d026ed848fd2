import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba.core.caching import CacheImpl

import scld
from scld.kernels import jit


@pytest.fixture
def nothing_reported(monkeypatch):
    monkeypatch.setattr(jit, "_cache_reported", False)


def module_of_functions(folder, *names):
    """A module in a folder with these functions, each of which adds 1."""
    path = folder / "functions.py"
    path.write_text("".join(f"def {name}(x):\n    return x + 1\n\n" for name in names))
    spec = importlib.util.spec_from_file_location("functions", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_machine_code_is_cached_on_disk(tmp_path, monkeypatch, caplog, nothing_reported):
    cache = tmp_path / "cache"
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(cache))
    with caplog.at_level(logging.DEBUG, logger="scld"):
        compiled = jit.njit()(module_of_functions(tmp_path, "add").add)
        assert compiled(1) == 2
    assert list(cache.glob("**/functions.add-*.nbc"))
    assert not [record for record in caplog.records if record.name.startswith("scld")]


def test_an_inlined_function_is_not_cached(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    assert jit.njit(inline=True)(module_of_functions(tmp_path, "add").add)(1) == 2
    assert not list(tmp_path.glob("cache/**/*.nbc"))


def test_without_a_folder_for_the_cache_functions_work_and_one_debug_line_says_so(
    tmp_path, monkeypatch, caplog, nothing_reported
):
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    module = module_of_functions(tmp_path, "first", "second")
    with caplog.at_level(logging.DEBUG, logger="scld"):
        assert [jit.njit()(f)(1) for f in (module.first, module.second)] == [2, 2]
    records = [record for record in caplog.records if record.name.startswith("scld")]
    assert [record.levelname for record in records] == ["DEBUG"]
    assert "not cached" in records[0].getMessage()


_USE = """
import logging
records = []
handler = logging.Handler()
handler.emit = records.append
logging.getLogger("scld").addHandler(handler)
logging.getLogger("scld").setLevel(logging.DEBUG)

import numpy as np
import scld
import scld.kernels.likelihood
import scld.kernels.sampling
from scld.kernels.trees import Trees, sum_of_trees

leaf = np.zeros((1, 1), np.int64)
trees = Trees(leaf, np.zeros((1, 1)), leaf, leaf, np.full((1, 1), 0.5))
assert sum_of_trees(np.zeros((3, 1), np.float32), trees).tolist() == [0.5] * 3
assert not sum_of_trees.__globals__["_sum_of_trees"].stats.cache_path
print(scld.__file__)
print([record.levelname for record in records])
"""


def test_the_kernels_work_where_neither_the_package_nor_home_can_be_written(tmp_path):
    """A regular file in place of each folder stops root too, whom permissions do not stop."""
    package, file = tmp_path / "site" / "scld", tmp_path / "file"
    ignored = shutil.ignore_patterns("__pycache__", "*.h5ad")
    shutil.copytree(Path(scld.__file__).parent, package, ignore=ignored)
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").touch()
    file.touch()
    homes = {"HOME": str(file / "home"), "XDG_CACHE_HOME": str(file / "cache")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    environment = kept | homes | {"PYTHONPATH": str(package.parent)}
    command = [sys.executable, "-c", _USE]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [str(package / "__init__.py"), "['DEBUG']"]
