"""Do the tests pass with the lowest versions that pyproject.toml allows?

Installs the package with all of its extras for users in a fresh environment, each dependency that
pyproject.toml names at its lower bound, and runs many tests. Dependencies of dependencies are the
newest that fit. Needs Python 3.11 and PyPI, and leaves nothing behind.

    python scripts/check_lowest.py [options of pytest]
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("cluster", "distributed", "power")
# torch stays at the version of constraints.txt: older builds are gigabytes that differ per machine
PINNED = "torch"
ALSO = [  # newer ones warn about what matplotlib 3.10 calls, and about what zarr 3.1.2 asks for
    *("pyparsing<3.3", "numcodecs<0.16.4"),
]
TOOLS = ["hypothesis", "prdc", "pytest", "pytest-xdist"]
TESTS = [  # in minutes: what meets a dependency, and one module or more of each extra
    *("tests/io", "tests/model", "tests/kernels", "tests/evaluation/metrics"),
    *("tests/evaluation/test_inputs.py", "tests/evaluation/test_plots.py", "tests/test_cli.py"),
    *("tests/generation/test_request.py", "tests/generation/test_sampling_options.py"),
    *("tests/generation/test_cluster.py", "tests/training/test_processes.py"),
    *("tests/power_analysis/test_power_detection.py", "tests/power_analysis/test_power_design.py"),
    *("tests/test_schema.py", "tests/test_preprocessing.py", "tests/test_network.py"),
]
# they compare with packages that ask for newer versions
WITHOUT = [f"tests/evaluation/metrics/test_{name}.py" for name in ("published", "space")]
NEWER = [  # tests that call what only newer versions have; the package does not
    "tests/model/test_autoencoder.py::"
    "test_encoding_and_its_gradient_are_the_same_bytes_for_any_number_of_threads",  # scipy 1.15
    "tests/test_schema.py::test_text_as_pandas_3_stores_it",  # pandas 2.3
]


def lowest() -> list[str]:
    """`name==version` for the lower bound of each requirement."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    required = project["dependencies"] + [name for extra in EXTRAS for name in extras[extra]]
    return [bound(requirement) for requirement in required]


def bound(requirement: str) -> str:
    found = re.fullmatch(r"([\w.-]+)>=([\w.]+)", requirement)
    if found is None:
        raise SystemExit(f"pyproject.toml: {requirement}: write NAME>=LOWEST")
    name, version = found.groups()
    return pinned(name) if name == PINNED else f"{name}=={version}"


def pinned(name: str) -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{name}=="))


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="scld-lowest-") as folder:
        python = str(Path(folder) / "venv" / "bin" / "python")
        venv.create(Path(folder) / "venv", with_pip=True)
        constraints = Path(folder) / "lowest.txt"
        constraints.write_text("\n".join(lowest() + ALSO))
        print(constraints.read_text(), flush=True)
        package = f"{ROOT}[{','.join(EXTRAS)}]"
        install = [python, "-m", "pip", "install", "--quiet", "-c", str(constraints)]
        subprocess.run([*install, package, *TOOLS], check=True)
        # warnings stay warnings here: old versions of libraries warn about newer ones
        options = ["-o", "filterwarnings=", "-p", "no:cacheprovider"]
        options += [f"--ignore={path}" for path in WITHOUT]
        options += [f"--deselect={test}" for test in NEWER]
        command = [python, "-m", "pytest", *options, *sys.argv[1:], *TESTS]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
