"""What the benchmark scripts share: arguments, a fit, cells as the judge sees them, and mean ± sd over seeds."""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

import scld
from scld.judge import Cells
from scld.metrics import log_normalise

LABEL = "cell_type"
LABELS = {"kang_ifnb_small": [LABEL, "condition"]}  # to fit on; else the cell type alone
_SOON = {"rounds": 3, "steps": 150, "epochs": 1}
_QUICK = {"autoencoder_training": _SOON, "denoiser_training": _SOON, "critic_training": _SOON, "selector": {"generated": 1, "trees": 20}}


def arguments(doc: str | None, sets: Sequence[str], seeds: Sequence[int] = (0, 1, 2)) -> argparse.ArgumentParser:
    """The arguments that every script takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of .h5ad files of raw counts")
    parser.add_argument("--sets", nargs="+", default=list(sets))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(seeds), help="each a split, a fit and a sampling of its own")
    parser.add_argument("--models", type=Path, help="folder to keep fitted models in, and to take them from where they are there already")
    parser.add_argument("--quick", action="store_true", help="fit badly but soon, to try a script; the figures then mean nothing")
    return parser


def begin(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse, and print what was run with which versions."""
    pd.set_option("display.width", 250, "display.max_columns", 30, "display.max_rows", 500, "display.max_colwidth", 60)
    versions = ", ".join(f"{name} {version(name)}" for name in ("anndata", "numpy", "scipy", "scikit-learn", "torch"))
    print(f"python {' '.join(sys.argv)}\nscld {scld.__version__}, Python {platform.python_version()}, {versions}\n", flush=True)
    given = parser.parse_args()
    if given.models:
        given.models.mkdir(parents=True, exist_ok=True)
    return given


def settings(given: argparse.Namespace) -> scld.Config:
    """The defaults, or those of a quick trial."""
    return scld.Config.from_dict(_QUICK if given.quick else {})


def fitted(train: AnnData, labels: Sequence[str], seed: int, given: argparse.Namespace, name: str) -> scld.Synthesizer:
    """A model of some cells at default settings, fitted now or kept from before."""
    place = given.models and given.models / f"{name}-{seed}{'-quick' * given.quick}.scld"
    if place and (place / "manifest.json").exists():
        print(f"{name}, seed {seed}: the model of {place}", flush=True)
        return scld.load(place)
    started = time.perf_counter()
    synth = scld.Synthesizer(labels, config=settings(given), seed=seed).fit(train, checkpoint=place, progress=False)
    seconds = time.perf_counter() - started
    print(f"{name}, seed {seed}: {train.n_obs:,} training cells x {train.n_vars:,} genes, labels {', '.join(labels)}, fitted in {seconds:.0f} s", flush=True)
    return synth


def resized(adata: AnnData, genes: int, label: str = LABEL) -> AnnData:
    """The same cells with so many genes: evenly picked ones, or all and more, each further block counted in other cells of the type and its names numbered."""
    counts, names = scld.data.count_matrix(adata), adata.var_names.to_numpy()
    if genes <= len(names):
        return adata[:, np.linspace(0, len(names) - 1, genes).astype(int)].copy()
    types, rng = pd.Categorical(adata.obs[label]).codes, np.random.default_rng(0)
    blocks, names_of = [counts], [names]
    for block in range(1, -(-genes // len(names))):
        others = np.empty(len(types), int)
        others[np.argsort(types, kind="stable")] = np.lexsort((rng.random(len(types)), types))
        blocks.append(counts[others])
        names_of.append(np.array([f"{name} ({block})" for name in names]))
    var = pd.DataFrame(index=np.concatenate(names_of)[:genes])
    return AnnData(sp.csr_matrix(sp.hstack(blocks, format="csr")[:, :genes]), obs=adata.obs, var=var)


def log_counts(adata: AnnData) -> sp.csr_matrix:
    """Log-normalised values ``[cells, genes]``."""
    return log_normalise(scld.data.count_matrix(adata))


def judged(adata: AnnData, types: Sequence[str], label: str = LABEL) -> Cells:
    """Cells as the judge takes them, their types as codes."""
    codes = pd.Categorical(adata.obs[label], categories=list(types)).codes.astype(np.int64)
    return Cells.of_counts(scld.data.count_matrix(adata), codes)


def spread(rows: Sequence[dict[str, Any]] | pd.DataFrame, by: Sequence[str], digits: int = 3) -> pd.DataFrame:
    """Mean ± sd over seeds of every figure, one row a group, in the order in which the groups came."""
    groups = pd.DataFrame(rows).drop(columns="seed").groupby(list(by), sort=False)
    mean, sd = groups.mean(), groups.std()
    return mean.combine(sd, lambda m, s: pd.Series([shown(*pair, digits) for pair in zip(m, s, strict=True)], m.index))


def shown(mean: float, sd: float, digits: int = 3) -> str:
    """A figure with its spread; without where there is one value only, a dash where there is none."""
    if np.isnan(mean):
        return "–"
    return f"{mean:.{digits}f}" + ("" if np.isnan(sd) else f" ± {sd:.{digits}f}")
