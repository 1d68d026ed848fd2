"""Plots of an evaluation, each a matplotlib figure.

style        colours, axes, and figures as inline SVG
cells        UMAP, cell sizes, distances to the nearest real cells
classifiers  ROC curves, two-sample test by type
genes        marker genes, moments of each gene, gene-gene correlations
type_genes   means of each gene in each type, the worst genes as violins
"""

from scld.evaluation.plots.cells import (
    Embedding,
    Points,
    add_mixed,
    add_type_legend,
    add_types,
    embed,
    nearest,
    set_umap_axes,
    sizes,
    umap,
)
from scld.evaluation.plots.classifiers import by_type, roc
from scld.evaluation.plots.genes import gene_correlations, genes, marker_genes, markers
from scld.evaluation.plots.style import GREY, REAL, SYNTHETIC, counted, save, svg
from scld.evaluation.plots.type_genes import Violin, type_means, worst_genes

__all__ = [
    "GREY",
    "REAL",
    "SYNTHETIC",
    "Embedding",
    "Points",
    "Violin",
    "add_mixed",
    "add_type_legend",
    "add_types",
    "by_type",
    "counted",
    "embed",
    "gene_correlations",
    "genes",
    "marker_genes",
    "markers",
    "nearest",
    "roc",
    "save",
    "set_umap_axes",
    "sizes",
    "svg",
    "type_means",
    "umap",
    "worst_genes",
]
