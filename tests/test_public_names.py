import inspect
import subprocess
import sys

import pytest

import scld

NAMES = [
    "Artefacts",
    "CheckpointError",
    "Config",
    "DataError",
    "Effect",
    "NotFittedError",
    "PowerStudy",
    "PrivacyAudit",
    "Report",
    "RequestError",
    "SCLDError",
    "Schema",
    "Synthesizer",
    "audit",
    "data",
    "datasets",
    "evaluate",
    "generate_shards",
    "load",
    "power",
    "set_threads",
    "split",
    "truth",
]


def test_the_public_names_are_these():
    assert sorted(scld.__all__) == sorted(NAMES)
    assert sorted(dir(scld)) == sorted([*NAMES, "__version__"])


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_exists_and_has_a_docstring(name):
    assert inspect.getdoc(getattr(scld, name))


def test_the_functions_of_scld_data():
    assert sorted(scld.data.__all__) == ["count_matrix", "open_shards", "permuted", "read"]
    for name in scld.data.__all__:
        assert inspect.getdoc(getattr(scld.data, name))


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(AttributeError, match=r"'Synthesiser'.*Synthesizer"):
        _ = scld.Synthesiser


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert version("scld") == scld.__version__


def printed(code: str) -> str:
    """What some code prints in a process of its own."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def modules_after(code: str) -> set[str]:
    loaded = printed(f"{code}; import sys; print(*sys.modules)").split()
    return {name.split(".")[0] for name in loaded}


def test_import_loads_no_large_package():
    heavy = {"torch", "anndata", "numba", "sklearn", "scipy", "pandas", "numpy", "matplotlib"}
    heavy |= {"umap", "ot", "h5py", "zarr", "rich"}
    assert not heavy & modules_after("import scld; dir(scld)")


@pytest.mark.parametrize("module", ["io", "datasets", "errors", "config", "schema"])
def test_reading_and_labels_import_neither_torch_nor_numba(module):
    assert not {"torch", "numba"} & modules_after(f"import scld.{module}")


def test_reading_and_checking_cells_loads_no_torch():
    code = "import scld; scld.data.count_matrix(scld.data.read(scld.datasets.pbmc()))"
    assert "torch" not in modules_after(code)


OUTSIDE = """
import os, signal, sys, warnings
hooks = []
os.register_at_fork = lambda **given: hooks.extend(given.values())
state = lambda: (dict(os.environ), sys.path[:], sys.excepthook, signal.getsignal(signal.SIGINT))
import torch, anndata, numba, sklearn.decomposition  # what these change is theirs
before = state(), list(warnings.filters), torch.get_num_threads()
del hooks[:]
import scld, scld.cli
for name in scld.__all__:
    getattr(scld, name)
ours = [hook for hook in hooks if str(hook.__module__).startswith("scld")]
after = state(), list(warnings.filters), torch.get_num_threads()
print(after == before, ours)
"""


def test_import_changes_nothing_outside_the_package():
    """No environment variable, no fork hook, no warning filter, no number of threads."""
    assert printed(OUTSIDE) == "True []\n"
