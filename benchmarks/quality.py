"""How good are synthetic cells? SCLD beside real cells and negative controls, and its targets.

    python benchmarks/quality.py [--data-dir DIR] [--datasets NAME ...] [--seeds 0 1 2]
        [--reports FOLDER]

For each seed a dataset is split 70/30 within type. SCLD is fitted on the training part at default
settings, and generates cells with the labels of the test part, which `scld.evaluate` scores with
three replicates. kang_ifnb_small is fitted on cell_type and condition, and scored by cell_type like
the others. Two tables per dataset, mean ± sd over seeds: overall scores, and scores beside targets.
Negative controls are scored for the first seed only.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from common import (
    LABEL,
    LABELS,
    arguments,
    begin,
    evaluation_options,
    fitted,
    peak_memory,
    shown,
    split_cells,
    spread,
)

import scld
from scld.config import POST_GUIDANCE
from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE, CONTROLS

DATASETS = ["teaseq_pbmc", "pbmc3k", "mouse_endocrinogenesis", "mouse_ens", "kang_ifnb_small"]
SCLD = "SCLD"
METRICS = [  # the columns of the first table; the reports hold all metrics, also by type
    "c2st_forest",
    "c2st_linear",
    "c2st_boosting",
    "c2st",
    "w2",
    "mmd2",
    "tstr_f1",
    "label_accuracy",
    "marker_slope",
    "nearer_training",
]
Measure = Callable[[pd.Series, pd.Series], pd.Series]  # score, baseline -> what has a target


def above_chance(score: pd.Series, baseline: pd.Series) -> pd.Series:
    """Score minus baseline; a baseline below .5 counts as .5."""
    return score - baseline.clip(lower=0.5)


def score_itself(score: pd.Series, baseline: pd.Series) -> pd.Series:
    """The score, without its baseline."""
    return score


@dataclass(frozen=True)
class Target:
    """Bounds of a measure of one metric.

    Parameters
    ----------
    title
        How the table calls the measure.
    metric
        The metric.
    measure
        Function of score and baseline.
    strict, wide
        Lower and upper bound, on the datasets in `STRICT` and on the others.
    by_type
        Whether it is for the worst type: one with 100 test cells or more, which have a C2ST.
    """

    title: str
    metric: str
    measure: Measure
    strict: tuple[float, float]
    wide: tuple[float, float]
    by_type: bool = False


def at_most(bound: float) -> tuple[float, float]:
    """Bounds without a lower one."""
    return -math.inf, bound


def at_least(bound: float) -> tuple[float, float]:
    """Bounds without an upper one."""
    return bound, math.inf


STRICT = {"teaseq_pbmc"}
DIFFERENCE, RATIO = pd.Series.sub, pd.Series.div
TARGETS = [
    Target("C2ST - baseline", "c2st", above_chance, at_most(0.03), at_most(0.05)),
    Target("the same, worst type", "c2st", above_chance, at_most(0.07), at_most(0.1), by_type=True),
    Target("W2 / baseline", "w2", RATIO, at_most(1.03), at_most(1.05)),
    Target("MMD2 - baseline", "mmd2", DIFFERENCE, at_most(0.001), at_most(0.002)),
    Target("F1 - baseline", "tstr_f1", DIFFERENCE, at_least(0), at_least(-0.02)),
    Target("accuracy - baseline", "label_accuracy", DIFFERENCE, at_least(-0.02), at_least(-0.03)),
    Target("marker slope / baseline", "marker_slope", RATIO, (0.97, 1.03), (0.95, 1.05)),
    Target("nearer to training", "nearer_training", score_itself, at_most(0.53), at_most(0.55)),
]


def benchmark(name: str, seed: int, given: argparse.Namespace) -> scld.Report:
    """Split, fit, sample and score one dataset."""
    labels = LABELS.get(name, [LABEL])
    train, test = split_cells(name, seed, given)
    started = time.perf_counter()
    synth = fitted(train, labels, seed, given, name)
    fitting = time.perf_counter() - started
    options = {"guidance": given.guidance, "post": given.post, "seed": seed, "progress": False}
    cells = synth.sample(obs=test.obs[labels], **options)
    sampling = time.perf_counter() - started - fitting
    peak = peak_memory() / 1e6
    size = f"{test.n_obs:,} cells in {sampling:.1f} s, peak memory {peak:,.0f} MB"
    print(f"{name}, seed {seed}: {size}", flush=True)
    evaluation = evaluation_options(given) | {
        "costs": {SCLD: {"seconds": fitting + sampling, "peak_memory_mb": peak}},
        "controls": seed == given.seeds[0],
        "seed": seed,
    }
    return scld.evaluate(train, test, {SCLD: cells}, LABEL, **evaluation)


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """One row per dataset, one column per metric, overall."""
    rows = table[(table["group"] == OVERALL) & table["metric"].isin(METRICS)]
    wide = rows.pivot(index=["dataset", "seed"], columns="metric", values="value")
    wide = wide.reindex(columns=METRICS).reset_index()
    return spread(wide, ["dataset"], 4).loc[[BASELINE, SCLD, *CONTROLS]]


def beside_targets(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """One row per target; the worst type is the one with the worst mean over seeds."""
    rows = []
    for target in TARGETS:
        of_metric = (table["dataset"] == SCLD) & (table["metric"] == target.metric)
        in_group = (table["group"] != OVERALL) == target.by_type
        if (of_metric & in_group).any():
            rows.append(_beside_target(table[of_metric & in_group], target, name))
    return pd.DataFrame(rows)


def _beside_target(rows: pd.DataFrame, target: Target, name: str) -> dict[str, str]:
    rows = rows.assign(measure=target.measure(rows["value"], rows["baseline"]))
    worst = rows.groupby("group")["measure"].mean().idxmax()
    rows = rows[rows["group"] == worst]
    low, high = target.strict if name in STRICT else target.wide
    columns = {SCLD: "value", BASELINE: "baseline", "measured": "measure"}
    means = {key: shown(rows[c].mean(), rows[c].std(), 4) for key, c in columns.items()}
    met = low <= rows["measure"].mean() <= high
    return {
        "measure": target.title,
        "group": worst,
        **means,
        "target": _in_words(low, high),
        "met": "yes" if met else "NO",
    }


def _in_words(low: float, high: float) -> str:
    if low == -math.inf:
        return f"at most {high}"
    return f"at least {low}" if high == math.inf else f"{low} to {high}"


def save(report: scld.Report, folder: Path, name: str, page: bool) -> None:
    """The scores as JSON, and the HTML report where negative controls were scored."""
    folder.mkdir(parents=True, exist_ok=True)
    report.to_json(folder / f"{name}.json")
    if page:
        report.to_html(folder / f"{name}.html")


def main() -> None:
    parser = arguments(__doc__, DATASETS)
    parser.add_argument("--guidance", type=float, help="guidance weight; the default if left out")
    parser.add_argument("--post", choices=POST_GUIDANCE, help="the default if left out")
    parser.add_argument(
        "--reports",
        type=Path,
        help="folder for a JSON report per dataset and seed, and an HTML report of the first seed",
    )
    given = begin(parser)
    for name in given.datasets:
        tables = []
        for seed in given.seeds:
            report = benchmark(name, seed, given)
            tables.append(report.table.assign(seed=seed))
            if given.reports:
                save(report, given.reports, f"{name}-{seed}", page=seed == given.seeds[0])
        table = pd.concat(tables, ignore_index=True)
        print(f"\n{name}, seeds {given.seeds}\n{overview(table).to_string()}\n")
        print(f"{beside_targets(table, name).to_string(index=False)}\n", flush=True)


if __name__ == "__main__":
    main()
