"""The registry of metrics: one row per metric. Protocol, table and report iterate over it.

To add a metric, write a function of arrays in ``metrics/`` and add a row here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Literal

from scld.evaluation import metric_inputs as take
from scld.evaluation.comparison import MIN_TYPE_CELLS
from scld.evaluation.metrics import (
    distances,
    genes,
    labels,
    neighbours,
    privacy,
    published,
    two_sample,
    type_genes,
)

AS_BASELINE = float("nan")  # the ideal of metrics that should equal the baseline
TWO_SAMPLE, DISTANCES, NEIGHBOURS = "Two-sample test", "Distances", "Neighbourhoods"
GENES, LABELS, PRIVACY, PUBLISHED = "Genes", "Labels", "Privacy", "Published variants"


class Scope(Enum):
    """Which cells a metric is computed on."""

    OVERALL = "all cells"
    OVERALL_AND_TYPES = "all cells, and the cells of each type"
    TYPES_THEN_MEAN = "the cells of each type; overall: the mean over types"
    TYPES_THEN_CELL_MEAN = "the cells of each type; overall: the mean over types, by their cells"
    DATASET = "every cell of a dataset against every training cell"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Parameters
    ----------
    name
        Its name in tables.
    function
        Function of arrays that returns a number.
    takes
        Function that returns the arguments of ``function``, or None where it is not defined: of a
        `DatasetPair` in the scope `Scope.DATASET`, else of a `Comparison`.
    scope
        Which cells it is computed on.
    category, title
        The section and the row of a report that show it.
    better
        Lower, higher, or target: nearest to ``ideal``.
    ideal
        The best value; nan if that is the baseline.
    caption
        What it shows.
    reference
        Where it is defined.
    heading
        Its column in the table of cell types; empty for none.
    min_type_cells
        Real cells of a type, below which it is not computed for the type.
    first_replicate_only
        Whether one split of the test cells is enough.
    known_baseline
        The baseline, where it is known and not measured.
    """

    name: str
    function: Callable[..., float]
    takes: Callable[[Any], tuple[Any, ...] | None]
    scope: Scope
    category: str
    title: str
    better: Literal["lower", "higher", "target"]
    ideal: float
    caption: str
    reference: str
    heading: str = ""
    min_type_cells: int = MIN_TYPE_CELLS
    first_replicate_only: bool = False
    known_baseline: float | None = None

    def value(self, compared: Any) -> float | None:
        """The metric of a `Comparison` or a `DatasetPair`; None where it is not defined."""
        found = self.takes(compared)
        return None if found is None else self.function(*found)

    @property
    def direction(self) -> str:
        """Which values are better, in words."""
        if self.better != "target":
            return self.better
        return "as baseline" if self.ideal != self.ideal else f"near {self.ideal:g}"


