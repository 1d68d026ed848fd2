"""Every figure: what it is called, which way is good, what it sees. The functions are in the files beside this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NAN = float("nan")


@dataclass(frozen=True)
class Figure:
    """One figure: ``better`` is lower, higher, or target (nearest to ``ideal``; where that is nan, to the real floor)."""

    name: str
    group: str
    title: str
    better: Literal["lower", "higher", "target"]
    ideal: float
    sees: str


FIGURES = (
    Figure("c2st", "Told apart", "C2ST AUC, worst of three", "lower", 0.5, "how well the best of three classifiers tells synthetic cells from real ones"),
    Figure("c2st_forest", "Told apart", "C2ST AUC, random forest on genes", "lower", 0.5, "single genes that are off, and their combinations"),
    Figure("c2st_linear", "Told apart", "C2ST AUC, logistic regression on genes", "lower", 0.5, "genes whose mean is off"),
    Figure("c2st_boosting", "Told apart", "C2ST AUC, boosting on components", "lower", 0.5, "the shape of the cloud, depth and genes detected"),
    Figure("w1", "Distance", "Wasserstein-1", "lower", 0, "how far cells must be moved to become the real ones"),
    Figure("w2", "Distance", "Wasserstein-2", "lower", 0, "the same, far cells weighing more"),
    Figure("mmd2", "Distance", "MMD²", "lower", 0, "differences of density at the scale of the data"),
    Figure("energy_distance", "Distance", "Energy distance", "lower", 0, "differences of density at every scale"),
    Figure("ilisi", "Neighbours", "Mixing (iLISI)", "higher", 2, "whether neighbourhoods hold real and synthetic cells alike"),
    Figure("precision", "Neighbours", "Precision", "higher", 1, "synthetic cells that lie among real ones"),
    Figure("recall", "Neighbours", "Recall", "higher", 1, "real cells that synthetic ones reach"),
    Figure("density", "Neighbours", "Density", "target", NAN, "how deep among real cells the synthetic ones lie; above the floor they are too central"),
    Figure("coverage", "Neighbours", "Coverage", "higher", 1, "real neighbourhoods with a synthetic cell in them"),
    Figure("gene_mean", "Genes", "Gene means, RMSE", "lower", 0, "genes that are too high or too low"),
    Figure("gene_variance", "Genes", "Gene variances, RMSE", "lower", 0, "genes that vary too much or too little"),
    Figure("gene_zeros", "Genes", "Zero fractions, RMSE", "lower", 0, "genes seen in too many or too few cells"),
    Figure("detection_gap", "Genes", "Detection, ten worst genes", "lower", 0, "the few genes whose detection is furthest off"),
    Figure("library_ks", "Genes", "Library size, KS", "lower", 0, "the spread of counts per cell"),
    Figure("detected_ks", "Genes", "Genes per cell, KS", "lower", 0, "the spread of genes detected per cell"),
    Figure("correlation", "Genes", "Gene-gene correlation within type", "higher", 1, "whether genes go together as in real cells"),
    Figure("marker_slope", "Labels", "Marker fold changes, slope", "target", 1, "whether differences between types keep their size"),
    Figure("marker_correlation", "Labels", "Marker fold changes, correlation", "higher", 1, "whether differences between types keep their pattern"),
    Figure("de_recall", "Labels", "Top 50 markers found again", "higher", 1, "whether the same genes come out as markers"),
    Figure("tstr_f1", "Labels", "Train on synthetic, test on real, macro-F1", "higher", 1, "whether a classifier learns the real types from synthetic cells"),
    Figure("label_accuracy", "Labels", "Label accuracy", "target", NAN, "whether cells are of the type asked for; above the floor they are caricatures"),
    Figure("composition", "Labels", "Composition, total variation", "lower", 0, "whether types come in the proportions of training"),
    Figure("nearer_training", "Privacy", "Nearer to training cells", "target", 0.5, "cells remembered rather than made"),
    Figure("membership_auc", "Privacy", "Membership inference by cell, AUC", "target", 0.5, "what an attacker learns about a cell"),
    Figure("donor_membership_auc", "Privacy", "Membership inference by donor, AUC", "target", 0.5, "what an attacker learns about a donor"),
    Figure("exact_copies", "Privacy", "Exact copies", "lower", 0, "training cells handed out again"),
    Figure("repeated_cells", "Privacy", "Repeated cells", "lower", 0, "cells that the set itself contains twice"),
    Figure("scdiffusion_mmd", "Peers' variants", "MMD as scDiffusion computes it", "lower", 0, "for comparison with published tables only"),
    Figure("cfgen_w2", "Peers' variants", "W2 per type as CFGen computes it", "lower", 0, "for comparison with published tables only"),
    Figure("cfgen_mmd", "Peers' variants", "MMD per type as CFGen computes it", "lower", 0, "for comparison with published tables only"),
)
GROUPS = tuple(dict.fromkeys(figure.group for figure in FIGURES))
