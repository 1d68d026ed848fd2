"""Plots of the two-sample test: ROC curves, and its AUC by cell type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from scld.evaluation.plots.style import (
    GREY,
    INK,
    REAL,
    SYNTHETIC,
    add_legend,
    set_labels,
    shortened,
    subplots,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "forest": "random forest, genes",
    "linear": "logistic regression, genes",
    "boosting": "gradient boosting, components",
}
LINES = {"forest": "-", "linear": "--", "boosting": ":"}
Scores = Mapping[str, tuple[np.ndarray, np.ndarray]]  # classifier -> scores of real, of synthetic


def roc(synthetic: Scores, baseline: Scores) -> Figure:
    """ROC curves of the three classifiers, of synthetic cells and of real cells in their place."""
    from sklearn.metrics import roc_curve

    figure, (axis,) = subplots(1, 4.4, 4.8)
    for name, title in NAMES.items():
        for source, colour, label in [
            (synthetic, SYNTHETIC, "synthetic"),
            (baseline, REAL, "real"),
        ]:
            of_real, of_synthetic = source[name]
            is_synthetic = np.repeat([0, 1], [len(of_real), len(of_synthetic)])
            x, y, _ = roc_curve(is_synthetic, np.concatenate([of_real, of_synthetic]))
            axis.plot(x, y, LINES[name], color=colour, lw=1.6, label=f"{label}: {title}")
    axis.plot([0, 1], [0, 1], color=INK, lw=0.8, alpha=0.5)
    axis.set_aspect("equal")
    set_labels(axis, "false positive rate", "true positive rate")
    add_legend(axis, loc="lower center", bbox_to_anchor=(0.4, 1), handlelength=2.6)
    return figure


def by_type(types: Sequence[str], value: np.ndarray, baseline: np.ndarray) -> Figure:
    """C2ST AUC of each type beside its baseline, the largest at the top."""
    figure, (axis,) = subplots(1, 4.4, 1.1 + 0.26 * len(types))
    order = np.argsort(value)
    value, baseline, rows = value[order], baseline[order], np.arange(len(order))
    axis.hlines(rows, baseline, value, color=GREY, lw=2)
    axis.scatter(baseline, rows, c=REAL, s=36, label="real (baseline)", zorder=3)
    axis.scatter(value, rows, c=SYNTHETIC, s=36, marker="D", label="synthetic", zorder=3)
    axis.axvline(0.5, color=INK, lw=0.8, alpha=0.5)
    axis.set_yticks(rows, [shortened(types[i]) for i in order], fontsize=8)
    axis.set_xlim(min(0.4, float(baseline.min()) - 0.02), 1.01)
    set_labels(axis, "C2ST AUC, largest of three classifiers")
    add_legend(axis, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure
