"""The table in words: where each metric lies, and which types and genes are worst.

There is no overall score: no weighting of the metrics suits every use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE, CONTROLS
from scld.evaluation.gene_pairs import LEAK, LEVEL, worst_pairs
from scld.evaluation.registry import BY_NAME, Metric
from scld.evaluation.table import VALIDITY, badness

AS_BASELINE = "like real cells"
AS_CONTROL = "like the worst negative control"
NO_SCALE = "worse than real cells, no scale"
STEPS = ((0.1, "small difference"), (0.5, "moderate difference"), (1.0, "large difference"))
WORDS = (AS_BASELINE, *(text for _, text in STEPS), AS_CONTROL, NO_SCALE)

TOO_ACCURATE = 0.03  # label accuracy above the baseline that is worth a warning
TOO_NEAR = 0.05  # share of cells nearer to training cells, above the baseline
BELOW_CHANCE = 0.47  # C2ST AUC
MOST_GENE_WARNINGS = 4  # sentences about single genes; the table lists the others
MOST_ALSO = 8  # genes that are named in one of them


@dataclass(frozen=True)
class Finding:
    """One overall metric of one dataset, in words."""

    metric: Metric
    value: float
    baseline: float
    position: float
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
    worse = badness(rows["value"], rows["better"], rows["ideal"])
    worse = worse - badness(rows["baseline"], rows["better"], rows["ideal"])
    of_controls = {control: values(table, control, "position") for control in CONTROLS}
    found = []
    for row, above in zip(rows.to_dict("records"), worse, strict=True):
        metric, position = BY_NAME[row["metric"]], row["position"]
        positions = {name: of_one.get(metric.name, np.nan) for name, of_one in of_controls.items()}
        shown = {name: at for name, at in positions.items() if not np.isnan(at)}
        text = word(above, row["baseline_sd"], position)
        found.append(Finding(metric, row["value"], row["baseline"], position, text, shown))
    return found


def word(above: float, sd: float, position: float) -> str:
    """One value in words.

    Parameters
    ----------
    above
        By how much it is worse than the baseline.
    sd
        Standard deviation of the baseline over replicates; nan if unknown.
    position
        See `scld.evaluation.table.positions`.
    """
    if above <= max(2 * np.nan_to_num(sd), 1e-9):
        return AS_BASELINE
    if np.isnan(position):
        return NO_SCALE
    return next((text for limit, text in STEPS if position < limit), AS_CONTROL)


def headline(table: pd.DataFrame, name: str) -> str:
    """The two-sample test in two sentences."""
    value, baseline = values(table, name)["c2st"], values(table, BASELINE)["c2st"]
    text = (
        "Given one real and one synthetic cell, the best of three classifiers identifies the "
        f"synthetic one in {value:.0%} of pairs. Chance is 50%; two sets of real cells "
        f"give {baseline:.0%}"
    )
    controls = {control: values(table, control).get("c2st", 0.0) for control in CONTROLS}
    worst = max(controls, key=lambda control: controls[control])
    if not controls[worst]:
        return f"{text}."
    return (
        f"{text}; the most distinguishable negative control ({worst}) gives {controls[worst]:.0%}."
    )


def warnings(table: pd.DataFrame, name: str) -> list[str]:
    """What must not be overlooked, or could be mistaken for a good result."""
    value, baseline = values(table, name), values(table, BASELINE)
    candidates = [
        _too_accurate(value, baseline),
        _copied(value, baseline),
        _below_chance(value),
        _invalid(table, name),
    ]
    return [text for text in candidates if text]


def _too_accurate(value: dict[str, float], baseline: dict[str, float]) -> str:
    synthetic, real = value.get("label_accuracy", 0), baseline.get("label_accuracy", 1)
    if synthetic <= real + TOO_ACCURATE:
        return ""
    return (
        f"Cell types are more distinct than in real cells: a classifier recognises {synthetic:.0%} "
        f"of the synthetic cells and {real:.0%} of real ones. Such cells score well in train on "
        "synthetic, test on real, and separate clearly on a UMAP, but real types overlap more."
    )


def _copied(value: dict[str, float], baseline: dict[str, float]) -> str:
    if value["exact_copies"] > baseline["exact_copies"]:
        return f"{value['exact_copies']:.1%} of the cells are exact copies of training cells."
    nearer = value.get("nearer_training", 0.5)
    if nearer - baseline.get("nearer_training", 0.5) <= TOO_NEAR:
        return ""
    return (
        f"{nearer:.0%} of the cells are nearer to a training cell than to a held-out cell "
        "(50% expected): part of the training set is memorised."
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
