"""Every plot of one dataset, with its title, its caption and a text alternative."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scld.evaluation import plots
from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE
from scld.evaluation.gene_pairs import LEAK, LEVEL
from scld.evaluation.metrics.type_genes import unlogged_columns
from scld.evaluation.plots.classifiers import NAMES
from scld.evaluation.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS_PER_TYPE, MOST_MARKERS = 3, 36  # genes of the dot plots
MOST_CORRELATED = 40  # genes of the heat maps
MOST_TYPES, MOST_VIOLINS = 12, 10
CAPTIONS = {  # key -> title, caption
    "umap": (
        "UMAP of real and synthetic cells",
        "Real and synthetic cells should occupy the same regions. The UMAP is fitted to both "
        "together, so unusual cells can form a region of their own. Distances between clusters "
        "have no meaning, and cells without any noise can look right here; the metrics above are "
        "more sensitive.",
    ),
    "sizes": (
        "Counts and genes per cell",
        "Both distributions should have the same width and tails. A narrow peak means that "
        "synthetic cells vary too little in size.",
    ),
    "by_type": (
        "Two-sample test by cell type",
        "The longer the line, the better a classifier distinguishes synthetic from real cells of "
        "that type. Types with too few test cells are not tested.",
    ),
    "roc": (
        "ROC curves of the two-sample test",
        "The area under a curve is its AUC. Orange: synthetic against real cells. Blue: real "
        "against real cells, the baseline. The diagonal is chance.",
    ),
    "nearest": (
        "Distance to the nearest real cell",
        "The two orange lines should coincide. If the solid line lies to the left of the dashed "
        "one, synthetic cells are nearer to training cells than to other cells of the same tissue: "
        "memorisation. A peak at 0 means copies.",
    ),
    "genes": (
        "Mean, variance and detection of each gene",
        "Left: orange points below the blue ones are genes that vary too little, points above them "
        "genes that vary too much. Middle and right: points should lie on the diagonal. The five "
        "genes whose detection rate differs most are named.",
    ),
    "type_means": (
        "Mean of each gene in each type",
        "Counts per 10,000, all test cells against all synthetic cells, log scales. Points should "
        "lie on the diagonal. Orange: off by more than 15% and beyond chance; the worst of them "
        "are named. Above the diagonal: too high, at the lower left mostly genes that leak from "
        "other types. Below: attenuated. Circles: identity genes, the ten most abundant marker "
        "genes of the type. At most 12 types, those with most genes off first.",
    ),
    "worst_genes": (
        "The genes that differ most, by type",
        "Both halves of a violin should have the same shape. Lines: 5, 50 and 95% quantiles, "
        "which coincide at 0 where most cells lack the gene. Synthetic below real: attenuated. "
        "Synthetic cells at high values where real cells have none: a leak, or too much spread. "
        "For a marker that leaks, the cells of all other types are shown (not + type).",
    ),
    "markers": (
        "Marker genes of each type",
        "Up to three genes per type, chosen on the training cells: at least twice as abundant as "
        "in all other cells, and detected in more of the cells of the type than of the others, by "
        "the widest margin. Mitochondrial and ribosomal genes are left out. Both parts should "
        "show the same dots. Larger or brighter dots off the diagonal mean expression of markers "
        "in other types; fewer of them than in real cells mean that types are too distinct.",
    ),
    "correlations": (
        "Gene-gene correlations within the largest type",
        "Both sides should show the same blocks. Without blocks, genes are independent of each "
        "other, which no metric of single genes detects.",
    ),
}


@dataclass(frozen=True)
class Panel:
    """One plot; ``alt`` is its text alternative."""

    key: str
    alt: str
    figure: Figure

    @property
    def title(self) -> str:
        """Title of the plot."""
        return CAPTIONS[self.key][0]

    @property
    def caption(self) -> str:
        """What it shows, and how to read it."""
        return CAPTIONS[self.key][1]


def panels(results: Results, name: str, embedding: plots.Embedding) -> Iterator[Panel]:
    """Every plot of one dataset."""
    yield _umap(results, name, embedding)
    yield _sizes(results, name)
    yield from _by_type(results, name)
    yield _roc(results, name)
    yield from _nearest(results, name)
    yield _genes(results, name)
    yield from _type_means(results, name)
    yield from _worst_genes(results, name)
    yield from _markers(results, name)
    yield _correlations(results, name)


def _umap(results: Results, name: str, embedding: plots.Embedding) -> Panel:
    alt = (
        "Three UMAP plots: real and synthetic cells together, real cells by type, cells of "
        f"{name} by type."
    )
    return Panel("umap", alt, plots.umap(embedding, name, results.types))


def _sizes(results: Results, name: str) -> Panel:
    alt = "Histograms of counts and genes per cell, real and synthetic."
    return Panel("sizes", alt, plots.sizes(results.real, results.view(name)))


def _by_type(results: Results, name: str) -> Iterator[Panel]:
    table = results.table
    rows = table[(table["dataset"] == name) & (table["group"] != OVERALL)]
    rows = rows[rows["metric"] == "c2st"]
    if not len(rows):
        return
    types, value = list(rows["group"]), rows["value"].to_numpy(float)
    baseline, top = rows["baseline"].to_numpy(float), int(value.argmax())
    alt = (
        "C2ST AUC of each type and its baseline; the highest is "
        f"{types[top]} with {value[top]:.2f}, baseline {baseline[top]:.2f}."
    )
    yield Panel("by_type", alt, plots.by_type(types, value, baseline))


def _roc(results: Results, name: str) -> Panel:
    shown = results.evaluation.shown
    aucs = [
        f"{title} {results.value(name, f'c2st_{key}'):.2f}, "
        f"real {results.value(BASELINE, f'c2st_{key}'):.2f}"
        for key, title in NAMES.items()
    ]
    figure = plots.roc(shown[name].classifier_scores, shown[BASELINE].classifier_scores)
    return Panel("roc", f"ROC curves, area under each: {'; '.join(aucs)}.", figure)


def _nearest(results: Results, name: str) -> Iterator[Panel]:
    synthetic = results.evaluation.shown[name].nearest
    baseline = results.evaluation.shown[BASELINE].nearest
    if synthetic is None or baseline is None:
        return
    alt = (
        "Histograms of distances to the nearest training and test cell, of synthetic and of "
        "real cells."
    )
    yield Panel("nearest", alt, plots.nearest(synthetic, baseline))


def _genes(results: Results, name: str) -> Panel:
    alt = (
        "Scatter plots of every gene: variance against mean; mean and detection rate against "
        "those of real cells."
    )
    rows = results.genes[results.genes["dataset"] == name]
    return Panel("genes", alt, plots.genes(rows))


def _type_means(results: Results, name: str) -> Iterator[Panel]:
    rows = results.type_genes[results.type_genes["dataset"] == name]
    if not len(rows):
        return
    off = (rows["off"] == LEVEL).groupby(rows["type"], sort=False).sum()
    types = off.sort_values(ascending=False, kind="stable").index[:MOST_TYPES].tolist()
    alt = (
        f"Scatter plots of the mean of every gene, synthetic against real, in {len(types)} types; "
        f"{int(off.sum())} of {len(rows)} points are off."
    )
    yield Panel("type_means", alt, plots.type_means(rows, types))


def _worst_genes(results: Results, name: str) -> Iterator[Panel]:
    rows = results.worst_genes[results.worst_genes["dataset"] == name].head(MOST_VIOLINS)
    if not len(rows):
        return
    violins = [_violin(results, name, row) for row in rows.to_dict("records")]
    listed = ", ".join(f"{one.gene} in {one.cell_type}" for one in violins)
    alt = f"Violins of counts per 10,000, real and synthetic: {listed}."
    yield Panel("worst_genes", alt, plots.worst_genes(violins))


def _violin(results: Results, name: str, row: dict[Any, Any]) -> plots.Violin:
    """Cells of the type; of all others, for a marker that leaks."""
    gene, cell_type, leaks = str(row["gene"]), str(row["type"]), row["off"] == LEAK
    code, column = results.types.index(cell_type), np.array([results.gene_names.index(gene)])
    real, synthetic = (
        unlogged_columns(cells.log[(cells.codes == code) != leaks], column).ravel()
        for cells in (results.evaluation.test, results.evaluation.synthetic[name])
    )
    return plots.Violin(gene, f"not {cell_type}" if leaks else cell_type, real, synthetic)


def _markers(results: Results, name: str) -> Iterator[Panel]:
    reference, codes = results.evaluation.reference, np.array(list(results.evaluation.sizes))
    if reference.markers is None:
        return
    of_types = plots.marker_genes(reference.moments, results.gene_names, MARKERS_PER_TYPE)
    top = [gene for code in codes for gene in of_types[reference.row(code)]]
    columns = np.array(list(dict.fromkeys(top)), int)[:MOST_MARKERS]  # each gene once
    if not len(columns):
        return
    names = [results.gene_names[i] for i in columns]
    figure = plots.markers(results.real, results.view(name), columns, names, codes, results.types)
    alt = "Two dot plots of marker genes by type, real cells above, synthetic ones below."
    yield Panel("markers", alt, figure)


def _correlations(results: Results, name: str) -> Panel:
    sizes, reference = results.evaluation.sizes, results.evaluation.reference
    code = max(sizes, key=lambda t: sizes[t])
    genes = reference.correlated_genes[code][:MOST_CORRELATED]
    real, synthetic = (
        np.take(view.of_type(code).dense, genes, axis=1)
        for view in (results.real, results.view(name))
    )
    names = [results.gene_names[i] for i in reference.space.genes[genes]]
    cell_type = results.types[code]
    alt = f"Heat maps of gene-gene correlations in {cell_type}, real and synthetic."
    figure = plots.gene_correlations(real, synthetic, names, cell_type)
    return Panel("correlations", alt, figure)
