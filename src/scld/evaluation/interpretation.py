"""The table in words: where each metric lies, and which types and genes are worst.

There is no overall score: no weighting of the metrics suits every use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE, CONTROLS
from scld.evaluation.gene_pairs import LEAK, LEVEL, worst_pairs
from scld.evaluation.registry import BY_NAME, Metric
from scld.evaluation.table import VALIDITY, difference_interval

BAND = 0.1  # of the way from the baseline to the worst negative control: like real cells
AS_BASELINE = "like real cells"
AS_CONTROL = "like the worst negative control"
CANNOT_TELL = "cannot tell"
NO_SCALE = "worse than real cells, no scale"
STEPS = ((BAND, "small difference"), (0.5, "moderate difference"), (1.0, "large difference"))
WORDS = (AS_CONTROL, *(text for _, text in reversed(STEPS)), AS_BASELINE, CANNOT_TELL, NO_SCALE)

DISTINGUISHABLE = 0.1  # C2ST AUC above the baseline that is worth a warning
OTHER_ACCURACY = 0.03  # label accuracy above or below the baseline that is worth a warning
TOO_NEAR = 0.05  # share of cells nearer to training cells, above the baseline
NO_COPIES = ("poisson", "shuffle")  # negative controls that hold no training cell
BELOW_CHANCE = 0.47  # C2ST AUC
MOST_UNCLEAR = 0.25  # share of metrics
MOST_GENE_WARNINGS = 4  # sentences about single genes; the table lists the others
MOST_ALSO = 8  # genes that are named in one of them


@dataclass(frozen=True)
class Finding:
    """One overall metric of one dataset, in words."""

    metric: Metric
    value: float
    baseline: float
    position: float
    interval: tuple[float, float]  # of the position
    word: str
    controls: dict[str, float]  # positions of the negative controls


def values(
    table: pd.DataFrame, name: str, column: str = "value", group: str = OVERALL
) -> dict[str, float]:
    """One column of the rows of one dataset: metric -> number."""
    rows = table[(table["dataset"] == name) & (table["group"] == group)]
    numbers = rows[column].to_numpy(float).tolist()
    return dict(zip(rows["metric"].astype(str), numbers, strict=True))


def findings(table: pd.DataFrame, name: str) -> list[Finding]:
    """Every overall metric of a dataset that has a baseline, in the order of the registry."""
    rows = table[(table["dataset"] == name) & (table["group"] == OVERALL)]
    rows = rows[rows["baseline"].notna()]
    worse = difference_interval(rows)[0]
    of_controls = {control: values(table, control, "position") for control in CONTROLS}
    found = []
    for row, lowest in zip(rows.to_dict("records"), worse, strict=True):
        metric, position = BY_NAME[row["metric"]], row["position"]
        positions = {name: of_one.get(metric.name, np.nan) for name, of_one in of_controls.items()}
        shown = {name: at for name, at in positions.items() if not np.isnan(at)}
        interval = (row["position_low"], row["position_high"])
        text = word(position, interval, lowest > 0)
        found.append(
            Finding(metric, row["value"], row["baseline"], position, interval, text, shown)
        )
    return found


def word(position: float, interval: tuple[float, float], worse: bool) -> str:
    """One value in words.

    Parameters
    ----------
    position
        See `scld.evaluation.table.positions`: 0 at the baseline, 1 at the worst negative control.
    interval
        Where the position lies beyond the scatter of replicates.
    worse
        Whether the value is worse than the baseline beyond that scatter; for metrics without a
        position.
    """
    low, high = interval
    if np.isnan(position):
        return NO_SCALE if worse else CANNOT_TELL
    if np.isnan(low):  # computed once: there is no scatter
        return AS_BASELINE if position <= BAND else _step(position)
    if high <= BAND:
        return AS_BASELINE
    return _step(position) if low > 0 else CANNOT_TELL


def _step(position: float) -> str:
    return next((text for limit, text in STEPS if position < limit), AS_CONTROL)


def headline(table: pd.DataFrame, name: str) -> str:
    """The two-sample test in three sentences."""
    value, baseline = values(table, name)["c2st"], values(table, BASELINE)["c2st"]
    text = (
        f"C2ST AUC, largest of three classifiers: {value:.2f}. Given one real and one synthetic "
        f"cell, the classifier identifies the synthetic one in {value:.0%} of pairs. Chance is "
        f"50%; two sets of real cells give {baseline:.0%}"
    )
    controls = {control: values(table, control).get("c2st", 0.0) for control in CONTROLS}
    worst = max(controls, key=lambda control: controls[control])
    if not controls[worst]:
        return f"{text}."
    return (
        f"{text}; the most distinguishable negative control ({worst}) gives {controls[worst]:.0%}."
    )


def warnings(table: pd.DataFrame, name: str) -> list[str]:
    """What must not be overlooked, or could be mistaken for a good result; the worst first."""
    value, baseline = values(table, name), values(table, BASELINE)
    candidates = [
        _copied(value, baseline),
        _memorised(table, name, value),
        _invalid(table, name),
        _distinguishable(table, name, value, baseline),
        *_other_accuracy(table, name, value, baseline),
        _below_chance(value),
    ]
    return [text for text in candidates if text]


def _copied(value: dict[str, float], baseline: dict[str, float]) -> str:
    if value["exact_copies"] <= baseline["exact_copies"]:
        return ""
    return (
        f"{value['exact_copies']:.1%} of the cells are exact copies of training cells: they "
        "disclose these cells, and raise every metric of quality."
    )


def _memorised(table: pd.DataFrame, name: str, value: dict[str, float]) -> str:
    """Nearer to training cells beyond chance, and more so than cells that copy none."""
    nearer, real = (of.get("nearer_training", 0.5) for of in (value, values(table, BASELINE)))
    without_copies = [values(table, control).get("nearer_training", 0) for control in NO_COPIES]
    by_chance = _beyond_chance(table, name, "nearer_training") <= 0
    if by_chance or nearer <= max(real + TOO_NEAR, *without_copies):
        return ""
    return (
        f"{nearer:.0%} of the cells are nearer to a training cell than to a test cell "
        "(50% expected): part of the training set is memorised."
    )


def _beyond_chance(table: pd.DataFrame, name: str, metric: str) -> float:
    """The least by which a value is worse than the baseline; not positive if it may be chance."""
    of_dataset = (table["dataset"] == name) & (table["group"] == OVERALL)
    rows = table[of_dataset & (table["metric"] == metric)]
    low = difference_interval(rows)[0]
    return float(np.nan_to_num(low, nan=0.0)[0]) if len(rows) else 0.0


def _distinguishable(
    table: pd.DataFrame, name: str, value: dict[str, float], baseline: dict[str, float]
) -> str:
    if _beyond_chance(table, name, "c2st") <= 0:
        return ""
    if value["c2st"] - max(baseline["c2st"], 0.5) <= DISTINGUISHABLE:
        return ""
    return (
        f"A classifier separates these cells from real ones with an AUC of {value['c2st']:.2f}, "
        f"where real cells get {baseline['c2st']:.2f}. The tables of types and genes below show "
        "where they differ."
    )


def _other_accuracy(
    table: pd.DataFrame, name: str, value: dict[str, float], baseline: dict[str, float]
) -> Iterator[str]:
    """Cells that are not of their type, or types that are too distinct."""
    synthetic, real = value.get("label_accuracy"), baseline.get("label_accuracy")
    if synthetic is None or real is None or _beyond_chance(table, name, "label_accuracy") <= 0:
        return
    seen = f"a classifier recognises {synthetic:.0%} of the synthetic cells and {real:.0%} of real"
    if synthetic < real - OTHER_ACCURACY:
        yield (
            f"Some cells are not of the type that they are labelled with: {seen} ones. The table "
            "of cell types shows which. A larger guidance weight moves cells towards their type."
        )
    elif synthetic > real + OTHER_ACCURACY:
        yield (
            f"Cell types are more distinct than in real cells: {seen} ones. Such cells score well "
            "in train on synthetic, test on real, and separate clearly on a UMAP, but real types "
            "overlap more."
        )


def _below_chance(value: dict[str, float]) -> str:
    if min(value["c2st_forest"], value["c2st_linear"], value["c2st_boosting"]) >= BELOW_CHANCE:
        return ""
    return (
        "A C2ST AUC below 0.5 occurs by chance with few cells. It is reported as it is and is no "
        "better than 0.5."
    )


def _invalid(table: pd.DataFrame, name: str) -> str:
    rows = table[(table["dataset"] == name) & (table["category"] == VALIDITY)]
    failed = rows["metric"][rows["value"] == 0]
    names = ", ".join(check.replace("_", " ") for check in failed)
    return f"Failed validity checks: {names}." if names else ""


def worst_types(table: pd.DataFrame, name: str, most: int = 5) -> pd.DataFrame:
    """The types furthest above their baseline.

    By the two-sample test if any type has enough cells for it, else by Wasserstein-2.
    """
    rows = table[(table["dataset"] == name) & (table["group"] != OVERALL)]
    metric = BY_NAME["c2st" if (rows["metric"] == "c2st").any() else "w2"]
    rows = rows[rows["metric"] == metric.name]
    rows = rows.assign(excess=rows["value"] - rows["baseline"], title=metric.heading)
    worst = rows.sort_values("excess", ascending=False).head(most)
    return worst[["group", "title", "value", "baseline", "excess"]]


def gene_warnings(type_genes: pd.DataFrame, name: str) -> list[str]:
    """Which identity genes are off, in their own type or in others: what is seen, what to do.

    Parameters
    ----------
    type_genes
        See `Results.type_genes`.
    name
        The dataset.
    """
    rows = worst_pairs(type_genes[type_genes["dataset"] == name])
    alike: dict[tuple[str, ...], list[dict[Any, Any]]] = {}  # a flaw rarely comes alone
    for row in rows[rows["identity_of"] != ""].to_dict("records"):
        if row["identity"] or (row["off"] == LEVEL and row["ratio"] > 1):
            direction = "" if row["ratio"] > 1 else "low"
            source = row["type"] if row["identity"] else row["identity_of"]
            key = row["type"], source, row["off"], direction
            alike.setdefault(key, []).append(row)
    texts = [_gene_text(group[0]) + _also(group[1:]) for group in alike.values()]
    return texts[:MOST_GENE_WARNINGS]


def _also(rows: list[dict[Any, Any]]) -> str:
    if not rows:
        return ""
    names = [row["gene"] for row in rows[:MOST_ALSO]]
    more = f" and {len(rows) - MOST_ALSO} more" if len(rows) > MOST_ALSO else ""
    return f" Also: {', '.join(names)}{more}."


def _gene_text(row: dict[Any, Any]) -> str:
    """One identity gene that is off in its own type, or in another."""
    if not row["identity"]:
        return _leak_text(row, row["identity_of"], row["type"], "mean", "z")
    if row["off"] == LEAK:
        return _leak_text(row, row["type"], "other types", "outside", "outside_z")
    seen = f"{row['gene']}, an identity gene of {row['type']}, "
    if row["off"] == LEVEL:
        return seen + (
            f"has {_levels(row, 'mean', 'z')}. Fold changes and thresholds of this gene do not "
            "carry over: take them from real cells, or generate again with more training cells of "
            "this type."
        )
    changed = "more" if row["variance_ratio"] > 1 else "less"
    return seen + (
        f"varies {changed} than in real cells: its variance is {row['variance_ratio']:.2g} times "
        "the real one. Do not study its variability, or the states that it separates, on these "
        "cells."
    )


def _leak_text(row: dict[Any, Any], own: str, into: str, level: str, z: str) -> str:
    return (
        f"{row['gene']}, an identity gene of {own}, leaks into {into}: "
        f"{_levels(row, level, z)}. Do not read its presence there as biology, and expect its fold "
        "change to be too small."
    )


def _levels(row: dict[Any, Any], level: str, z: str) -> str:
    return (
        f"{row[level]:.3g} counts per 10,000 in synthetic cells and {row[f'{level}_real']:.3g} in "
        f"real ones ({row[z]:+.0f} standard errors)"
    )


def next_steps(table: pd.DataFrame, name: str) -> list[str]:
    """What to do after reading the report of a dataset."""
    value, baseline = values(table, name), values(table, BASELINE)
    words = [finding.word for finding in findings(table, name)]
    steps = []
    if _copied(value, baseline) or _memorised(table, name, value):
        steps.append("Do not share these cells as if they held no training cell.")
    if _distinguishable(table, name, value, baseline):
        steps.append(
            "Read the tables of types and genes above before you use these cells. More training "
            "cells of the types that differ help most."
        )
    if "nearer_training" not in value:
        steps.append(
            "Hold cells out before a generator is trained (scld split), and pass them as test "
            "cells: only then can memorisation be measured."
        )
    if not set(CONTROLS) & set(table["dataset"]):
        steps.append("Score the negative controls too: they give each metric a scale.")
    unclear = words.count(CANNOT_TELL)
    if unclear > MOST_UNCLEAR * len(words):
        steps.append(
            f"Evaluate with more test cells: {unclear} of {len(words)} metrics cannot tell whether "
            "these cells are like real ones."
        )
    steps.append(
        "Repeat split, training and generation with other seeds before you compare two tools: one "
        "evaluation shows one split."
    )
    return steps
