"""How does quality grow with the number of training cells? One dataset, fits of growing size.

    python benchmarks/sizes.py [--data-dir DIR] [--datasets NAME] [--seeds 0 1 2]
        [--cells 1000 5000 20000] [--plot docs/sizes.png] [--plot-only] [--results FOLDER]

A dataset of several batches is split within type, so that about as many training cells are left as
the largest of --cells. SCLD is fitted on cell_type and batch, on so many of the training cells, and
generates cells with the labels of the test cells, which are the same for every size. The
real-vs-real baseline beside each score is computed with the training cells of that fit: genes,
components and classifiers come from them. In pbmc_pool the cell types of the batch "covid" were
predicted by a classifier, so its cells are left out of the scores of labels and of types. Each fit
runs in a process of its own, for its peak memory. Mean ± sd over seeds.
"""

from __future__ import annotations

import argparse
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from common import (
    LABEL,
    arguments,
    begin,
    evaluation_options,
    in_own_process,
    load_cells,
    long_records,
    peak_memory,
    read_results,
    settings,
    spread,
    training_costs,
    write_results,
)
from quality import SCLD, scores_of

import scld
from scld.evaluation import plots
from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE
from scld.evaluation.registry import BY_NAME, DISTANCES, NEIGHBOURS, PRIVACY, TWO_SAMPLE, Metric

BATCH, PREDICTED = "batch", "covid"  # the label, and its category whose cell types are predicted
WITHOUT_LABELS = (TWO_SAMPLE, DISTANCES, NEIGHBOURS, PRIVACY)  # categories of metrics
PLOTTED = ["c2st", "w2", "tstr_f1", "label_accuracy"]
LINES = {  # column -> name and colour of its line
    "value": ("scld", plots.SYNTHETIC),
    "baseline": ("real cells (baseline)", plots.REAL),
}
METRICS = [*PLOTTED, "effect_slope", "marker_outside", "nearer_training"]
COSTS = ["fit_seconds", "peak_memory_mb", "autoencoder_steps", "denoiser_steps"]


def split(name: str, seed: int, given: argparse.Namespace) -> tuple[AnnData, AnnData]:
    """Training and test cells; about as many training cells as the largest size."""
    cells = load_cells(name, given, [BATCH])
    share = max(0.1, 1 - max(given.cells) / cells.n_obs)
    return scld.split(cells, LABEL, test=share, seed=seed)


def some_of(train: AnnData, cells: int, seed: int) -> AnnData:
    """So many of the training cells; all if there are not more."""
    rows = np.random.default_rng(seed).permutation(train.n_obs)[:cells]
    some: AnnData = train[np.sort(rows)].copy()
    return some


def fit(
    folder: Path, name: str, cells: int, seed: int, given: argparse.Namespace
) -> dict[str, float]:
    """Fit and save a model; what that cost."""
    train = some_of(split(name, seed, given)[0], cells, seed)
    started = time.perf_counter()
    synth = scld.Synthesizer([LABEL, BATCH], config=settings(given), seed=seed)
    synth.fit(train, progress=False)
    seconds = time.perf_counter() - started
    synth.save(folder / "fitted.scld")
    costs = {"fit_seconds": seconds, "peak_memory_mb": peak_memory() / 1e6}
    return {"training_cells": train.n_obs, **costs, **training_costs(synth)}


def benchmark(
    folder: Path, name: str, cells: int, seed: int, given: argparse.Namespace
) -> pd.DataFrame:
    """Scores of one fit, in long format; in a process of its own, after that of the fit."""
    train, test = split(name, seed, given)
    train, synth = some_of(train, cells, seed), scld.load(folder / "fitted.scld")
    known = [test.obs[label].isin(set(train.obs[label])) for label in (LABEL, BATCH)]
    test = test[(known[0] & known[1]).to_numpy()].copy()
    wanted = {"obs": test.obs[[LABEL, BATCH]], "unseen": True}  # small sets lack combinations
    synthetic = synth.sample(**wanted, seed=seed, progress=False)
    options = evaluation_options(given) | {"controls": False, "seed": seed}
    of_all = scld.evaluate(train, test, {SCLD: synthetic}, LABEL, **options).table
    sure = [part[(part.obs[BATCH] != PREDICTED).to_numpy()] for part in (train, test, synthetic)]
    of_sure = scld.evaluate(*sure[:2], {SCLD: sure[2]}, LABEL, **options).table
    return pd.concat(
        [scores_of(of_all[~by_labels(of_all)]), scores_of(of_sure[by_labels(of_sure)])]
    )


