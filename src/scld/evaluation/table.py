"""Scores -> the table of a report: one row per dataset, group and metric, with the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE, CONTROLS
from scld.evaluation.protocol import Group, Score
from scld.evaluation.registry import BY_NAME, METRICS

VALIDITY, COST = "Validity", "Cost"  # categories of rows that are no metrics
COLUMNS = [
    *("dataset", "group", "category", "metric", "value", "sd", "lower", "upper"),
    *("baseline", "baseline_sd", "better", "ideal"),
    *("position", "position_low", "position_high"),
]
INTERVAL_SD = 2.0  # standard deviations on each side of a difference


def tabulate(
    scores: Sequence[Score],
    types: Sequence[str],
    datasets: Sequence[str],
    validity: Mapping[str, Mapping[str, bool]],
    costs: Mapping[str, Mapping[str, float]],
) -> pd.DataFrame:
    """Mean and spread of every score over replicates, and where it lies.

    Parameters
    ----------
    scores
        Every score of the protocol.
    types
        Name of each code.
    datasets
        Names of the synthetic datasets, in order.
    validity
        Dataset -> check -> whether it passed.
    costs
        Dataset -> cost -> number.
    """
    table = _averaged(scores, types)
    table = _beside_baseline(table)
    parts = [table, _validity_rows(validity), _cost_rows(costs)]
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    order = {name: i for i, name in enumerate([*datasets, BASELINE, *CONTROLS])}
    return table.sort_values(
        "dataset", key=lambda names: names.map(order), kind="stable", ignore_index=True
    )[COLUMNS]


def _averaged(scores: Sequence[Score], types: Sequence[str]) -> pd.DataFrame:
    """One row per dataset, group and metric; all cells first, then labels, then types."""
    long = pd.DataFrame([vars(score) for score in scores])
    if len(types) == 1:  # the scores of the only type are the overall scores
        long = long[long["group"] == OVERALL]
    by = long.groupby(["dataset", "group", "metric"], sort=False)["value"]
    table = by.agg(value="mean", sd="std", lower="min", upper="max").reset_index()
    codes = [_order(group) for group in table["group"]]
    rank = {metric.name: i for i, metric in enumerate(METRICS)}
    table = table.assign(code=codes, rank=table["metric"].map(rank))
    table = table.sort_values(["code", "rank"], kind="stable", ignore_index=True)
    names = [group if isinstance(group, str) else types[group] for group in table["group"]]
    return table.assign(group=names).drop(columns=["code", "rank"])


def _order(group: Group) -> int:
    """All cells, then single labels, then types by their code."""
    if isinstance(group, str):
        return -2 if group == OVERALL else -1
    return group


def _beside_baseline(table: pd.DataFrame) -> pd.DataFrame:
    columns = {"value": "baseline", "sd": "baseline_sd"}
    baseline = table[table["dataset"] == BASELINE].rename(columns=columns)
    baseline = baseline[["group", "metric", "baseline", "baseline_sd"]]
    table = table.merge(baseline, how="left", on=["group", "metric"])
    rows = [BY_NAME[name] for name in table["metric"]]
    table["better"] = [metric.better for metric in rows]
    table["category"] = [metric.category for metric in rows]
    ideal = pd.Series([metric.ideal for metric in rows], dtype=float)
    table["ideal"] = ideal.fillna(table["baseline"])
    return table.assign(**positions(table))


def badness(value: pd.Series, better: pd.Series, ideal: pd.Series) -> pd.Series:
    """A metric turned so that larger values are worse."""
    signed = value.where(better == "lower", -value)
    return signed.where(better != "target", (value - ideal).abs())


def positions(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Each value between the baseline (0) and the worst negative control (1), with its interval.

    Not a number where no negative control is clearly worse than the baseline; the interval also
    with one replicate.
    """
    value = badness(table["value"], table["better"], table["ideal"])
    baseline = badness(table["baseline"], table["better"], table["ideal"])
    of_controls = value.where(table["dataset"].isin(list(CONTROLS)))
    worst = of_controls.groupby([table["group"], table["metric"]]).transform("max")
    span = worst - baseline
    informative = span > np.maximum(2 * table["baseline_sd"].fillna(0), 1e-6)
    span, is_baseline = span.where(informative), table["dataset"] == BASELINE
    low, high = difference_interval(table)
    found = {"position": value - baseline, "position_low": low, "position_high": high}
    return {name: (shift / span).where(~is_baseline, 0.0) for name, shift in found.items()}


def difference_interval(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """By how much each value is worse than its baseline, from and to.

    The difference of the means over replicates, plus and minus two standard deviations of the
    difference in a single replicate: an interval for one comparison of so many cells. Metrics that
    are computed once, on all cells, have no interval: nan.
    """
    value = badness(table["value"], table["better"], table["ideal"])
    above = value - badness(table["baseline"], table["better"], table["ideal"])
    error = INTERVAL_SD * np.hypot(table["sd"], table["baseline_sd"])
    return above - error, above + error


def _validity_rows(validity: Mapping[str, Mapping[str, bool]]) -> pd.DataFrame:
    rows = [
        (name, OVERALL, VALIDITY, check, float(ok), "higher", 1.0)
        for name, checks in validity.items()
        for check, ok in checks.items()
    ]
    columns = ["dataset", "group", "category", "metric", "value", "better", "ideal"]
    return pd.DataFrame(rows, columns=columns)


def _cost_rows(costs: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    rows = [
        (name, OVERALL, COST, cost, value, "lower")
        for name, of_dataset in costs.items()
        for cost, value in of_dataset.items()
    ]
    return pd.DataFrame(rows, columns=["dataset", "group", "category", "metric", "value", "better"])
