import inspect
import os
import subprocess
import sys

import pytest

import scld

NAMES = ["CheckpointError", "Config", "DataError", "Report", "RequestError", "SCLDError", "Schema", "Synthesizer", "data", "datasets", "evaluate", "load"]


def test_the_public_names_are_these():
    assert sorted(scld.__all__) == sorted(NAMES)
    assert sorted(dir(scld)) == sorted([*NAMES, "__version__"])


@pytest.mark.parametrize("name", NAMES)
def test_each_name_leads_somewhere_and_is_explained(name):
    assert inspect.getdoc(getattr(scld, name))


def test_an_unknown_name_is_refused_and_the_known_ones_are_named():
    with pytest.raises(AttributeError, match=r"'Synthesiser'.*Synthesizer"):
        _ = scld.Synthesiser


def test_version_is_that_of_the_package():
    from importlib.metadata import version

    assert version("scld") == scld.__version__


def modules_after(code: str) -> set[str]:
    ran = subprocess.run([sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in ran.stdout.split()}


def test_import_is_light():
    heavy = {"torch", "anndata", "numba", "sklearn", "scipy", "pandas", "numpy", "matplotlib", "umap", "ot", "h5py", "zarr"}
    assert not heavy & modules_after("import scld; dir(scld)")


@pytest.mark.parametrize("module", ["data", "datasets", "errors"])
def test_the_data_layer_needs_neither_torch_nor_numba(module):
    assert not {"torch", "numba"} & modules_after(f"import scld.{module}")


def test_reading_cells_needs_no_torch():
    assert "torch" not in modules_after("import scld; scld.data.count_matrix(scld.datasets.pbmc())")


@pytest.mark.parametrize(("own", "expected"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_the_waiting_of_torchs_threads_is_set_unless_it_is_already(own, expected):
    rest = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    code = "import scld, os; print(os.environ['GOMP_SPINCOUNT'])"
    ran = subprocess.run([sys.executable, "-c", code], env=rest | own, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == expected
