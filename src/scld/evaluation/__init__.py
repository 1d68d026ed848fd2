"""Evaluation of synthetic cells from any tool; it knows no generator and does not import torch.

report          `evaluate` and `Report`: the public interface
options         the settings of one evaluation, validated
inputs          every dataset read, validated, and brought to the same genes and cell types
matching        the steps of that: shared genes, known types, log-normalised values
protocol        which cells are compared with which; it computes every row of the registry
registry        one row per metric: function, input, scope, direction, caption, reference
metric_inputs   what each metric takes from a comparison
comparison      the two sets of cells that a metric compares
memorisation    the same for the privacy metrics
controls        the negative controls: Poisson, gene shuffle, bootstrap
subsets         halves and samples of equal composition
cells           containers: cells, cells in a space, and what is fitted on the training cells
metrics/        the metrics: pure functions of arrays
table           scores -> the table of a report, each with the real-vs-real baseline
gene_pairs      every gene within each type, synthetic and real cells
interpretation  the table in words
results         the table and the data for plots
plots/          matplotlib figures
figures         every plot of one dataset, with its caption
html            the HTML report; its template is in templates/
"""
