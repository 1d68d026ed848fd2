"""Metrics: pure functions of arrays. Each states its source and its range, and has a test.

space       the space in which cells are compared: variable genes and principal components
two_sample  the classifier two-sample test
distances   Wasserstein distances, maximum mean discrepancy, energy distance
neighbours  mixing (iLISI), precision, recall, density, coverage
genes       moments of each gene, library size, gene-gene correlation
type_genes  each gene within each type: level, spread, identity genes
labels      marker genes, training on synthetic cells, label accuracy, composition
privacy     exact copies, memorisation, membership inference
validity    checks that a matrix of counts passes or fails
published   the variants that scDiffusion and CFGen report, under their names

A new metric is a function here and one row in `scld.evaluation.registry`.
"""

from scld.evaluation.metrics.distances import energy_distance, mmd2, wasserstein
from scld.evaluation.metrics.genes import (
    correlation_agreement,
    correlations,
    detection_gap,
    gene_moments,
    ks,
    rmse,
)
from scld.evaluation.metrics.labels import (
    accuracy,
    composition_distance,
    de_recall,
    effect_correlation,
    effect_slope,
    effects,
    label_predictor,
    macro_f1,
    t_statistics,
    top_markers,
)
from scld.evaluation.metrics.neighbours import (
    coverage,
    density,
    ilisi,
    neighbourhoods,
    precision,
    recall,
)
from scld.evaluation.metrics.privacy import (
    donor_membership_auc,
    exact_copies,
    membership_auc,
    nearer_training,
    nearest_distance,
    repeated_cells,
)
from scld.evaluation.metrics.published import cfgen_mmd, cfgen_space, cfgen_w2, scdiffusion_mmd
from scld.evaluation.metrics.space import Space, column_moments
from scld.evaluation.metrics.two_sample import (
    CLASSIFIERS,
    auc,
    boosting,
    c2st,
    forest,
    largest_auc,
    linear,
    out_of_fold,
)
from scld.evaluation.metrics.type_genes import (
    TypeMoments,
    central_range,
    gene_quantiles,
    geometric_ratio,
    identity_genes,
    mean_z,
    outside_means,
    share_outside,
    share_within,
    spread_z,
    type_moments,
    variance_ratio,
)
from scld.evaluation.metrics.validity import validity

__all__ = [
    "CLASSIFIERS",
    "Space",
    "TypeMoments",
    "accuracy",
    "auc",
    "boosting",
    "c2st",
    "central_range",
    "cfgen_mmd",
    "cfgen_space",
    "cfgen_w2",
    "column_moments",
    "composition_distance",
    "correlation_agreement",
    "correlations",
    "coverage",
    "de_recall",
    "density",
    "detection_gap",
    "donor_membership_auc",
    "effect_correlation",
    "effect_slope",
    "effects",
    "energy_distance",
    "exact_copies",
    "forest",
    "gene_moments",
    "gene_quantiles",
    "geometric_ratio",
    "identity_genes",
    "ilisi",
    "ks",
    "label_predictor",
    "largest_auc",
    "linear",
    "macro_f1",
    "mean_z",
    "membership_auc",
    "mmd2",
    "nearer_training",
    "nearest_distance",
    "neighbourhoods",
    "out_of_fold",
    "outside_means",
    "precision",
    "recall",
    "repeated_cells",
    "rmse",
    "scdiffusion_mmd",
    "share_outside",
    "share_within",
    "spread_z",
    "t_statistics",
    "top_markers",
    "type_moments",
    "validity",
    "variance_ratio",
    "wasserstein",
]
