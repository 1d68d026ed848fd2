"""How good are synthetic cells? SCLD beside real cells and negative controls, and its targets.

    python benchmarks/quality.py [--data-dir DIR] [--datasets NAME ...] [--seeds 0 1 2]
        [--reports FOLDER] [--results FOLDER]

For each seed a dataset is split 70/30 within type. SCLD is fitted on the training part at default
settings, and generates cells with the labels of the test part, which `scld.evaluate` scores with
three replicates. kang_ifnb_small is fitted on cell_type and condition, kang_5donors on cell_type
and donor; both are scored by cell_type like the others. Two tables per dataset, mean ± sd over
seeds: overall scores, and scores beside targets. Negative controls are scored for the first seed
only. With --results, all metrics overall and some of each type are written to quality.json, with
--post select to quality-post-select.json.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
    peak_memory,
    settings,
    shown,
    split_cells,
    spread,
    training_costs,
    write_results,
)

import scld
from scld.config import POST_GUIDANCE
from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE, CONTROLS
from scld.evaluation.table import COST

DATASETS = [
    "teaseq_pbmc",
    "pbmc3k",
    "mouse_endocrinogenesis",
    "mouse_ens",
    "kang_ifnb_small",
    "kang_5donors",
    "baron_human1",
]
SCLD = "SCLD"
COLUMNS = ["dataset", "seed", "method", "group", "metric", "value", "baseline"]
METRICS = [  # the columns of the first table; the results hold all metrics
    "c2st_forest",
    "c2st_linear",
    "c2st_boosting",
    "c2st",
    "w2",
    "mmd2",
    "tstr_f1",
    "label_accuracy",
    "effect_slope",
    "marker_outside",
    "nearer_training",
]
TYPE_METRICS = [  # in the results for each type as well
    "c2st",
    "w2",
    "tstr_f1",
    "label_accuracy",
    "effect_slope",
    "effect_slope_t",
    "marker_inside",
    "marker_outside",
    "identity_level",
    "identity_range",
    "type_means_off",
    "detection_gap",
]
TRAINING_CELLS, TEST_CELLS = "training_cells", "test_cells"  # of each type, in the results
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
    bounds
        Lower and upper bound.
    strict
        The bounds on the datasets in `STRICT`; the same if left out.
    least_training, least_test
        For the worst type: among those with so many training and test cells. Overall, if both are
        left out.
    """

    title: str
    metric: str
    measure: Measure
    bounds: tuple[float, float]
    strict: tuple[float, float] | None = None
    least_training: int = 0
    least_test: int = 0

    @property
    def by_type(self) -> bool:
        """Whether it is for the worst type."""
        return self.least_training > 0 or self.least_test > 0

    def on(self, dataset: str) -> tuple[float, float]:
        """Lower and upper bound on a dataset."""
        return self.strict if self.strict and dataset in STRICT else self.bounds


def at_most(bound: float) -> tuple[float, float]:
    """Bounds without a lower one."""
    return -math.inf, bound


def at_least(bound: float) -> tuple[float, float]:
    """Bounds without an upper one."""
    return bound, math.inf


