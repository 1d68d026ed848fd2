"""Do the wheel and the sdist hold what they should, install from files, and run without network?

Builds both, installs each in an empty environment from a folder of wheels, and runs the commands
there with an empty home folder, without network. Every file that they write must lie in the output
folder or in a documented cache (docs/data.md). PyPI is needed to gather the wheels. Nothing is left
behind. Linux only.

    python scripts/check_package.py
"""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tempfile
import time
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILDERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
IN_SDIST = {  # beside src: what the tests need, and what people read
    *("tests", "docs", "benchmarks", "scripts", "constraints.txt", "pyproject.toml", "PKG-INFO"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", ".gitignore"),
}
NEEDED = {  # a change of patterns could drop these without an error
    *("scld/py.typed", "scld/datasets/pbmc.h5ad", "scld/datasets/LICENSE.matilda_sc"),
    *("scld/datasets/README.md", "scld/evaluation/templates/report.html"),
    "scld/power_analysis/templates/power.html",
}
LICENCES = {"LICENSE", "src/scld/datasets/LICENSE.matilda_sc"}
COMMANDS = [
    "scld demo --quick --quiet -o out/demo",
    "scld fit out/demo/train.h5ad --label cell_type --preset quick --quiet -o out/model.scld",
    "scld sample out/model.scld -n 100 --seed 0 --quiet -o out/cells.h5ad",
    "scld info out/model.scld",
]
CACHES = {  # what docs/data.md names, in each watched folder
    "environment": r".*/__pycache__/[^/]+",
    "home": r"\.cache/matplotlib/fontlist-[^/]+\.json",
    "work": r"out/.*",
    "temporary": r"(?!)",
}
# seen even where the network is there, and where a library catches the error
NO_NETWORK = """
import os, sys

def hook(event, args):
    to_network = event == "socket.connect" and isinstance(args[1], tuple)
    if to_network or event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open(os.environ["ATTEMPTS"], "a") as file:
            print(event, args, file=file)
        raise OSError(f"no network here: {event}")

sys.addaudithook(hook)
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="scld-package-") as folder:
        base = Path(folder)
        wheel, sdist = build(base)
        check_wheel(wheel)
        check_sdist(sdist)
        wheels = gather(base, wheel)
        for package in (wheel, sdist):
            started = time.perf_counter()
            check_installed(base / package.suffix[1:], package, wheels, version_of(sdist))
            print(f"{package.name}: runs; {time.perf_counter() - started:.0f} s", flush=True)
        print("2 passed, 0 failed")


def build(base: Path) -> tuple[Path, Path]:
    """The wheel and the sdist of this tree."""
    python = environment(base / "tools")
    run([python, "-m", "pip", "install", "--quiet", *BUILDERS])
    run([python, "-m", "hatchling", "build", "-d", str(base / "dist")], cwd=ROOT)
    (wheel,), (sdist,) = (base / "dist").glob("*.whl"), (base / "dist").glob("*.tar.gz")
    same("version of the wheel", {wheel.name.split("-")[1]}, {version_of(sdist)})
    return wheel, sdist


def version_of(sdist: Path) -> str:
    return sdist.name.removeprefix("scld-").removesuffix(".tar.gz")


def check_wheel(wheel: Path) -> None:
    """It holds the files of src/scld, its metadata with the licences, and nothing else."""
    names = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    expected = {name for name in files if "__pycache__" not in name and "egg-info" not in name}
    metadata = {name for name in names if ".dist-info/" in name}
    same("files of the wheel", names - metadata, expected)
    same("files that the package needs", NEEDED & names, NEEDED)
    found = {name.partition("/licenses/")[2] for name in metadata if "/licenses/" in name}
    same("licences", found, LICENCES)


def check_sdist(sdist: Path) -> None:
    """It holds the tree without what is made by running it."""
    with tarfile.open(sdist) as file:
        names = [name.partition("/")[2] for name in file.getnames()]
    same("folders of the sdist", {name.partition("/")[0] for name in names}, IN_SDIST | {"src"})
    made = [name for name in names if re.search(r"__pycache__|\.pyc$|\.nb[ci]$|_cache/", name)]
    same("files of the sdist that running makes", set(made), set())


def gather(base: Path, wheel: Path) -> Path:
    """A folder with the wheels of all dependencies, and of what builds the sdist."""
    folder = base / "wheels"
    pip = [str(base / "tools" / "bin" / "python"), "-m", "pip", "download", "--quiet"]
    run([*pip, "-d", str(folder), "-c", str(ROOT / "constraints.txt"), str(wheel), *BUILDERS])
    for own in folder.glob("scld-*"):  # each package is installed from its own file
        own.unlink()
    return folder


def check_installed(base: Path, package: Path, wheels: Path, version: str) -> None:
    folders = {name: base / name for name in CACHES}
    for name in ("home", "work/out", "temporary", "site"):
        (base / name).mkdir(parents=True)
    (base / "site" / "sitecustomize.py").write_text(NO_NETWORK)
    python = environment(folders["environment"])
    bare = {
        "PATH": f"{Path(python).parent}:/usr/bin:/bin",
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["temporary"]),
        "PIP_CONFIG_FILE": os.devnull,
    }
    # --no-compile: Python compiles the modules that are imported, not all of a gigabyte
    install = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-compile"]
    run([*unplugged(), *install, "--find-links", str(wheels), str(package)], cwd=base, env=bare)
    before = {name: listing(folder) for name, folder in folders.items()}
    attempts = base / "attempts"
    attempts.touch()
    watched = {**bare, "PYTHONPATH": str(base / "site"), "ATTEMPTS": str(attempts)}
    show_start(watched, folders["work"])
    told = run([*unplugged(), "scld", "--version"], cwd=folders["work"], env=watched, quiet=True)
    same("version", {told.strip()}, {f"scld, version {version}"})  # an sdist has no git tags
    for command in COMMANDS:
        run([*unplugged(), *command.split()], cwd=folders["work"], env=watched, quiet=True)
    same("attempts to connect", set(attempts.read_text().splitlines()), set())
    for name, allowed in CACHES.items():
        written = set(listing(folders[name]).items()) - set(before[name].items())
        stray = {path for path, _ in written if not re.fullmatch(allowed, path)}
        same(f"files written to the folder {name}", stray, set())
        print(f"  {name}: {len(written)} files written, all in documented places")


def show_start(env: dict[str, str], cwd: Path) -> None:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        run([*unplugged(), "scld", "--help"], cwd=cwd, env=env, quiet=True)
        seconds.append(time.perf_counter() - started)
    print(f"  scld --help: {min(seconds):.2f} s, the best of 3")


def environment(folder: Path) -> str:
    """The Python of a new environment."""
    venv.create(folder, with_pip=True)
    return str(folder / "bin" / "python")


def unplugged() -> list[str]:
    """Starts a command in a namespace without network, where this is allowed."""
    for start in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        try:
            subprocess.run([*start, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return start
    return []


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file in a folder."""
    files = {str(path.relative_to(folder)): path.lstat() for path in folder.rglob("*")}
    return {name: (s.st_size, s.st_mtime_ns) for name, s in files.items() if not is_folder(s)}


def is_folder(status: os.stat_result) -> bool:
    return (status.st_mode & 0o170000) == 0o040000


def run(
    command: list[str],
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    quiet: bool = False,
) -> str:
    """What the command printed, if quiet."""
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=quiet, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {result.returncode}\n{result.stderr}")
    return result.stdout or ""


def same(what: str, found: set[str], expected: set[str]) -> None:
    if found != expected:
        lines = [f"  more: {name}" for name in sorted(found - expected)]
        lines += [f"  missing: {name}" for name in sorted(expected - found)]
        raise SystemExit("\n".join([f"{what}:", *lines]))


if __name__ == "__main__":
    main()
