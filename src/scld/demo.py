"""The main job on the cells that ship with the package: split, fit, sample, evaluate."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from scld import datasets
from scld.config import Config
from scld.io.atomic import atomic_write, check_target
from scld.io.split import split

if TYPE_CHECKING:
    from anndata import AnnData

LABEL = "cell_type"
TARGET = "CD14+ monocyte"


def run(
    output: Path, *, quick: bool, overwrite: bool, progress: bool, say: Callable[[str], None]
) -> None:
    """Make the folder of the demo atomically.

    Parameters
    ----------
    output
        Folder to make.
    quick
        Whether to use the preset "quick", a training too short to be good.
    overwrite
        Whether the folder of an earlier demo may be replaced.
    progress
        Whether to show progress on standard error.
    say
        Called with each line for the user.
    """
    check_target(output, overwrite, "an earlier demo", lambda path: (path / "report.html").exists())
    with atomic_write(output) as folder:
        folder.mkdir()
        _fill(folder, Config.preset("quick" if quick else "default"), progress, say)
    say(_contents(output))


def _fill(folder: Path, config: Config, progress: bool, say: Callable[[str], None]) -> None:
    from scld.evaluation.report import evaluate
    from scld.synthesizer import Synthesizer

    train, test = split(datasets.pbmc(), LABEL)
    real = f"{train.n_obs:,} to train on, {test.n_obs:,} to test with"
    say(f"Real cells: {real}; {train.n_vars:,} genes, {train.obs[LABEL].nunique()} types.")
    synth = Synthesizer([LABEL], config=config).fit(train, progress=progress)
    cells = synth.sample(test.n_obs, seed=0, progress=progress)
    target = synth.sample(500, where={LABEL: TARGET}, seed=0, progress=progress)
    synth.save(folder / "pbmc.scld")
    files = {"train": train, "test": test, "cells": cells, "cd14_monocytes": target}
    for name, adata in files.items():
        adata.write_h5ad(folder / f"{name}.h5ad", compression="gzip")
    report = evaluate(train, test, {"scld": cells}, LABEL, progress=progress)
    report.to_html(folder / "report.html")
    report.to_json(folder / "report.json")
    report.to_png(folder / "real_and_synthetic.png")
    say(report.summary())
    say(f"\n500 cells conditioned on {TARGET}, compared with real ones:")
    targeted = evaluate(
        _target_cells(train), _target_cells(test), {"scld": target}, None, progress=progress
    )
    targeted.to_html(folder / "report_cd14_monocytes.html")
    say(targeted.summary())


def _target_cells(cells: AnnData) -> AnnData:
    return cells[cells.obs[LABEL] == TARGET].copy()


def _contents(folder: Path) -> str:
    model = shlex.quote(f"{folder}/pbmc.scld")
    return f"""
Files in {folder}:
  report.html                  open it in a browser: scores and figures, compared with real cells
  real_and_synthetic.png       real and synthetic cells on one UMAP
  report_cd14_monocytes.html   the same report for the targeted type
  cells.h5ad                   synthetic cells, the whole population
  cd14_monocytes.h5ad          synthetic cells of one type
  train.h5ad, test.h5ad        the real cells
  pbmc.scld                    the fitted model
Next:
  scld sample {model} -n 5000 --where {LABEL}="NK cell" -o nk.h5ad
  scld fit your.h5ad --label {LABEL} -o your.scld"""
