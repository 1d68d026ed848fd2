"""The statistical tests of a simulated study, on plain arrays."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp

from scld.errors import RequestError


def check_extra() -> None:
    """Refuse to begin without PyDESeq2."""
    try:
        _pydeseq2()
    except ImportError as error:
        seen = f"the pseudobulk test needs PyDESeq2 ({error})"
        advice = "pip install 'scld[power]', or leave pseudobulk out of tests"
        raise RequestError(f"design: expression: tests: {seen}; {advice}") from error


def version() -> str:
    """The version of PyDESeq2; an empty text without it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pydeseq2")
    except PackageNotFoundError:
        return ""


def pseudobulk(counts: sp.csr_matrix, donor: np.ndarray, donors: int) -> np.ndarray:
    """Sums ``[donors, genes]`` of the counts of each donor's cells.

    Examples
    --------
    >>> counts = sp.csr_matrix([[1, 0], [2, 5], [4, 4]])
    >>> pseudobulk(counts, np.array([0, 0, 1]), 2).tolist()
    [[3, 5], [4, 4]]
    """
    cells = np.arange(len(donor))
    of = sp.csr_matrix((np.ones(len(donor)), (donor, cells)), shape=(donors, len(donor)))
    sums: np.ndarray = np.rint((of @ counts).toarray()).astype(np.int64)
    return sums


