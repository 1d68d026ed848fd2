"""Bring datasets to the same genes, types and scale: the steps of `inputs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from scld.errors import DataError, listed
from scld.io.counts import check_indices
from scld.io.read import layer_names
from scld.preprocessing import TARGET_SUM

if TYPE_CHECKING:
    from anndata import AnnData


def check_matrix(name: str, adata: AnnData) -> None:
    """`DataError` unless there is a matrix of numbers with unique gene names."""
    advice = "pass raw counts, or name the layer that holds them with layer="
    if adata.X is None:
        layers = f"(layers here: {listed(layer_names(adata)) or 'none'})"
        raise DataError(f"{name}: X is None; {advice} {layers}")
    if adata.X.dtype.kind not in "biuf":
        raise DataError(f"{name}: X holds {adata.X.dtype}, not real numbers; {advice}")
    if 0 in adata.shape:
        seen = f"{adata.n_obs:,} cells x {adata.n_vars:,} genes"
        raise DataError(f"{name}: holds {seen}; pass at least one of each")
    check_indices(adata.X, name)


def matrix(adata: AnnData) -> sp.csr_matrix:
    """X as CSR; no copy if it is CSR."""
    return sp.csr_matrix(adata.X)


def shared_genes(
    datasets: Mapping[str, AnnData], intersection: bool, notes: list[str]
) -> list[str]:
    """The genes of training, in their order, that every dataset has."""
    train = datasets["train"].var_names
    in_all = [train.isin(adata.var_names) for adata in datasets.values()]
    shared = train[np.logical_and.reduce(in_all)]
    for name, adata in datasets.items():
        missing = len(train.difference(adata.var_names))
        extra = len(adata.var_names.difference(train))
        if (missing or extra) and (not intersection or not len(shared)):
            seen = f"lacks {missing:,} of the {len(train):,} genes of train, has {extra:,} others"
            raise DataError(f"{name}: {seen}; {_gene_advice(len(shared))}")
    if len(shared) < len(train):
        notes.append(
            f"Scored on the {len(shared):,} genes that all datasets share, of {len(train):,} in "
            "the training cells."
        )
    return list(shared)


def _gene_advice(shared: int) -> str:
    if shared:
        return f"pass genes='intersection' to score the {shared:,} genes that all datasets share"
    return "no gene is shared: check that all use the same gene names, symbols or Ensembl ids"


def scored_cells(
    name: str,
    adata: AnnData,
    labels: np.ndarray,
    types: list[str],
    genes: list[str],
    drop_empty: bool,
    notes: list[str],
) -> tuple[AnnData, np.ndarray]:
    """The cells that can be scored, on the shared genes, and their labels.

    Left out are types that the training cells lack; and cells without counts, in synthetic
    datasets and wherever genes were left out. An empty real cell is an error of `count_matrix`.
    """
    known = np.isin(labels, types)
    if not known.all():
        others = listed(sorted(set(labels[~known])), most=5)
        notes.append(
            f"{name}: {int((~known).sum()):,} cells of types that the training cells lack "
            f"({others}) are left out."
        )
    same_genes = genes == list(adata.var_names)
    on_shared = adata if same_genes else adata[:, genes]
    empty = np.asarray(matrix(on_shared).astype(bool).sum(axis=1)).ravel() == 0
    if not empty.any() or (same_genes and not drop_empty):
        return on_shared[known], labels[known]
    notes.append(
        f"{name}: {int(empty.sum()):,} cells without any count on the genes scored are left out."
    )
    kept = known & ~empty
    return on_shared[kept], labels[kept]


def log_matrix(name: str, adata: AnnData, rescale: bool) -> sp.csr_matrix:
    """A log-normalised matrix, checked to be log(1 + counts per 10,000).

    ``rescale``: genes were left out, so each cell is scaled to a sum of 10,000 again.
    """
    log = sp.csr_matrix(adata.X, dtype=np.float32, copy=True)
    bad = int((~np.isfinite(log.data)).sum())
    if bad:
        allowed = "allowed are values of log(1 + counts per 10,000): correct or drop these cells"
        raise DataError(f"{name}: {bad:,} values are not finite; {allowed}")
    log.sum_duplicates()
    log.eliminate_zeros()
    linear = log.copy()
    linear.data = np.expm1(np.minimum(linear.data, 50))
    totals = np.asarray(linear.sum(axis=1)).ravel()
    if not rescale:
        _check_scale(name, float(np.median(totals)))
        return log
    linear.data *= np.repeat(TARGET_SUM / np.maximum(totals, 1e-9), np.diff(linear.indptr))
    return sp.csr_matrix((np.log1p(linear.data), linear.indices, linear.indptr), shape=log.shape)


def _check_scale(name: str, total: float) -> None:
    if not TARGET_SUM / 2 <= total <= TARGET_SUM * 2:
        seen = f"exp(values) - 1 sums to {total:.4g} in the median cell"
        raise DataError(
            f"{name}: {seen}, so it is normalised otherwise; allowed is log(1 + counts per "
            "10,000), a sum near 10,000: use scanpy.pp.normalize_total(target_sum=1e4) and log1p "
            "(natural logarithm), or pass raw counts"
        )