# A table, one block per metric:
# fmt: off
METRICS = (
    Metric(
        "c2st", two_sample.largest_auc, take.all_classifier_scores, Scope.OVERALL_AND_TYPES,
        TWO_SAMPLE,
        title="C2ST AUC, largest of three classifiers", better="lower", ideal=0.5,
        heading="C2ST AUC",
        min_type_cells=50,
        caption="the largest AUC of three classifiers that try to tell real from synthetic cells; "
        "the largest of each replicate, so the mean can exceed each of the three means",
        reference="Lopez-Paz and Oquab, arXiv:1610.06545",
    ),
    Metric(
        "c2st_forest", two_sample.auc, take.forest_scores, Scope.OVERALL_AND_TYPES, TWO_SAMPLE,
        title="C2ST AUC, random forest on genes", better="lower", ideal=0.5, min_type_cells=50,
        caption="single genes that differ, and combinations of them",
        reference="Lopez-Paz and Oquab, arXiv:1610.06545",
    ),
    Metric(
        "c2st_linear", two_sample.auc, take.linear_scores, Scope.OVERALL_AND_TYPES, TWO_SAMPLE,
        title="C2ST AUC, logistic regression on genes", better="lower", ideal=0.5,
        min_type_cells=50,
        caption="genes whose mean differs",
        reference="Lopez-Paz and Oquab, arXiv:1610.06545",
    ),
    Metric(
        "c2st_boosting", two_sample.auc, take.boosting_scores, Scope.OVERALL_AND_TYPES, TWO_SAMPLE,
        title="C2ST AUC, gradient boosting on components", better="lower", ideal=0.5,
        min_type_cells=50,
        caption="the distribution in principal components, library size, genes per cell",
        reference="Lopez-Paz and Oquab, arXiv:1610.06545",
    ),
    Metric(
        "w1", partial(distances.wasserstein, p=1), take.components, Scope.OVERALL_AND_TYPES,
        DISTANCES,
        title="Wasserstein-1", better="lower", ideal=0,
        caption="mean distance that cells must be moved to match the real ones",
        reference="Peyre and Cuturi 2019, eq. 2.18",
    ),
    Metric(
        "w2", distances.wasserstein, take.components, Scope.OVERALL_AND_TYPES, DISTANCES,
        title="Wasserstein-2", better="lower", ideal=0, heading="W2",
        caption="the same, with more weight on distant cells",
        reference="Peyre and Cuturi 2019, eq. 2.18",
    ),
    Metric(
        "mmd2", distances.mmd2, take.components, Scope.OVERALL_AND_TYPES, DISTANCES,
        title="MMD²", better="lower", ideal=0, heading="MMD²",
        caption="differences in density at the scale of the data",
        reference="Gretton et al., JMLR 13:723, 2012, eq. 3",
    ),
    Metric(
        "energy_distance", distances.energy_distance, take.components, Scope.OVERALL_AND_TYPES,
        DISTANCES,
        title="Energy distance", better="lower", ideal=0,
        caption="differences in density at every scale",
        reference="Szekely and Rizzo 2013, eq. 6",
    ),
    Metric(
        "ilisi", neighbours.ilisi, take.components, Scope.OVERALL, NEIGHBOURS,
        title="Mixing (iLISI)", better="higher", ideal=2,
        caption="whether the neighbours of a cell are real and synthetic in equal parts",
        reference="Korsunsky et al., Nat Methods 16:1289, 2019",
    ),
    Metric(
        "precision", neighbours.precision, take.in_real_neighbourhoods, Scope.OVERALL, NEIGHBOURS,
        title="Precision", better="higher", ideal=1,
        caption="share of synthetic cells that are near a real cell",
        reference="Kynkaanniemi et al., arXiv:1904.06991",
    ),
    Metric(
        "recall", neighbours.recall, take.in_synthetic_neighbourhoods, Scope.OVERALL, NEIGHBOURS,
        title="Recall", better="higher", ideal=1,
        caption="share of real cells that are near a synthetic cell",
        reference="Kynkaanniemi et al., arXiv:1904.06991",
    ),
    Metric(
        "density", neighbours.density, take.in_real_neighbourhoods, Scope.OVERALL, NEIGHBOURS,
        title="Density", better="target", ideal=AS_BASELINE,
        caption="how many real cells are near a synthetic cell; above the baseline: too central",
        reference="Naeem et al., arXiv:2002.09797, eq. 3",
    ),
    Metric(
        "coverage", neighbours.coverage, take.in_real_neighbourhoods, Scope.OVERALL, NEIGHBOURS,
        title="Coverage", better="higher", ideal=1,
        caption="share of real neighbourhoods that contain a synthetic cell",
        reference="Naeem et al., arXiv:2002.09797, eq. 4",
    ),
    Metric(
        "gene_mean", genes.rmse, take.gene_means, Scope.OVERALL_AND_TYPES, GENES,
        title="Gene means, RMSE", better="lower", ideal=0,
        caption="genes whose level is too high or too low",
        reference="root mean square error over genes",
    ),
    Metric(
        "gene_variance", genes.rmse, take.gene_variances, Scope.OVERALL_AND_TYPES, GENES,
        title="Gene variances, RMSE", better="lower", ideal=0,
        caption="genes that vary too much or too little",
        reference="root mean square error over genes",
    ),
    Metric(
        "gene_zeros", genes.rmse, take.detection_rates, Scope.OVERALL_AND_TYPES, GENES,
        title="Zero fractions, RMSE", better="lower", ideal=0,
        caption="genes detected in too many or too few cells",
        reference="root mean square error over genes",
    ),
    Metric(
        "detection_gap", genes.detection_gap, take.detection_rates, Scope.OVERALL_AND_TYPES, GENES,
        title="Detection, ten worst genes", better="lower", ideal=0, heading="detection gap",
        caption="the ten genes whose detection rate differs most",
        reference="mean absolute difference over ten genes",
    ),
    Metric(
        "type_means_off", partial(type_genes.share_outside, limit=3), take.type_mean_z,
        Scope.OVERALL_AND_TYPES, GENES,
        title="Gene means by type, share off", better="lower", ideal=0, heading="means off",
        min_type_cells=type_genes.MIN_TYPE_CELLS,
        caption="share of genes, type by type, whose mean is more than 3 standard errors off",
        reference="Welch's t, Biometrika 34:28, 1947, on counts per 10,000",
    ),
    Metric(
        "identity_level", partial(type_genes.share_within, tolerance=0.15), take.identity_levels,
        Scope.TYPES_THEN_MEAN, GENES,
        title="Identity genes, level", better="higher", ideal=1, heading="identity level",
        caption="share of the ten most abundant marker genes of a type with a mean within 15% of "
        "training",
        reference="mean counts per 10,000 of synthetic and of training cells",
    ),
    Metric(
        "identity_range", partial(type_genes.share_within, tolerance=0.3), take.identity_ranges,
        Scope.TYPES_THEN_MEAN, GENES,
        title="Identity genes, range", better="higher", ideal=1, heading="identity range",
        caption="share of the same genes whose 5-95% range is within 30% of that of training",
        reference="95% minus 5% quantile of counts per 10,000",
    ),
    Metric(
        "type_variance_ratio", type_genes.median, take.type_variance_ratios,
        Scope.OVERALL_AND_TYPES, GENES,
        title="Gene variances by type, median ratio", better="target", ideal=1,
        heading="variance ratio", min_type_cells=type_genes.MIN_TYPE_CELLS,
        caption="synthetic variance within a type divided by the real one; below 1: too uniform",
        reference="median over genes, counts per 10,000",
    ),
    Metric(
        "type_variance_off", partial(type_genes.share_outside, limit=1),
        take.type_variance_log_ratios, Scope.OVERALL_AND_TYPES, GENES,
        title="Gene variances by type, share off", better="lower", ideal=0,
        min_type_cells=type_genes.MIN_TYPE_CELLS,
        caption="share of genes, type by type, whose variance is off by more than a factor of 2",
        reference="ratio of variances of counts per 10,000",
    ),
    Metric(
        "library_ks", genes.ks, take.library_sizes, Scope.OVERALL_AND_TYPES, GENES,
        title="Library size, KS distance", better="lower", ideal=0,
        caption="the distribution of counts per cell",
        reference="Kolmogorov-Smirnov distance",
    ),
    Metric(
        "detected_ks", genes.ks, take.genes_per_cell, Scope.OVERALL_AND_TYPES, GENES,
        title="Genes per cell, KS distance", better="lower", ideal=0,
        caption="the distribution of genes detected per cell",
        reference="Kolmogorov-Smirnov distance",
    ),
    Metric(
        "correlation", genes.correlation_agreement, take.correlated_genes,
        Scope.TYPES_THEN_CELL_MEAN, GENES,
        title="Gene-gene correlation within types", better="higher", ideal=1,
        heading="gene-gene corr.", min_type_cells=20,
        caption="whether genes are correlated as in real cells",
        reference="Pearson correlation of gene-gene correlations",
    ),
    Metric(
        "effect_slope", labels.effect_slope, take.marker_effects, Scope.OVERALL_AND_TYPES, LABELS,
        title="Effects of specific markers, slope", better="target", ideal=1,
        heading="effect slope",
        caption="whether differences between types keep their size; below 1: attenuated",
        reference="least squares on log2 fold changes of 50 markers per type, by fold change",
    ),
    Metric(
        "effect_slope_t", labels.effect_slope, take.marker_effects_by_t, Scope.OVERALL_AND_TYPES,
        LABELS,
        title="Effects of abundant markers, slope", better="target", ideal=1,
        caption="the same for markers by t-statistic: abundant genes, mostly of large types",
        reference="least squares on log2 fold changes of 50 markers per type, by Welch's t",
    ),
    Metric(
        "effect_correlation", labels.effect_correlation, take.marker_effects,
        Scope.OVERALL_AND_TYPES, LABELS,
        title="Effects of specific markers, correlation", better="higher", ideal=1,
        caption="whether differences between types keep their pattern",
        reference="Pearson correlation of log2 fold changes of 50 markers per type",
    ),
    Metric(
        "marker_inside", type_genes.geometric_ratio, take.means_inside, Scope.OVERALL_AND_TYPES,
        LABELS,
        title="Level of markers inside their type", better="target", ideal=1,
        heading="markers inside",
        caption="synthetic level divided by the real one; below 1: attenuated",
        reference="geometric mean over 50 markers per type of (mean + 0.1) / (real mean + 0.1)",
    ),
    Metric(
        "marker_outside", type_genes.geometric_ratio, take.means_outside, Scope.OVERALL_AND_TYPES,
        LABELS,
        title="Level of markers in all other cells", better="target", ideal=1,
        heading="markers outside",
        caption="synthetic level divided by the real one; above 1: markers leak into other types",
        reference="geometric mean over 50 markers per type of (mean + 0.1) / (real mean + 0.1)",
    ),
    Metric(
        "de_recall", labels.de_recall, take.marker_statistics, Scope.OVERALL_AND_TYPES, LABELS,
        title="Recall of the top 50 markers", better="higher", ideal=1, heading="marker recall",
        caption="whether the same genes are the top markers",
        reference="by rank of Welch's t, Biometrika 34:28, 1947",
    ),
    Metric(
        "tstr_f1", labels.macro_f1, take.predicted_test_types, Scope.OVERALL_AND_TYPES, LABELS,
        title="Train on synthetic, test on real, macro-F1", better="higher", ideal=1,
        heading="TSTR F1",
        caption="whether a classifier trained on synthetic cells recognises real cell types",
        reference="Esteban et al., arXiv:1706.02633, section 4.2",
    ),
    Metric(
        "label_accuracy", labels.accuracy, take.predicted_synthetic_types, Scope.OVERALL_AND_TYPES,
        LABELS,
        title="Label accuracy", better="target", ideal=AS_BASELINE, heading="label accuracy",
        caption="share of cells of the requested type; above the baseline: types too distinct",
        reference="logistic regression trained on real training cells",
    ),
    Metric(
        "composition", labels.composition_distance, take.compositions, Scope.DATASET, LABELS,
        title="Composition, total variation", better="lower", ideal=0,
        caption="whether types are as frequent as in training",
        reference="total variation distance",
    ),
    Metric(
        "nearer_training", privacy.nearer_training, take.nearest_real_cells, Scope.OVERALL, PRIVACY,
        title="Nearer to training cells", better="target", ideal=0.5,
        caption="share of cells that are nearer to a training cell than to a test cell",
        reference="Platzer and Reutterer, Front. Big Data 4:679939, 2021",
    ),
    Metric(
        "membership_auc", privacy.membership_auc, take.attacked_cells, Scope.OVERALL, PRIVACY,
        title="Membership inference by cell, AUC", better="target", ideal=0.5,
        caption="how well an attacker can infer that a cell was in training",
        reference="Hayes et al., arXiv:1705.07663; Chen et al., arXiv:1909.03935, eq. 2",
    ),
    Metric(
        "donor_membership_auc", privacy.donor_membership_auc, take.attacked_donors, Scope.OVERALL,
        PRIVACY,
        title="Membership inference by donor, AUC", better="target", ideal=0.5,
        known_baseline=0.5,  # real test cells are of donors that are not in training
        caption="how well an attacker can infer that a donor was in training",
        reference="the same attack, averaged over the cells of a donor",
    ),
    Metric(
        "exact_copies", privacy.exact_copies, take.dataset_and_training, Scope.DATASET, PRIVACY,
        title="Exact copies", better="lower", ideal=0,
        caption="share of cells that equal a training cell in every gene",
        reference="equality of rows",
    ),
    Metric(
        "repeated_cells", privacy.repeated_cells, take.dataset_alone, Scope.DATASET, PRIVACY,
        title="Repeated cells", better="lower", ideal=0,
        caption="share of cells that equal another cell of the dataset",
        reference="equality of rows",
    ),
    Metric(
        "scdiffusion_mmd", published.scdiffusion_mmd, take.variable_genes, Scope.OVERALL, PUBLISHED,
        title="MMD as scDiffusion computes it", better="lower", ideal=0, first_replicate_only=True,
        caption="only for comparison with published tables",
        reference="Luo et al., Bioinformatics 40:btae518, 2024",
    ),
    Metric(
        "cfgen_w2", published.cfgen_w2, take.cfgen_components, Scope.TYPES_THEN_MEAN, PUBLISHED,
        title="W2 per type as CFGen computes it", better="lower", ideal=0, min_type_cells=20,
        first_replicate_only=True,
        caption="only for comparison with published tables",
        reference="Palma et al., arXiv:2407.11734",
    ),
    Metric(
        "cfgen_mmd", published.cfgen_mmd, take.cfgen_components, Scope.TYPES_THEN_MEAN, PUBLISHED,
        title="MMD per type as CFGen computes it", better="lower", ideal=0, min_type_cells=20,
        first_replicate_only=True,
        caption="only for comparison with published tables",
        reference="Palma et al., arXiv:2407.11734",
    ),
)
# fmt: on
BY_NAME = {metric.name: metric for metric in METRICS}
CATEGORIES = tuple(dict.fromkeys(metric.category for metric in METRICS))