def deseq2(bulk: np.ndarray, treated: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """p-values ``[genes]`` of PyDESeq2 with its defaults, and adjusted ones.

    Missing where it gives none: outliers, and genes that its independent filtering leaves out.

    Parameters
    ----------
    bulk
        Counts ``[donors, genes]``.
    treated
        Which donors are treated ``[donors]``.
    alpha
        The level that independent filtering is optimised for.
    """
    import pandas as pd

    names = [f"donor_{i}" for i in range(len(bulk))]
    groups = np.where(treated, "treated", "control")
    counts = pd.DataFrame(bulk, index=names, columns=[f"gene_{i}" for i in range(bulk.shape[1])])
    options: dict[str, Any] = {"quiet": True}
    with _quiet():
        data_set, statistics, options["inference"] = _pydeseq2()
        # the median of ratios needs a gene without zeros
        by = "ratio" if (bulk > 0).all(axis=0).any() else "poscounts"
        metadata = pd.DataFrame({"group": groups}, index=names)
        fitted = data_set(
            counts=counts, metadata=metadata, design="~group", size_factors_fit_type=by, **options
        )
        fitted.deseq2()
        contrast = ["group", "treated", "control"]
        found = statistics(fitted, contrast=contrast, alpha=alpha, **options)
        found.summary()
    table = found.results_df
    return table["pvalue"].to_numpy(float), table["padj"].to_numpy(float)


def rank_sum(values: sp.csr_matrix, treated: np.ndarray) -> np.ndarray:
    """Two-sided p-values ``[genes]`` of Wilcoxon's rank-sum test, over cells.

    The normal approximation with correction for ties and continuity, as in
    `scipy.stats.mannwhitneyu`. Zeros, which are most values, are ranked without being stored.

    Parameters
    ----------
    values
        ``[cells, genes]``, none below zero.
    treated
        Which cells are treated ``[cells]``.

    Examples
    --------
    >>> values = sp.csr_matrix(np.array([[0.0], [0.0], [1.0], [2.0], [2.0], [3.0]]))
    >>> rank_sum(values, np.array([0, 0, 0, 1, 1, 1], bool)).round(4)
    array([0.0722])
    """
    columns = sp.csc_matrix(values)
    columns.eliminate_zeros()
    cells, genes = columns.shape
    gene = np.repeat(np.arange(genes), np.diff(columns.indptr))
    order = np.lexsort((columns.data, gene))
    zeros = cells - np.diff(columns.indptr)
    rank, ties = _ranks(columns.data[order], gene, columns.indptr[:-1], zeros)
    among = treated[columns.indices[order]].astype(float)
    n_treated = int(treated.sum())
    treated_zeros = n_treated - np.bincount(gene, among, genes)
    ranks = np.bincount(gene, among * rank, genes) + treated_zeros * (zeros + 1) / 2
    return _normal_p(ranks, n_treated, cells, ties)


def _ranks(
    ordered: np.ndarray, gene: np.ndarray, start: np.ndarray, zeros: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Average ranks of the values of each gene, above its zeros, and its sum of t^3 - t of ties."""
    new = np.ones(len(ordered), bool)
    new[1:] = (np.diff(ordered) != 0) | (np.diff(gene) != 0)
    tie = np.cumsum(new) - 1
    first = np.flatnonzero(new)
    size = np.diff(np.append(first, len(ordered)))
    within = first - start[gene[first]] + (size + 1) / 2
    rank = within[tie] + zeros[gene]
    cubes = np.bincount(gene[first], size.astype(float) ** 3 - size, len(zeros))
    return rank, cubes + zeros.astype(float) ** 3 - zeros


def _normal_p(ranks: np.ndarray, treated: int, cells: int, ties: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    product = treated * (cells - treated)
    statistic = ranks - treated * (treated + 1) / 2
    variance = product / 12 * ((cells + 1) - ties / (cells * (cells - 1)))
    distance = (np.abs(statistic - product / 2) - 0.5).clip(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(variance > 0, distance / np.sqrt(variance), 0.0)
    p: np.ndarray = (2 * ndtr(-z)).clip(0, 1)
    return p


def log_normalised(counts: sp.csr_matrix, totals: np.ndarray) -> sp.csr_matrix:
    """log(1 + counts per 10,000), of the total counts of each cell ``[cells]``."""
    scaled = sp.diags(1e4 / np.maximum(totals, 1)) @ counts
    return sp.csr_matrix(scaled).log1p()


def adjusted(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values; missing ones stay missing.

    Examples
    --------
    >>> adjusted(np.array([0.01, np.nan, 0.04])).tolist()
    [0.02, nan, 0.04]
    """
    from scipy.stats import false_discovery_control

    result = np.full(len(p), np.nan)
    known = ~np.isnan(p)
    if known.any():
        result[known] = false_discovery_control(p[known])
    return result


def share_test(cells: np.ndarray, totals: np.ndarray, treated: np.ndarray) -> float:
    """p-value of Student's t-test between donors, on the log-odds of the share of a type.

    Half a cell is added to both sides, so that a donor without cells of the type has one too.

    Parameters
    ----------
    cells, totals
        Cells of the type, and all cells, of each donor ``[donors]``.
    treated
        Which donors are treated ``[donors]``.

    Examples
    --------
    >>> treated = np.array([False, False, False, True, True, True])
    >>> share_test(np.array([10, 11, 12, 20, 21, 22]), np.full(6, 100), treated) < 0.01
    True
    """
    from scipy.stats import ttest_ind

    ratio = np.log((cells + 0.5) / (totals - cells + 0.5))
    if np.ptp(ratio) == 0:  # no variance: nothing to see
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # both groups constant: p is 0
        return float(np.nan_to_num(ttest_ind(ratio[treated], ratio[~treated]).pvalue, nan=1.0))


def _pydeseq2() -> tuple[Any, Any, Any]:
    """Its two classes, and its computations in one process."""
    with warnings.catch_warnings():  # on import it sets a filter for the whole process
        from pydeseq2.dds import DeseqDataSet
        from pydeseq2.default_inference import DefaultInference
        from pydeseq2.ds import DeseqStats

    inference = DefaultInference(n_cpus=1)
    inference.lin_reg_mu = _linear_means  # a third of its time, as it goes gene by gene
    return DeseqDataSet, DeseqStats, inference


def _linear_means(
    counts: np.ndarray, size_factors: np.ndarray, design_matrix: np.ndarray, min_mu: float
) -> np.ndarray:
    """Means of a linear regression of normalised counts: PyDESeq2's, for all genes at once."""
    projection = design_matrix @ np.linalg.pinv(design_matrix)
    means = size_factors[:, None] * (projection @ (counts / size_factors[:, None]))
    floored: np.ndarray = np.maximum(means, min_mu)
    return floored


@contextlib.contextmanager
def _quiet() -> Any:
    """No warnings and no prints: PyDESeq2 tells of each fall-back, many times in a power study."""
    nowhere = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(nowhere), np.errstate(all="ignore"):
            yield
