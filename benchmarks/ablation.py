"""What does each part of the method do? Fits with one change of the settings at a time.

    python benchmarks/ablation.py [--data-dir DIR] [--datasets NAME ...] [--seeds 0 1 2]
        [--variants NAME ...] [--results FOLDER]

Splits, samples and scores are those of quality.py; a variant is the default with a few settings
changed. One table per dataset: headline scores of each variant beside the real-vs-real baseline,
mean ± sd over seeds. Variants that change sampling alone share the fit of the default where
--models keeps it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import pandas as pd
from common import (
    LABEL,
    LABELS,
    arguments,
    begin,
    evaluation_options,
    fitted,
    split_cells,
    spread,
    write_results,
)
from quality import COLUMNS, DATASETS, SCLD, costs_of, scores_of

import scld
from scld.config import PRESETS
from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE

DEFAULT = "default"
Changes = Mapping[str, Mapping[str, Any]]  # section of the settings -> setting -> value
VARIANTS: dict[str, Changes] = {
    DEFAULT: {},
    "no calibration": {"autoencoder": {"calibration_cells": 0, "spread_cells": 0}},
    "no calibration of the spread": {"autoencoder": {"spread_cells": 0}},
    "no profiles": {"autoencoder": {"profile_weight": 0.0}},
    "no linear part": {"autoencoder": {"linear_sd": 1e-6, "decoder_sd": 0.03}},
    "weight priors x 3": {"autoencoder": {"decoder_sd": 0.03, "linear_sd": 0.1}},
    "dispersions learnt slowly": {"autoencoder": {"dispersion_rate": 2.0}},
    "no outlier component": {"autoencoder": {"outlier_rate": 0.0}},
    "post-guidance": {"sampling": {"post": "select"}},
}
METRICS = [
    "c2st",
    "w2",
    "tstr_f1",
    "label_accuracy",
    "effect_slope",
    "marker_outside",
    "identity_level",
    "identity_range",
    "type_means_off",
    "nearer_training",
]


def changed_settings(changes: Changes, given: argparse.Namespace) -> scld.Config:
    """The settings of a fit with a few of them changed."""
    preset = PRESETS["quick" if given.quick else "default"]
    sections = {name: {**preset.get(name, {}), **values} for name, values in changes.items()}
    return scld.Config.from_dict({**preset, **sections})


def model_name(dataset: str, variant: str) -> str:
    """The name of a saved model: that of quality.py where only sampling is changed."""
    same = set(VARIANTS[variant]) <= {"sampling"}
    return dataset if same else f"{dataset}-{variant}".replace(" ", "-")


def benchmark(name: str, seed: int, variant: str, given: argparse.Namespace) -> pd.DataFrame:
    """The scores of one variant, in long format."""
    labels, config = LABELS.get(name, [LABEL]), changed_settings(VARIANTS[variant], given)
    train, test = split_cells(name, seed, given)
    synth = fitted(train, labels, seed, given, model_name(name, variant), config)
    cells = synth.sample(obs=test.obs[labels], seed=seed, progress=False)
    options = evaluation_options(given) | {"controls": False, "seed": seed}
    scores = scores_of(scld.evaluate(train, test, {SCLD: cells}, LABEL, **options).table)
    scores = scores[(scores["group"] == OVERALL) & scores["metric"].isin(METRICS)]
    found = pd.concat([scores, costs_of(synth)], ignore_index=True)
    return found.assign(dataset=name, seed=seed, method=variant)[COLUMNS]


def headline(found: pd.DataFrame) -> pd.DataFrame:
    """One row per variant, one column per metric, and the baseline; mean ± sd over seeds."""
    rows = found[found["metric"].isin(METRICS)]
    baseline = rows[rows["method"] == rows["method"].iloc[0]]
    baseline = baseline.assign(value=baseline["baseline"], method=BASELINE)
    methods = [BASELINE, *rows["method"].unique()]
    rows = pd.concat([baseline, rows])
    wide = rows.pivot(index=["method", "seed"], columns="metric", values="value")
    return spread(wide.reindex(columns=METRICS).reset_index(), ["method"]).loc[methods]


def main() -> None:
    parser = arguments(__doc__, DATASETS)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    given = begin(parser)
    if given.quick:
        given.variants = [DEFAULT, given.variants[-1]]
    for name in given.datasets:
        tables = []
        for seed in given.seeds:
            for variant in given.variants:
                tables.append(benchmark(name, seed, variant, given))
                write_results("ablation", tables[-1], given, unit=("dataset", "method", "seed"))
        print(f"\n{name}, seeds {given.seeds}\n{headline(pd.concat(tables)).to_string()}\n")


if __name__ == "__main__":
    main()
