"""The table in words: where each figure lies between real cells and the worst trivial fake, and what is worst. No overall score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scld.judge import BASELINES, FLOOR, OVERALL
from scld.metrics.catalogue import FIGURES, Figure

STEPS = ((0.1, "close to real"), (0.5, "some way off"), (1.0, "far off"))
AT_FLOOR, WORST, MUTE = "as real", "as bad as the worst fake", "cannot tell"
WORDS = (AT_FLOOR, *(text for _, text in STEPS), WORST, MUTE)


def gap(value: pd.Series, better: pd.Series, ideal: pd.Series) -> pd.Series:
    """How far a value lies on the wrong side; the larger, the worse."""
    signed = value.where(better == "lower", -value)
    return signed.where(better != "target", (value - ideal).abs())


def positions(table: pd.DataFrame) -> pd.Series:
    """0: where real cells lie. 1: where the worst trivial fake lies. nan: the figure does not tell any trivial fake from real cells."""
    here = gap(table["value"], table["better"], table["ideal"])
    floor = gap(table["floor"], table["better"], table["ideal"])
    worst = here.where(table["set"].isin(list(BASELINES))).groupby([table["scope"], table["figure"]]).transform("max")
    span = worst - floor
    tells = span > np.maximum(2 * table["floor_sd"].fillna(0), 1e-6)
    return ((here - floor) / span.where(tells)).where(table["set"] != FLOOR, 0.0)


@dataclass(frozen=True)
class Finding:
    """One overall figure of one set, in words."""

    figure: Figure
    value: float
    floor: float
    position: float
    word: str
    fakes: dict[str, float]  # positions of the trivial fakes


def values(table: pd.DataFrame, name: str, column: str = "value", scope: str = OVERALL) -> dict[str, float]:
    """One column of one set's figures: figure -> number."""
    rows = table[(table["set"] == name) & (table["scope"] == scope)]
    return dict(zip(rows["figure"].astype(str), rows[column].to_numpy(float).tolist(), strict=True))


def findings(table: pd.DataFrame, name: str) -> list[Finding]:
    """Every overall figure of a set that has a floor, in the catalogue's order."""
    table = table[table["floor"].notna()]
    value, floor, noise, position = (values(table, name, column) for column in ("value", "floor", "floor_sd", "position"))
    fakes = {fake: values(table, fake, "position") for fake in BASELINES}
    found = []
    for figure in (figure for figure in FIGURES if figure.name in value):
        key = figure.name
        ideal = floor[key] if np.isnan(figure.ideal) else figure.ideal
        above = _wrong_by(figure, value[key], ideal) - _wrong_by(figure, floor[key], ideal)
        placed = {fake: of[key] for fake, of in fakes.items() if key in of and not np.isnan(of[key])}
        found.append(Finding(figure, value[key], floor[key], position[key], word(above, noise[key], position[key]), placed))
    return found


def _wrong_by(figure: Figure, value: float, ideal: float) -> float:
    return {"lower": value, "higher": -value, "target": abs(value - ideal)}[figure.better]


def word(above: float, noise: float, position: float) -> str:
    """How one value stands, in a few words: by how much it is worse than real cells, their spread over halvings, its position."""
    if above <= max(2 * np.nan_to_num(noise), 1e-9):
        return AT_FLOOR
    if np.isnan(position):
        return MUTE
    return next((text for limit, text in STEPS if position < limit), WORST)


def headline(table: pd.DataFrame, name: str) -> str:
    """The two-sample test in a sentence or two."""
    floor, fakes = values(table, FLOOR)["c2st"], {fake: values(table, fake).get("c2st", 0.0) for fake in BASELINES}
    text = (
        f"Shown one real and one synthetic cell, the best of three classifiers picks the synthetic one {values(table, name)['c2st']:.0%} of the time. "
        f"Guessing gives 50 %, and two sets of real cells give {floor:.0%}"
    )
    worst = max(fakes, key=lambda fake: fakes[fake])
    return f"{text}; the easiest trivial fake to spot ({worst}), {fakes[worst]:.0%}." if fakes[worst] else f"{text}."


def warnings(table: pd.DataFrame, name: str) -> list[str]:
    """What a reader might mistake for good news, and what must not be missed."""
    value, floor = values(table, name), values(table, FLOOR)
    said = []
    if value.get("label_accuracy", 0) > floor.get("label_accuracy", 1) + 0.03:
        said.append(
            f"Types are purer than real ones: a classifier recognises {value['label_accuracy']:.0%} of the synthetic cells and {floor['label_accuracy']:.0%} "
            "of real ones. Such caricatures teach classifiers well and look convincing on a map, but are not what a sequencer would give."
        )
    if value["exact_copies"] > floor["exact_copies"]:
        said.append(f"{value['exact_copies']:.1%} of the cells are exact copies of training cells.")
    elif value.get("nearer_training", 0.5) - floor.get("nearer_training", 0.5) > 0.05:
        share = f"{value['nearer_training']:.0%}"
        said.append(f"{share} of the cells lie nearer to training cells than to others (50 % expected): part of the training set is remembered.")
    if min(value["c2st_forest"], value["c2st_linear"], value["c2st_boosting"]) < 0.47:
        said.append("A C2ST AUC below .5 is chance: in few cells a classifier can be wrong more often than right. It counts as it is and is no better than .5.")
    failed = table[(table["set"] == name) & (table["group"] == "Validity") & (table["value"] == 0)]["figure"]
    if len(failed):
        said.append(f"Fails validity: {', '.join(check.replace('_', ' ') for check in failed)}.")
    return said


def worst_types(table: pd.DataFrame, name: str, most: int = 5) -> pd.DataFrame:
    """The types furthest above their floor: by the two-sample test where there are cells enough, else by Wasserstein-2."""
    rows = table[(table["set"] == name) & (table["scope"] != OVERALL)]
    figure = "c2st" if (rows["figure"] == "c2st").any() else "w2"
    of_figure = rows[rows["figure"] == figure].copy()
    of_figure["excess"] = of_figure["value"] - of_figure["floor"]
    return of_figure.sort_values("excess", ascending=False).head(most)[["scope", "figure", "value", "floor", "excess"]]


def worst_genes(genes: pd.DataFrame, name: str, most: int = 8) -> pd.DataFrame:
    """The genes furthest from real cells in level (in standard deviations) or in detection (share of cells)."""
    seen = genes[["detection", "detection_real"]].max(axis=1) >= 0.05  # a gene in a cell or two has no spread to speak of
    rows = genes[(genes["set"] == name) & seen].copy()
    spread = np.sqrt((rows["variance_real"] + rows["variance"]) / 2).clip(lower=1e-3)
    rows["shift"] = (rows["mean"] - rows["mean_real"]) / spread
    rows["detected"] = rows["detection"] - rows["detection_real"]
    rows["badness"] = rows[["shift", "detected"]].abs().mul([1, 2]).max(axis=1)
    return rows.sort_values("badness", ascending=False).head(most)
