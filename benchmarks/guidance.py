"""What do pre-guidance and post-guidance do? Each weight, with and without post-guidance.

    python benchmarks/guidance.py [--data-dir DIR] [--datasets NAME ...] [--seeds 0]
        [--replicates 3]

For each seed a dataset is split 70/30 within type, and SCLD is fitted once on the training part.
Each replicate samples cells with the labels of the test part, and splits the test cells anew to
score them. Overall scores beside the real-vs-real baseline and the negative controls, mean ± sd
over seeds and replicates; with one seed that does not include the spread between fits. Then, for
each type, the median counts per cell at each weight beside those of the test cells. The
discriminator of post-guidance has seen neither the cells nor the classifiers that score it.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from anndata import AnnData
from common import (
    LABEL,
    LABELS,
    arguments,
    begin,
    evaluation_options,
    fitted,
    long_records,
    settings,
    split_cells,
    spread,
    write_results,
)

import scld
from scld.config import POST_GUIDANCE
from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE, CONTROLS

MEDIAN_COUNTS = "median_counts"  # of a cell, by type
WEIGHTS = (1.0, 1.5, 2.0, 3.0)
METRICS = [
    "precision",
    "coverage",
    "tstr_f1",
    "label_accuracy",
    "library_ks",
    "c2st",
    "c2st_forest",
    "c2st_linear",
    "c2st_boosting",
]


def benchmark(name: str, seed: int, given: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores, one row per replicate and dataset; median counts, one per replicate and type."""
    train, test = split_cells(name, seed, given)
    labels = LABELS.get(name, [LABEL])
    synth = fitted(train, labels, seed, given, name, settings(given, "select"))
    scores, sizes = [], []
    for replicate in range(given.replicates):
        own_seed = 1000 * seed + replicate
        datasets = {
            f"weight {weight:g}, {post}": synth.sample(
                obs=test.obs[labels], guidance=weight, post=post, seed=own_seed, progress=False
            )
            for weight in given.weights
            for post in given.posts
        }
        about = {"seed": seed, "replicate": replicate}
        scores.append(overall_scores(train, test, datasets, own_seed, given).assign(**about))
        sizes.append(median_counts({"test cells": test, **datasets}).assign(**about))
    return pd.concat(scores), pd.concat(sizes)


def records(scores: pd.DataFrame, sizes: pd.DataFrame, name: str) -> pd.DataFrame:
    """Both tables in long format."""
    keys = ["seed", "replicate"]
    overall = long_records(scores.rename(columns={"dataset": "method"}), [*keys, "method"])
    of_types = long_records(sizes.rename(columns={"type": "group"}), [*keys, "group"])
    of_types = of_types.rename(columns={"metric": "method"}).assign(metric=MEDIAN_COUNTS)
    both = pd.concat([overall.assign(group=OVERALL), of_types]).assign(dataset=name)
    return both[["dataset", *keys, "method", "group", "metric", "value"]]


def overall_scores(
    train: AnnData,
    test: AnnData,
    datasets: dict[str, AnnData],
    seed: int,
    given: argparse.Namespace,
) -> pd.DataFrame:
    """One row per dataset, one column per metric."""
    options = evaluation_options(given) | {"replicates": 1, "seed": seed}
    table = scld.evaluate(train, test, datasets, LABEL, **options).table
    rows = table[(table["group"] == OVERALL) & table["metric"].isin(METRICS)]
    wide = rows.pivot(index="dataset", columns="metric", values="value").reindex(columns=METRICS)
    return wide.loc[[BASELINE, *CONTROLS, *datasets]].reset_index()


def median_counts(datasets: dict[str, AnnData]) -> pd.DataFrame:
    """Median counts per cell, one row per type, one column per dataset."""
    columns = {}
    for name, cells in datasets.items():
        counts = pd.Series(np.asarray(cells.X.sum(axis=1)).ravel(), index=cells.obs_names)
        columns[name] = counts.groupby(cells.obs[LABEL].astype(str)).median()
    return pd.DataFrame(columns).rename_axis("type").reset_index()


def main() -> None:
    parser = arguments(__doc__, ["teaseq_pbmc", "mouse_ens"], seeds=[0])
    parser.add_argument("--replicates", type=int, default=3)
    parser.add_argument("--weights", nargs="+", type=float, default=list(WEIGHTS))
    parser.add_argument("--posts", nargs="+", choices=POST_GUIDANCE, default=list(POST_GUIDANCE))
    given = begin(parser)
    if given.quick:
        given.replicates, given.weights = 1, [1.0, 3.0]
    for name in given.datasets:
        tables = []
        for seed in given.seeds:
            tables.append(benchmark(name, seed, given))
            write_results("guidance", records(*tables[-1], name), given)
        scores, sizes = (pd.concat(parts) for parts in zip(*tables, strict=True))
        print(f"\n{name}, seeds {given.seeds}, replicates per seed: {given.replicates}")
        print(f"{spread(scores, ['dataset']).to_string()}\n\nmedian counts per cell")
        print(f"{spread(sizes, ['type'], 0).to_string()}\n", flush=True)


if __name__ == "__main__":
    main()