STRICT = {"teaseq_pbmc"}
DIFFERENCE, RATIO = pd.Series.sub, pd.Series.div
SMALL = {"least_training": 30}
TARGETS = [
    Target("C2ST - baseline", "c2st", above_chance, at_most(0.05), at_most(0.03)),
    Target("the same, worst type", "c2st", above_chance, at_most(0.1), least_test=100),
    Target("W2 / baseline", "w2", RATIO, at_most(1.05), at_most(1.03)),
    Target("MMD2 - baseline", "mmd2", DIFFERENCE, at_most(0.002), at_most(0.001)),
    Target("F1 - baseline", "tstr_f1", DIFFERENCE, at_least(-0.02), at_least(0)),
    Target("accuracy - baseline", "label_accuracy", DIFFERENCE, at_least(-0.03), at_least(-0.02)),
    Target("effect slope / baseline", "effect_slope", RATIO, (0.95, 1.05)),
    Target("the same, worst type", "effect_slope", RATIO, at_least(0.9), **SMALL),
    Target("effect slope (t) / baseline", "effect_slope_t", RATIO, (0.95, 1.05)),
    Target("the same, worst type", "effect_slope_t", RATIO, at_least(0.9), **SMALL),
    Target("markers, inside", "marker_inside", score_itself, (0.9, 1.15)),
    Target("the same, worst type", "marker_inside", score_itself, (0.9, 1.15), **SMALL),
    Target("markers, outside", "marker_outside", score_itself, (0.9, 1.15)),
    Target("the same, worst type", "marker_outside", score_itself, (0.9, 1.15), **SMALL),
    Target("identity level - baseline", "identity_level", DIFFERENCE, at_least(-0.05)),
    Target("identity range - baseline", "identity_range", DIFFERENCE, at_least(-0.05)),
    Target("type means off / baseline", "type_means_off", RATIO, at_most(1.5)),
    Target("nearer to training", "nearer_training", score_itself, at_most(0.55)),
]


def benchmark(name: str, seed: int, given: argparse.Namespace) -> tuple[scld.Report, pd.DataFrame]:
    """Split, fit, sample and score one dataset: the report, and the records of it."""
    labels = LABELS.get(name, [LABEL])
    train, test = split_cells(name, seed, given)
    started = time.perf_counter()
    synth = fitted(train, labels, seed, given, name, settings(given, given.post))
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
    report = scld.evaluate(train, test, {SCLD: cells}, LABEL, **evaluation)
    parts = [scores_of(report.table), costs_of(synth), sizes_of(train, test)]
    return report, pd.concat(parts, ignore_index=True).assign(dataset=name, seed=seed)[COLUMNS]


def scores_of(table: pd.DataFrame) -> pd.DataFrame:
    """The scores of a report that the docs need, in long format."""
    overall, control = table["group"] == OVERALL, table["dataset"].isin(list(CONTROLS))
    wanted = np.where(overall, ~control, table["metric"].isin(TYPE_METRICS) & ~control)
    wanted |= control & overall & table["metric"].isin(METRICS)
    wanted &= (table["dataset"] != BASELINE) & (table["category"] != COST)
    scores = table[wanted].rename(columns={"dataset": "method"}).dropna(subset="value")
    return scores[["method", "group", "metric", "value", "baseline"]]


def sizes_of(train: AnnData, test: AnnData) -> pd.DataFrame:
    """The number of cells, all and of each type, in the same format."""
    sizes = [
        {"group": group, "metric": metric, "value": float(n)}
        for metric, cells in {TRAINING_CELLS: train, TEST_CELLS: test}.items()
        for group, n in {OVERALL: cells.n_obs, **cells.obs[LABEL].value_counts()}.items()
    ]
    return pd.DataFrame(sizes).assign(method=SCLD)


def costs_of(synth: scld.Synthesizer) -> pd.DataFrame:
    """Steps and seconds of training, in the same format."""
    costs = pd.Series(training_costs(synth), name="value").rename_axis("metric").reset_index()
    return costs.assign(method=SCLD, group=OVERALL)


def overview(found: pd.DataFrame) -> pd.DataFrame:
    """One row per method, one column per metric, overall; mean ± sd over seeds."""
    rows = found[(found["group"] == OVERALL) & found["metric"].isin(METRICS)]
    of_baseline = rows[rows["method"] == SCLD].assign(value=rows["baseline"], method=BASELINE)
    rows = pd.concat([of_baseline, rows])
    wide = rows.pivot(index=["method", "seed"], columns="metric", values="value")
    wide = wide.reindex(columns=METRICS).reset_index()
    table = spread(wide, ["method"], 4)
    return table.loc[[name for name in (BASELINE, SCLD, *CONTROLS) if name in table.index]]


