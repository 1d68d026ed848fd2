"""The main job on the cells that ship with the package: split, fit, sample, score, and a folder to look at."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from scld import datasets
from scld.aside import check_place, written_aside
from scld.config import Config
from scld.data import split

if TYPE_CHECKING:
    from anndata import AnnData

LABEL = "cell_type"
TARGET = "CD14+ monocyte"
_QUICK = {
    "autoencoder_training": {"steps": 60, "rounds": 4, "epochs": 1},
    "denoiser_training": {"steps": 100, "rounds": 2, "epochs": 1},
    "critic_training": {"steps": 30, "rounds": 2, "epochs": 1},
    "selector": {"generated": 1, "trees": 20},
}


def run(output: Path, *, quick: bool, overwrite: bool, progress: bool, say: Callable[[str], None]) -> None:
    """Make the demo's folder; an interruption leaves none, or the former one.

    Parameters
    ----------
    output
        Folder to make.
    quick
        A training too short to be good.
    overwrite
        Whether a former demo's folder may be replaced.
    progress
        Whether to show progress on standard error.
    say
        Called with each line for the user.
    """
    check_place(output, overwrite, "a former demo", lambda path: (path / "report.html").exists())
    with written_aside(output) as folder:
        folder.mkdir()
        _fill(folder, quick, progress, say)
    _farewell(output, say)


def _fill(folder: Path, quick: bool, progress: bool, say: Callable[[str], None]) -> None:
    from scld.report import evaluate
    from scld.synthesizer import Synthesizer

    train, test = split(datasets.pbmc(), LABEL)
    say(f"Real cells: {train.n_obs:,} to learn from, {test.n_obs:,} kept aside to judge by; {train.n_vars:,} genes, {train.obs[LABEL].nunique()} types.")
    synth = Synthesizer([LABEL], config=Config.from_dict(_QUICK if quick else {})).fit(train, progress=progress)
    cells = synth.sample(test.n_obs, progress=progress)
    target = synth.sample(500, where={LABEL: TARGET}, progress=progress)
    synth.save(folder / "pbmc.scld")
    for name, adata in {"train": train, "test": test, "cells": cells, "cd14_monocytes": target}.items():
        adata.write_h5ad(folder / f"{name}.h5ad", compression="gzip")
    report = evaluate(train, test, {"SCLD": cells}, LABEL, progress=progress)
    report.to_html(folder / "report.html")
    report.to_json(folder / "report.json")
    report.to_png(folder / "real_and_synthetic.png")
    say(report.summary())
    say(f"\n500 cells asked for as {TARGET}, beside the real ones:")
    targeted = evaluate(_only(train), _only(test), {"SCLD": target}, None, progress=progress)
    targeted.to_html(folder / "report_cd14_monocytes.html")
    say(targeted.summary())


def _only(cells: AnnData) -> AnnData:
    return cells[cells.obs[LABEL] == TARGET].copy()


def _farewell(folder: Path, say: Callable[[str], None]) -> None:
    say(f"""
Made in {folder}:
  report.html                  open it in a browser: how near the synthetic cells are to real ones, with pictures
  real_and_synthetic.png       both on one map
  report_cd14_monocytes.html   the same for the targeted type
  cells.h5ad                   the whole population, synthetic
  cd14_monocytes.h5ad          one type as asked for
  train.h5ad, test.h5ad        the real cells
  pbmc.scld                    the fitted model
Next:
  scld sample {shlex.quote(f"{folder}/pbmc.scld")} -n 5000 --where {LABEL}="NK cell" -o nk.h5ad
  scld fit your.h5ad --label {LABEL} -o your.scld""")
