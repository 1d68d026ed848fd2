"""How does scld bear damaged files, malformed inputs, killed processes and full disks?

    python benchmarks/hostile.py [--areas AREA ...] [--results FOLDER] [--quick]

Each area tries one kind of harm many times, with random numbers of the seed. The table has one row
per area: how often it was tried, and how often scld did what it must not (bad). What was bad is
listed below the table. Loads and fits run in processes of their own, so that a crash, a hang or
memory without end is seen too.

bits        one flipped bit in a file of a model: it must be refused when it is loaded
json        a fault in manifest.json or schema.json, with checksums that fit: refused in 2 s and
            500 MB, or a model that samples valid cells
cells       malformed AnnData through fit, sample, augment and writing: one line that names a
            place, or counts that are right
files       damaged .h5ad files and .zarr stores: one line, or cells that pass all checks
kills       SIGKILL at a random moment of a fit, which the same call resumes: the same cells
disks       commands that write to a full disk: exit code 2, one line, nothing left but what a fit
            resumes from
loads       loads while another process replaces the model: one of both, never a mixture
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from common import LABEL, arguments, begin, load_cells, write_results
from hostile_inputs import (
    ImpossibleError,
    Malformed,
    damage_store,
    damaged,
    malformed,
    mutated,
    random_recipe,
    replaced,
)
from hostile_worker import BAD, BadOutcomeError, Outcome, Watched

import scld
from scld.io.checkpoint import seal
from scld.io.counts import count_matrix
from scld.io.read import read
from scld.io.write import write

AREAS = {  # name -> its title, how often it is tried, and with --quick
    "bits": ("a flipped bit in a file of a model", 420, 10),
    "json": ("a fault in the JSON of a model", 300, 10),
    "cells": ("malformed cells or labels", 600, 12),
    "files": ("a damaged .h5ad or .zarr", 300, 12),
    "kills": ("a killed fit, resumed", 40, 1),
    "disks": ("a full disk", 9, 1),
    "loads": ("a load while the model is replaced", 300, 10),
}
SHORT = {"intervals": 4, "steps": 60, "epochs": 1, "batch": 32, "average": 0.5, "save_seconds": 0}
TINY = {
    "autoencoder": {"latent": 3, "width": 16},
    "autoencoder_training": SHORT,
    "denoiser": {"width": 16},
    "denoiser_training": SHORT,
    "discriminator": {"components": 4, "generated": 1, "trees": 3},
    "sampling": {"post": "select"},
}
ENDINGS = (".h5ad", ".zarr")
CELLS, GENES = 120, 40  # of the model that is harmed
LOAD_SECONDS, LOAD_MEGABYTES = 2.0, 500.0
FIT_SECONDS, READ_SECONDS = 60.0, 10.0
SAMPLE_SECONDS = 60.0  # of a model that is valid, and slow: a thousand candidates
EXTREMES = (10**6, 10**9, 10**30, -1, 0, None, "a", float("nan"), 1e308, 1, 1000, 10_000)
DISKS = (  # command, and free bytes of the disk
    *(("sample .h5ad", 64 * 2**10), ("sample .h5ad", 17 * 2**20), ("sample .zarr", 64 * 2**10)),
    *(("fit", 0), ("evaluate", 64 * 2**10), ("sample .zarr", 17 * 2**20), ("fit", 128 * 2**10)),
    *(("evaluate", 0), ("sample .h5ad", 0)),
)
Found = Iterator[tuple[str, Outcome]]  # what was tried, and what became of it


class Setting(NamedTuple):
    """What the areas share."""

    folder: Path
    model: Path  # a fitted model
    cells: ad.AnnData  # that it was fitted on
    seed: int
    number: int  # how often an area tries


# models


def small_cells(given: argparse.Namespace) -> ad.AnnData:
    """Some cells of the dataset, and the genes with most counts."""
    cells = load_cells(given.datasets[0], given, ["donor"])
    rows = np.random.default_rng(given.seeds[0]).permutation(cells.n_obs)[:CELLS]
    genes = np.argsort(-np.asarray(cells.X.sum(axis=0)).ravel(), kind="stable")[:GENES]
    some = cells[np.sort(rows), np.sort(genes)].copy()
    obs = some.obs[[LABEL, "donor"]].astype(str)
    return ad.AnnData(sp.csr_matrix(some.X), obs=obs, var=pd.DataFrame(index=some.var_names))


def fit_small(cells: ad.AnnData, path: Path, seed: int = 0) -> None:
    """A model of two labels, fitted as quickly as can be."""
    synth = scld.Synthesizer([LABEL, "donor"], config=scld.Config.from_dict(TINY), seed=seed)
    synth.fit(cells, checkpoint=path, progress=False)


def fingerprint(cells: ad.AnnData) -> str:
    """Distinguishes cells: counts, names and labels."""
    parts = (cells.X.data, cells.X.indices, cells.X.indptr)
    content = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    return hashlib.sha256(content + cells.obs.to_csv().encode()).hexdigest()


def cells_of(path: Path) -> str:
    """The fingerprint of some cells of a model."""
    return fingerprint(scld.load(path, device="cpu").sample(5, seed=1, progress=False))


def check_counts(cells: ad.AnnData, number: int) -> None:
    """`BadOutcomeError` unless all counts are finite integers from 0 on, in so many cells."""
    values = cells.X.data if sp.issparse(cells.X) else np.asarray(cells.X)
    right = np.isfinite(values.astype(float)).all() and (values == np.rint(values)).all()
    if cells.n_obs != number or not right or (values < 0).any():
        raise BadOutcomeError(f"{cells.n_obs} cells, or counts that are no counts")


# bits


def bits(setting: Setting) -> Found:
    """One flipped bit in each file in turn."""
    random = np.random.default_rng(setting.seed)
    files = sorted(file.name for file in setting.model.iterdir() if file.is_file())
    expected, path = cells_of(setting.model), setting.folder / "flipped.scld"
    with Watched(FIT_SECONDS) as watched:
        for number in range(setting.number):
            shutil.copytree(setting.model, path)
            name = files[number % len(files)]
            content = bytearray((path / name).read_bytes())
            bit = int(random.integers(8 * len(content)))
            content[bit // 8] ^= 1 << bit % 8
            (path / name).write_bytes(content)
            yield f"{name}, bit {bit}", watched(same_cells, path, expected)
            shutil.rmtree(path)


def same_cells(path: Path, expected: str) -> str:
    """The model must give the cells that it gave."""
    if cells_of(path) != expected:
        raise BadOutcomeError("other cells")
    return "the same cells"


# json


def json_faults(setting: Setting) -> Found:
    """One fault: every other time in the next setting, else anywhere in either file."""
    random = np.random.default_rng(setting.seed + 1)
    path = setting.folder / "mutated.scld"
    with Watched(LOAD_SECONDS, LOAD_MEGABYTES) as loading, Watched(SAMPLE_SECONDS) as sampling:
        loading(load_alone, setting.model)  # compiled code is loaded once
        for number in range(setting.number):
            shutil.copytree(setting.model, path)
            what = mutate_json(path, number, random)
            outcome = loading(load_alone, path)
            if outcome.kind == "fine":
                outcome = sampling(sample_few, path)
            yield what, outcome
            shutil.rmtree(path)


def mutate_json(path: Path, number: int, random: np.random.Generator) -> str:
    """Change one file, and write the checksums anew; what was changed."""
    name = ["manifest.json", "manifest.json", "manifest.json", "schema.json"][number % 4]
    before = json.loads((path / name).read_text())
    if number % 2 == 0:
        changed, what = mutated_setting(before, number // 2, random)
    else:
        changed, what = mutated(before, random)
    (path / name).write_text(json.dumps(changed))
    seal(path)
    return f"{name}, {what}"


def mutated_setting(manifest: Any, number: int, random: np.random.Generator) -> tuple[Any, str]:
    """Another value of a setting, of a section or of all settings, in turn."""
    settings = pd.json_normalize(manifest["config"], sep="/").columns
    names = [*settings, "", *manifest["config"]]
    name = names[number % len(names)]
    new = EXTREMES[random.integers(len(EXTREMES))]
    place = ("config", *(name.split("/") if name else ()))
    return replaced(manifest, place, new), f"{'/'.join(place)}: {new!r}"[:60]


def load_alone(path: Path) -> str:
    scld.load(path, device="cpu")
    return "loaded"


def sample_few(path: Path) -> str:
    """Five cells, and all that `scld info` says."""
    synth = scld.load(path, device="cpu")
    check_counts(synth.sample(5, seed=0, progress=False), 5)
    for history in (synth.summary["autoencoder"], synth.summary["denoiser"]):
        f"{history['steps']:,} {history['seconds']:.0f} {history['best_interval'] + 1}"
    return "sampled"


# cells


def malformed_cells(setting: Setting) -> Found:
    """Random recipes through all that takes cells."""
    random = np.random.default_rng(setting.seed + 2)
    with Watched(FIT_SECONDS) as watched:
        for recipe, seed in islice(possible_recipes(random), setting.number):
            name = ", ".join(f"{aspect} {value}" for aspect, value in unusual(recipe).items())
            yield f"seed {seed}: {name}", watched(fit_and_use, recipe, seed, setting.folder)


def possible_recipes(random: np.random.Generator) -> Iterator[tuple[dict[str, str], int]]:
    """Recipes of which AnnData can be made, and the seed of each."""
    while True:
        recipe, seed = random_recipe(random), int(random.integers(2**31))
        try:
            malformed(recipe, np.random.default_rng(seed))
        except ImpossibleError:
            continue
        yield recipe, seed


def unusual(recipe: dict[str, str]) -> dict[str, str]:
    """The aspects that are not as usual."""
    from hostile_inputs import USUAL

    return {aspect: value for aspect, value in recipe.items() if USUAL[aspect] != value}


def fit_and_use(recipe: dict[str, str], seed: int, folder: Path) -> str:
    """Fit, sample, write, read and augment."""
    given = malformed(recipe, np.random.default_rng(seed))
    synth = scld.Synthesizer(given.labels, config=scld.Config.from_dict(TINY))
    synth.fit(given.cells, layer=given.layer, progress=False)
    cells = synth.sample(10, seed=0, progress=False)
    check_counts(cells, 10)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for ending in ENDINGS:
            check_written(cells, Path(name) / f"cells{ending}")
        synth.save(Path(name) / "model.scld")
        scld.load(Path(name) / "model.scld", device="cpu")
        if synth.labels:
            check_augmented(synth, given, Path(name) / "more.h5ad")
    return "fitted"


def check_written(cells: ad.AnnData, path: Path) -> None:
    """The file must hold the cells."""
    write([cells], path)
    back = read(path)
    if (sp.csr_matrix(back.X) != cells.X).nnz or list(back.obs_names) != list(cells.obs_names):
        raise BadOutcomeError(f"{path.suffix} holds other cells")


def check_augmented(synth: scld.Synthesizer, given: Malformed, path: Path) -> None:
    """The real cells must be there, and new ones; written if the real cells can be written."""
    try:
        more = synth.augment(given.cells, synth.labels[0], 40, layer=given.layer, progress=False)
    except scld.DataError as error:
        if "missing for" in str(error) or "is not boolean" in str(error):
            return  # what only augment asks for
        raise
    counts = count_matrix(more)
    real = count_matrix(read(given.cells, given.layer))
    if (counts[: real.shape[0]] != real).nnz:
        raise BadOutcomeError("augment changed the counts of real cells")
    if is_writable(given.cells, path):
        more.write_h5ad(path)


def is_writable(cells: ad.AnnData, path: Path) -> bool:
    """Whether AnnData can write these cells itself."""
    try:
        cells.write_h5ad(path)
    except Exception:
        return False
    return True


# files


def damaged_files(setting: Setting) -> Found:
    """Damaged bytes of files of cells, in each format in turn."""
    random = np.random.default_rng(setting.seed + 3)
    whole = {ending: setting.folder / f"whole{ending}" for ending in ENDINGS}
    for path in whole.values():
        write([setting.cells], path)
    with Watched(READ_SECONDS) as watched:
        for number in range(setting.number):
            ending = ENDINGS[number % 2]
            path = setting.folder / f"damaged{ending}"
            what = damage(whole[ending], path, random)
            yield f"{ending}, {what}", watched(read_cells, path)
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def damage(whole: Path, path: Path, random: np.random.Generator) -> str:
    """A damaged copy; what was damaged."""
    if whole.is_dir():
        shutil.copytree(whole, path)
        return damage_store(path, random)
    path.write_bytes(damaged(whole.read_bytes(), random))
    return f"{path.stat().st_size} bytes"


def read_cells(path: Path) -> str:
    """Read them as a fit does."""
    with warnings.catch_warnings():  # AnnData warns of what its old versions wrote
        warnings.simplefilter("ignore")
        cells = read(path)
    check_counts(ad.AnnData(count_matrix(cells)), cells.n_obs)
    return "read"


# kills


def kills(setting: Setting) -> Found:
    """A fit killed at a random moment, and called again."""
    random = np.random.default_rng(setting.seed + 4)
    context = multiprocessing.get_context("forkserver")
    started = time.monotonic()
    run(context, setting, setting.folder / "uninterrupted.scld").join()
    seconds = time.monotonic() - started
    expected = cells_of(setting.folder / "uninterrupted.scld")
    for number in range(setting.number):
        path, after = setting.folder / f"killed-{number}.scld", random.uniform(0.1, 0.95) * seconds
        process = run(context, setting, path)
        process.join(after)
        alive = process.is_alive()
        process.kill()
        process.join()
        again = run(context, setting, path) if alive else process
        again.join(FIT_SECONDS + 10 * seconds)
        what = f"killed after {after:.2f} s of {seconds:.2f} s"
        yield what if alive else f"{what}: had ended", after_a_kill(again, path, expected)


def run(context: Any, setting: Setting, path: Path) -> Any:
    """A process that fits."""
    process = context.Process(target=fit_small, args=(setting.cells, path))
    process.start()
    return process


def after_a_kill(process: Any, path: Path, expected: str) -> Outcome:
    """The cells of the model must be those of a fit that was not killed, and nothing else left."""
    if process.exitcode != 0:
        process.kill()
        return Outcome(BAD, f"the fit that resumes ends with {process.exitcode}")
    left = [entry.name for entry in path.parent.glob(".scld-*")]
    if left or (path / "resume").exists():
        return Outcome(BAD, f"left behind: {left or 'resume'}")
    same = cells_of(path) == expected
    return Outcome("fine", "the same cells") if same else Outcome(BAD, "other cells")


# disks


def full_disks(setting: Setting) -> Found:
    """Commands that write to a small file system of their own."""
    source = setting.folder / "source.h5ad"
    setting.cells.write_h5ad(source)
    commands = {
        "sample .h5ad": ["sample", setting.model, "-n", "40000", "-o", "cells.h5ad"],
        "sample .zarr": ["sample", setting.model, "-n", "40000", "-o", "cells.zarr"],
        "fit": ["fit", source, "-l", LABEL, "-o", "model.scld"],
        "evaluate": ["evaluate", source, "--train", source, "-l", LABEL, "-o", "report.html"],
    }
    for name, free in DISKS[: setting.number]:
        words = [str(word) for word in commands[name]] + ["--quiet"]
        yield f"{name}, {free // 1024:,} KB free", on_full_disk(words, free, setting.folder)


def can_mount() -> bool:
    """Whether this process may mount a file system for itself."""
    command = [*_namespace(), "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(command, check=False, capture_output=True).returncode
    )


def _namespace() -> list[str]:
    """Mounts of a process of its own end with it."""
    return ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-Urm"]


def on_full_disk(words: list[str], free: int, folder: Path) -> Outcome:
    """Exit code, lines and what is left, of a command on a disk with so many free bytes."""
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    size = free + 2**16  # a file fills the rest
    script = f'mount -t tmpfs -o size={size} tmpfs "$0" && cd "$0" && '
    script += f"head -c {2**16} /dev/zero > filler && "
    script += '{ "$@"; echo "exit $?"; find . -mindepth 1 -maxdepth 2; }'
    python = [sys.executable, "-c", "from scld.cli import main; main()", *words]
    command = [*_namespace(), "sh", "-c", script, str(disk), *python]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    *_said, left = done.stdout.partition("exit ")[::2]
    lines = [line for line in done.stderr.splitlines() if "scld: warning: " not in line]
    code, *files = left.split()
    others = set(files) - {"./filler", "./model.scld", "./model.scld/resume"}  # a fit resumes
    right = code == "2" and not others and len(lines) == 1 and lines[0].startswith("scld: ")
    text = f"exit code {code}, files {files}, {len(lines)} lines: {' '.join(lines)[-300:]}"
    return Outcome("refused" if right else BAD, text)


# loads


def loads(setting: Setting) -> Found:
    """Load again and again while another process replaces the model."""
    other, path = setting.folder / "other.scld", setting.folder / "replaced.scld"
    fit_small(setting.cells, other, seed=1)
    shutil.copytree(setting.model, path)
    expected = {cells_of(setting.model), cells_of(other)}
    context = multiprocessing.get_context("forkserver")
    replacing = context.Process(target=replace_for_ever, args=([setting.model, other], path))
    replacing.start()
    seen: set[str] = set()
    wait_for_another(path, time.monotonic() + FIT_SECONDS)
    for number in range(setting.number):
        try:
            found = cells_of(path)
            seen.add(found)
            right = (
                Outcome("fine", "one of both") if found in expected else Outcome(BAD, "a mixture")
            )
        except Exception as error:
            right = Outcome(BAD, f"{type(error).__name__}: {error}"[:200])
        yield f"load {number}", right
    replacing.kill()
    replacing.join()
    print(f"loads: {len(seen)} different models were seen", flush=True)


def wait_for_another(path: Path, until: float) -> None:
    """Until the model was replaced once: the other process has to start."""
    first = path.stat().st_ino
    while path.stat().st_ino == first and time.monotonic() < until:
        time.sleep(0.01)


def replace_for_ever(models: list[Path], path: Path) -> None:
    synths = [scld.load(model, device="cpu") for model in models]
    while True:
        for synth in synths:
            synth.save(path, overwrite=True)


# all areas

WORK: dict[str, Callable[[Setting], Found]] = {
    "bits": bits,
    "json": json_faults,
    "cells": malformed_cells,
    "files": damaged_files,
    "kills": kills,
    "disks": full_disks,
    "loads": loads,
}


def tried(area: str, setting: Setting) -> dict[str, Any]:
    """One row of the table; what was bad is printed."""
    title, started = AREAS[area][0], time.monotonic()
    if area == "disks" and not can_mount():
        print("disks: not possible here: this process may not mount a file system", flush=True)
        return {"area": f"{title}: not possible here", "tried": 0, "bad": 0}
    kinds: Counter[str] = Counter()
    for what, outcome in WORK[area](setting):
        kinds[outcome.kind] += 1
        if outcome.kind == BAD:
            print(f"bad: {area}: {what!a}: {outcome.text!a}", flush=True)
    seconds = time.monotonic() - started
    print(f"{area}: {dict(kinds)} in {seconds:.0f} s", flush=True)
    return {"area": title, "tried": kinds.total(), "bad": kinds[BAD]}


def main() -> None:
    parser = arguments(__doc__, ["pbmc"], seeds=[0])
    parser.add_argument("--areas", nargs="+", choices=list(AREAS), default=list(AREAS))
    given = begin(parser)
    seed, rows = given.seeds[0], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cells, model = small_cells(given), folder / "model.scld"
        fit_small(cells, model)
        for area in given.areas:
            own = folder / area
            own.mkdir()
            number = AREAS[area][2 if given.quick else 1]
            rows.append(tried(area, Setting(own, model, cells, seed, number)))
    table = pd.DataFrame(rows)
    print(f"\n{table.to_string(index=False)}", flush=True)
    about = {"dataset": given.datasets[0], "seed": seed}
    records = [
        about | {"area": row["area"], "metric": metric, "value": row[metric]}
        for row in rows
        for metric in ("tried", "bad")
    ]
    write_results("hostile", records, given, ("dataset", "seed", "area"))


if __name__ == "__main__":
    main()