def beside_targets(found: pd.DataFrame, name: str) -> pd.DataFrame:
    """One row per target; the worst type is the one with the worst mean over seeds."""
    measured = [(target, measure(found, target, name)) for target in TARGETS]
    return pd.DataFrame([_in_words(target, row, name) for target, row in measured if row])


@dataclass(frozen=True)
class Measured:
    """A measure of one metric on a dataset: mean and sd over seeds, and whether it is met."""

    group: str
    score: str
    baseline: str
    measure: str
    met: bool


def measure(found: pd.DataFrame, target: Target, name: str) -> Measured | None:
    """What has a target, of the records of one dataset; None where it is not defined."""
    rows = found[(found["method"] == SCLD) & (found["metric"] == target.metric)]
    rows = rows[rows["group"].isin(_groups(found, target))]
    rows = rows.assign(measure=target.measure(rows["value"], rows["baseline"]))
    rows = rows.dropna(subset="measure")
    if rows.empty:
        return None
    low, high = target.on(name)
    means = rows.groupby("group", sort=False)["measure"].mean()
    beyond = np.maximum(low - means, means - high)
    worst = str(beyond.idxmax())
    of_worst = rows[rows["group"] == worst]
    columns = ("value", "baseline", "measure")
    texts = [shown(of_worst[column].mean(), of_worst[column].std(), 4) for column in columns]
    return Measured(worst, *texts, met=bool(beyond[worst] <= 0))


def _groups(found: pd.DataFrame, target: Target) -> list[str]:
    """All cells, or the types that are large enough in each seed."""
    if not target.by_type:
        return [OVERALL]
    sizes = found[found["group"] != OVERALL].groupby(["metric", "group"])["value"].min()
    least = {TRAINING_CELLS: target.least_training, TEST_CELLS: target.least_test}
    enough = [set(sizes[metric].index[sizes[metric] >= n]) for metric, n in least.items()]
    return sorted(set.intersection(*enough))


def _in_words(target: Target, measured: Measured, name: str) -> dict[str, str]:
    return {
        "measure": target.title,
        "group": measured.group,
        SCLD: measured.score,
        BASELINE: measured.baseline,
        "measured": measured.measure,
        "target": bounds_in_words(*target.on(name)),
        "met": "yes" if measured.met else "NO",
    }


def bounds_in_words(low: float, high: float) -> str:
    """The bounds of a target."""
    if low == -math.inf:
        return f"at most {high}"
    return f"at least {low}" if high == math.inf else f"{low} to {high}"


def save(report: scld.Report, folder: Path, name: str, page: bool) -> None:
    """The scores as JSON, and the HTML report where negative controls were scored."""
    folder.mkdir(parents=True, exist_ok=True)
    report.to_json(folder / f"{name}.json")
    if page:
        report.to_html(folder / f"{name}.html")


def file_of(given: argparse.Namespace) -> str:
    """The file of results: another one for other options of sampling."""
    options = {"guidance": given.guidance, "post": given.post}
    parts = [f"{name}-{value}" for name, value in options.items() if value is not None]
    return "-".join(["quality", *parts])


def main() -> None:
    parser = arguments(__doc__, DATASETS)
    parser.add_argument("--guidance", type=float, help="guidance weight; the default if left out")
    parser.add_argument("--post", choices=POST_GUIDANCE, help="of fit and sampling; default: off")
    parser.add_argument(
        "--reports",
        type=Path,
        help="folder for a JSON report per dataset and seed, and an HTML report of the first seed",
    )
    given = begin(parser)
    for name in given.datasets:
        tables = []
        for seed in given.seeds:
            report, found = benchmark(name, seed, given)
            tables.append(found)
            write_results(file_of(given), found, given)
            if given.reports:
                save(report, given.reports, f"{name}-{seed}", page=seed == given.seeds[0])
        table = pd.concat(tables, ignore_index=True)
        print(f"\n{name}, seeds {given.seeds}\n{overview(table).to_string()}\n")
        print(f"{beside_targets(table, name).to_string(index=False)}\n", flush=True)


if __name__ == "__main__":
    main()
