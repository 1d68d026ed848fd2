"""The scores: pure functions of arrays, each with its source, its range, and a law that tests it.

space       where cells are compared: log-normalised genes, their variable 2,000, their 30 principal components
c2st        can a classifier tell real from synthetic?
distances   Wasserstein, maximum mean discrepancy, energy distance
neighbours  mixing (iLISI), precision, recall, density, coverage
genes       per-gene moments, library size, gene-gene correlation
labels      markers, train on synthetic and test on real, label fidelity, composition
privacy     memorisation, exact copies, membership inference
validity    pass or fail, and what making the cells cost
peers       the variants that scDiffusion and CFGen publish, under their names
baselines   the trivial fakes that a figure must tell from real cells
"""

from scld.metrics.baselines import bootstrap, poisson, shuffle
from scld.metrics.c2st import auc, boosting, c2st, forest, linear, out_of_fold
from scld.metrics.distances import energy_distance, mmd2, wasserstein
from scld.metrics.genes import correlation_agreement, detection_gap, gene_moments, ks, rmse
from scld.metrics.labels import composition_distance, de_recall, label_predictor, log_fold_changes, marker_agreement, t_statistics, top_markers
from scld.metrics.neighbours import ilisi, precision_recall
from scld.metrics.peers import cfgen_mmd, cfgen_space, cfgen_w2, scdiffusion_mmd
from scld.metrics.privacy import donor_membership_auc, exact_copies, membership_auc, nearer_training, nearest_distance, repeated_cells
from scld.metrics.space import Space, log_normalise
from scld.metrics.validity import validity

__all__ = [
    "Space",
    "auc",
    "boosting",
    "bootstrap",
    "c2st",
    "cfgen_mmd",
    "cfgen_space",
    "cfgen_w2",
    "composition_distance",
    "correlation_agreement",
    "de_recall",
    "detection_gap",
    "donor_membership_auc",
    "energy_distance",
    "exact_copies",
    "forest",
    "gene_moments",
    "ilisi",
    "ks",
    "label_predictor",
    "linear",
    "log_fold_changes",
    "log_normalise",
    "marker_agreement",
    "membership_auc",
    "mmd2",
    "nearer_training",
    "nearest_distance",
    "out_of_fold",
    "poisson",
    "precision_recall",
    "repeated_cells",
    "rmse",
    "scdiffusion_mmd",
    "shuffle",
    "t_statistics",
    "top_markers",
    "validity",
    "wasserstein",
]
