"""The peers of peers.py: their settings, and running them one by one in processes of their own.

Each peer is one or two steps; a step is a driver of peers_drivers/ with settings. What a step made
is kept in a folder of the cache that is named after everything it depends on, so that it is run
once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from common import LABEL

import scld

DRIVERS = Path(__file__).resolve().parent / "peers_drivers"
SOURCE = Path(scld.__file__).parent
LIBRARY = "library"
DEFAULT, FINAL, TUNED = "default", "final epochs", "tuned"
OWN, CFGEN, SCDIFFUSION, SCDESIGNER = "own", "cfgen", "scdiffusion", "scdesigner"
SMALL_BATCH, USUAL_BATCH = 64, 256  # of CFGen: its script for pbmc3k has 64
HELD_OUT_SHARE = 0.1  # of the cells, in CFGen
FAMILIES = ("controls", "copula", "scdesigner", "scvi", "cfgen", "scdiffusion", "scld")
ORDER = (  # of names in tables
    *("baseline", "real cells", "poisson", "shuffle", "bootstrap"),
    *("NB copula", "scDesigner", "scVI posterior", "scVI prior", "CFGen", "scDiffusion", "SCLD"),
)
VARIANTS = ("", "genes shuffled", DEFAULT, FINAL, TUNED)  # what may follow a name
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """A driver and its settings."""

    driver: str
    settings: Settings
    environment: str = OWN


@dataclass(frozen=True)
class Peer:
    """A method of generating cells, with the settings that it is run with.

    Parameters
    ----------
    family
        What ``--methods`` names.
    name
        The method, in tables.
    steps
        Each is given the folder of the one before.
    log_normalised
        Whether its values are log-normalised instead of counts.
    """

    family: str
    name: str
    steps: tuple[Step, ...]
    log_normalised: bool = False


@dataclass
class Made:
    """What a peer made, and what it cost.

    Parameters
    ----------
    folder
        Of its last step.
    costs
        seconds, cpu_seconds, peak_memory_mb, model_mb: sums or the largest over steps.
    about
        Commit, versions and changes to its code, one sentence each.
    notes
        What the fit came to, one sentence for each step.
    error
        Why it failed; empty if it did not.
    """

    folder: Path
    costs: dict[str, float] = field(default_factory=dict)
    about: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str = ""

    def cells(self) -> AnnData:
        """The generated cells."""
        return anndata.read_h5ad(self.folder / "cells.h5ad")


def peers(given: argparse.Namespace, cells: int) -> list[Peer]:
    """All peers, in the order of the tables, for a number of training cells."""
    return [
        *_controls(given.quick),
        *_copulas(given.quick),
        *_scvi(given.quick),
        *_scdesigner(),
        *_cfgen(given.cfgen_epochs, cells),
        *_scdiffusion(given.scdiffusion_steps),
        *_scld(given.quick),
    ]


def _controls(quick: bool) -> list[Peer]:
    names = ("shuffle",) if quick else ("poisson", "shuffle", "bootstrap")
    return [Peer("controls", name, (Step("controls", {"control": name}),)) for name in names]


def _copulas(quick: bool) -> list[Peer]:
    """Default: as scDesign2. Tuned: of five settings, by a held-out part of training cells."""
    settings: dict[str, Settings] = {
        DEFAULT: {"offset": False, "most_zeros": 0.8, "shrinkage": False},
        TUNED: {"offset": True, "most_zeros": 0.8, "shrinkage": True},
    }
    found = [Peer("copula", f"NB copula, {k}", (Step("copula", s),)) for k, s in settings.items()]
    return found[:1] if quick else found


def _scvi(quick: bool) -> list[Peer]:
    """Tuned: the widths, likelihood and batch of scld, stopped early by validation loss."""
    config = scld.Config()
    model = {
        "n_hidden": config.autoencoder.width,
        "n_latent": config.autoencoder.latent,
        "n_layers": 2,
        "gene_likelihood": "nb",
    }
    batch = config.autoencoder_training.batch
    train = {"max_epochs": 400, "early_stopping": True, "batch_size": batch}
    if quick:
        return [_scvi_peer("posterior", DEFAULT, {}, {"max_epochs": 1})]
    return [
        _scvi_peer("posterior", DEFAULT, {}, {}),
        _scvi_peer("posterior", TUNED, model, train),
        _scvi_peer("prior", DEFAULT, {}, {}),
        _scvi_peer("prior", TUNED, model | {"encode_covariates": True}, train),
    ]


def _scvi_peer(source: str, variant: str, model: Settings, train: Settings) -> Peer:
    step = Step("scvi", {"from": source, "model": model, "train": train})
    return Peer("scvi", f"scVI {source}, {variant}", (step,))


def _scdesigner() -> list[Peer]:
    """Tuned: an offset, dispersions and correlations by type, shrunk, of the 500 largest genes."""
    settings: dict[str, Settings] = {
        DEFAULT: {"mean_formula": f"~ {LABEL}"},
        TUNED: {
            "mean_formula": f"~ {LABEL} + log_library",
            "dispersion_formula": f"~ {LABEL}",
            "copula_formula": f"~ {LABEL}",
            "estimator": "ledoit_wolf",
            "top_k": 500,
        },
    }
    return [
        Peer(SCDESIGNER, f"scDesigner, {k}", (Step("scdesigner", s, SCDESIGNER),))
        for k, s in settings.items()
    ]


def _cfgen(epochs: tuple[int, int], cells: int) -> list[Peer]:
    """Its default scripts; the final epochs in place of the files that these load; tuned."""
    batch = USUAL_BATCH if cells * HELD_OUT_SHARE >= USUAL_BATCH else SMALL_BATCH
    return [
        _cfgen_peer(DEFAULT, epochs, (batch, batch), ("resnet_small", "last", "last")),
        _cfgen_peer(FINAL, epochs, (batch, batch), ("resnet_small", "final", "final")),
        _cfgen_peer(TUNED, epochs, (SMALL_BATCH, batch), ("resnet_big", "best", "final")),
    ]


def _cfgen_peer(
    variant: str, epochs: tuple[int, int], batch: tuple[int, int], chosen: tuple[str, str, str]
) -> Peer:
    steps = [
        {"step": name, "epochs": n, "batch": cells}
        for name, n, cells in zip(("autoencoder", "flow"), epochs, batch, strict=True)
    ]
    steps[1] |= dict(zip(("network", "autoencoder", "flow"), chosen, strict=True))
    return Peer(CFGEN, f"CFGen, {variant}", tuple(Step("cfgen", s, CFGEN) for s in steps))


def _scdiffusion(steps: tuple[int, int, int]) -> list[Peer]:
    """Default: its values. Tuned: counts drawn from these, at total counts of training cells."""
    sizes = dict(zip(("autoencoder", "backbone", "classifier"), steps, strict=True))
    latents = Step("scdiffusion", {"step": "latents", **sizes}, SCDIFFUSION)
    values, counts = (
        Step("scdiffusion", {"step": "cells", "counts": drawn}, SCDIFFUSION)
        for drawn in (False, True)
    )
    return [
        Peer(SCDIFFUSION, f"scDiffusion, {DEFAULT}", (latents, values), log_normalised=True),
        Peer(SCDIFFUSION, f"scDiffusion, {TUNED}", (latents, counts)),
    ]


def _scld(quick: bool) -> list[Peer]:
    """SCLD; its settings name the source, so that cells of another state are not used again."""
    settings = {"preset": "quick" if quick else DEFAULT, "source": _source()}
    return [Peer("scld", "SCLD", (Step("scld", settings),))]


def _source() -> str:
    """A fingerprint of the code that a fit and a sample depend on."""
    files = sorted(path for path in SOURCE.rglob("*.py") if "evaluation" not in path.parts)
    return _fingerprint(*(path.read_bytes() for path in files))


def _fingerprint(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


@dataclass(frozen=True)
class Environment:
    """Where a peer runs: its Python, and a checkout of its repository if it needs one."""

    python: str
    checkout: Path | None = None

    @property
    def commit(self) -> str:
        """The commit of the checkout, and whether its code differs from it."""
        if self.checkout is None:
            return ""
        code = [*("status", "--porcelain", "--untracked-files=no", "--"), "*.py", "*.yaml"]
        return self._git("rev-parse", "HEAD") + (" with local changes" if self._git(*code) else "")

    def _git(self, *words: str) -> str:
        call = ["git", "-C", str(self.checkout), *words]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()


def environments(given: argparse.Namespace) -> dict[str, Environment]:
    """The environments that there are; the others are named with what they lack."""
    found, lacking = {OWN: Environment(sys.executable)}, {}
    for name, needs_checkout in ((CFGEN, True), (SCDIFFUSION, True), (SCDESIGNER, False)):
        python, checkout = getattr(given, f"{name}_python"), getattr(given, name, None)
        if needs_checkout and not (checkout and python):
            lacking[name] = f"--{name} and --{name}-python"
        elif not needs_checkout and not (python or find_spec(name)):
            lacking[name] = f"--{name}-python"
        else:
            found[name] = Environment(python or sys.executable, checkout)
    for name, options in lacking.items():
        print(f"{name}: left out; it needs {options}", flush=True)
    for name, environment in found.items():
        if environment.checkout:
            print(f"{name}: commit {environment.commit}", flush=True)
    return found


@dataclass(frozen=True)
class Work:
    """Training cells and the cells to generate, in a folder of the cache.

    Parameters
    ----------
    folder
        Of this dataset and seed.
    data
        Fingerprint of training cells and wanted cells.
    seed
        Of the peers.
    """

    folder: Path
    data: str
    seed: int

    @classmethod
    def of(cls, train: AnnData, types: pd.Series, folder: Path, seed: int) -> Work:
        """Write what every peer is given: training cells, types and total counts."""
        wanted = with_libraries(train, types, seed)
        matrix = train.X
        data = _fingerprint(matrix.data, matrix.indices, wanted.to_csv().encode())
        folder = folder / data
        folder.mkdir(parents=True, exist_ok=True)
        wanted.to_csv(folder / "wanted.csv")
        if not (folder / "train.h5ad").exists():
            plain = AnnData(matrix, obs=train.obs[[LABEL]].astype(str))
            plain.var_names = train.var_names
            plain.write_h5ad(folder / "train.h5ad")
        return cls(folder, data, seed)

    def make(self, peer: Peer, known: Mapping[str, Environment]) -> Made:
        """The cells of a peer: from the cache, or made now."""
        former, made = None, Made(self.folder)
        for step in peer.steps:
            made.folder = self._run(step, known[step.environment], former)
            _add(made, json.loads((made.folder / "costs.json").read_text()))
            if made.error:
                return made
            info = json.loads((made.folder / "info.json").read_text())
            _describe(made, info, known[step.environment].commit)
            former = made.folder
        return made

    def _run(self, step: Step, where: Environment, former: Path | None) -> Path:
        """The folder of a step, after it has been run; a step that failed is run again."""
        job = {"settings": step.settings, "seed": self.seed, "commit": where.commit}
        key = json.dumps([step.driver, job, former.name if former else ""], sort_keys=True)
        folder = self.folder / f"{step.driver}-{_fingerprint(key.encode())}"
        costs = folder / "costs.json"
        if costs.exists() and not json.loads(costs.read_text())["error"]:
            return folder
        folder.mkdir(exist_ok=True)
        places = {"train": "train.h5ad", "wanted": "wanted.csv"}
        job |= {key: str((self.folder / name).resolve()) for key, name in places.items()}
        job["checkout"] = str(where.checkout.resolve()) if where.checkout else None
        job["former"] = str(former.resolve()) if former else None
        (folder / "job.json").write_text(json.dumps(job, indent=1))
        costs.write_text(json.dumps(run_driver(step.driver, where.python, folder)))
        return folder


def with_libraries(train: AnnData, types: pd.Series, seed: int) -> pd.DataFrame:
    """Types of the wanted cells, each with the total count of a random training cell of its type.

    Every peer that takes total counts is given these.
    """
    rng, totals = np.random.default_rng(seed), np.asarray(train.X.sum(axis=1)).ravel()
    of_type = train.obs[LABEL].astype(str).to_numpy()
    wanted = pd.DataFrame({LABEL: types.astype(str), LIBRARY: 0.0})
    for kind, rows in wanted.groupby(LABEL).indices.items():
        wanted.iloc[rows, 1] = rng.choice(totals[of_type == kind], len(rows))
    return wanted


def run_driver(driver: str, python: str, folder: Path) -> dict[str, Any]:
    """Run a driver to its end: seconds, CPU seconds, and why it failed, if it did.

    Its output goes to a file in the folder.
    """
    log, started = folder / "log.txt", time.monotonic()
    call = [python, "-u", str(DRIVERS / f"run_{driver}.py"), str(folder)]
    paths = os.pathsep.join([str(DRIVERS.parent), os.environ.get("PYTHONPATH", "")])
    extra = {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(call, stdout=output, stderr=output, env=os.environ | extra)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "seconds": time.monotonic() - started,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "error": _why(process.returncode, log),
    }


def _why(code: int, log: Path) -> str:
    """The last line of the output of a driver that failed."""
    if code == 0:
        return ""
    lines = log.read_text(errors="replace").strip().splitlines()
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{how}: {lines[-1].strip()}" if lines and code > 0 else how


def _add(made: Made, costs: Mapping[str, Any]) -> None:
    """Add the costs of a step."""
    for name in ("seconds", "cpu_seconds"):
        made.costs[name] = made.costs.get(name, 0.0) + costs[name]
    made.error = costs["error"]


def _describe(made: Made, info: Mapping[str, Any], commit: str) -> None:
    """Add size and memory of a step that did not fail, and what is to be said about it."""
    costs = made.costs
    costs["peak_memory_mb"] = max(costs.get("peak_memory_mb", 0.0), info["peak_memory_mb"])
    costs["model_mb"] = costs.get("model_mb", 0.0) + info["model_mb"]
    versions = ", ".join(f"{name} {number}" for name, number in info["versions"].items())
    new = [f"commit {commit}"] * bool(commit) + [versions, *info["changes"]]
    made.about += [text for text in new if text not in made.about]
    made.notes += [f"{name}: {json.dumps(value)}" for name, value in info["notes"].items()]