def by_labels(table: pd.DataFrame) -> pd.Series:
    """Which scores depend on the types of cells."""
    return ~table["category"].isin(WITHOUT_LABELS) | (table["group"] != OVERALL)


def measured(name: str, cells: int, seed: int, given: argparse.Namespace) -> pd.DataFrame:
    """Scores and costs of one size and seed, in long format."""
    with tempfile.TemporaryDirectory() as folder:
        costs = in_own_process(fit, Path(folder), name, cells, seed, given)
        scores = in_own_process(benchmark, Path(folder), name, cells, seed, given)
    about = {"dataset": name, "cells": cells, "seed": seed, "method": SCLD}
    rows = long_records([{"group": OVERALL} | costs], ["group"])
    texts = ", ".join(f"{key} {value:,.0f}" for key, value in costs.items())
    print(f"{name}, {cells:,} cells, seed {seed}: {texts}", flush=True)
    found = pd.concat([scores, rows], ignore_index=True).assign(**about)
    return found[[*about, "group", "metric", "value", "baseline"]]


def overview(found: pd.DataFrame) -> pd.DataFrame:
    """One row per size and method, one column per metric; mean ± sd over seeds."""
    rows = found[(found["group"] == OVERALL) & found["metric"].isin([*METRICS, *COSTS])]
    baseline = rows[rows["baseline"].notna()]
    rows = pd.concat([baseline.assign(value=baseline["baseline"], method=BASELINE), rows])
    by = ["cells", "method", "seed"]
    wide = rows.pivot(index=by, columns="metric", values="value")
    return spread(wide.reindex(columns=[*METRICS, *COSTS]).reset_index(), ["cells", "method"])


def plot(found: pd.DataFrame, path: Path) -> None:
    """Scores against the number of training cells, beside the baseline."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.3), layout="constrained")
    panels = figure.subplots(1, len(PLOTTED))
    for axes, metric in zip(panels, PLOTTED, strict=True):
        rows = found[(found["group"] == OVERALL) & (found["metric"] == metric)]
        for column, (name, colour) in LINES.items():
            by_size = rows.groupby("cells")[column]
            mean, spread = by_size.mean(), by_size.std()
            bars = None if spread.isna().all() else spread  # one seed has no spread
            axes.errorbar(mean.index, mean, bars, marker="o", color=colour, label=name)
        axes.set_xscale("log")
        axes.minorticks_off()
        sizes = sorted(rows["cells"].unique())
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.tick_params(labelsize=9)
        axes.set_title(_title(BY_NAME[metric]), fontsize=10)
    figure.supxlabel("training cells (log scale)", fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=170, facecolor="white")


def _title(metric: Metric) -> str:
    """A title that fits its panel."""
    title = "\n".join(textwrap.wrap(metric.title, 22))
    better = metric.direction
    return f"{title}\n({f'best: {better}' if metric.better == 'target' else f'{better} is better'})"


def main() -> None:
    parser = arguments(__doc__, ["pbmc_pool"])
    parser.add_argument("--cells", nargs="+", type=int, default=[1000, 5000, 20_000])
    parser.add_argument("--plot", type=Path, help="write quality against size as a PNG")
    about = "measure nothing, only draw --plot from the file in --results"
    parser.add_argument("--plot-only", action="store_true", help=about)
    given = begin(parser)
    if given.plot_only and not (given.plot and given.results):
        parser.error("--plot-only: needs --plot and --results")
    if given.quick:
        given.cells = [250, 450]
    for name in given.datasets:
        if not given.plot_only:
            found = measured_sizes(name, given)
            print(f"\n{name}, seeds {given.seeds}\n{overview(found).to_string()}\n", flush=True)
        if given.plot:
            former = given.results and read_results(given.results / "sizes.json")
            plot(found if former is None else former[former["dataset"] == name], given.plot)


def measured_sizes(name: str, given: argparse.Namespace) -> pd.DataFrame:
    """Scores and costs of every size and seed; also added to the file of results."""
    tables = []
    for seed in given.seeds:
        for cells in given.cells:
            tables.append(measured(name, cells, seed, given))
            write_results("sizes", tables[-1], given, unit=("dataset", "cells", "seed"))
    return pd.concat(tables, ignore_index=True)


if __name__ == "__main__":
    main()
