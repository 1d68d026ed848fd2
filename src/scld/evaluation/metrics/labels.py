"""Whether synthetic cells are of their type: marker genes, label classifiers, composition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from scld.evaluation.metrics.space import column_moments


def log_fold_changes(log: sp.csr_matrix, codes: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Mean log-normalised value in a type minus that in all other cells: ``[types, genes]``.

    In units of the natural logarithm.
    """
    changes = [
        column_moments(log[codes == t])[0] - column_moments(log[codes != t])[0] for t in types
    ]
    return np.stack(changes)


def t_statistics(log: sp.csr_matrix, codes: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Welch's t of each gene, a type against all other cells: ``[types, genes]``.

    0 where a gene is constant in both. (Welch 1947, Biometrika 34:28; as `scipy.stats.ttest_ind`
    with ``equal_var=False``.)
    """
    return np.stack([_welch(log[codes == t], log[codes != t]) for t in types])


def _welch(inside: sp.csr_matrix, outside: sp.csr_matrix) -> np.ndarray:
    mean_in, variance_in = column_moments(inside)
    mean_out, variance_out = column_moments(outside)
    squared_error_in = variance_in / max(inside.shape[0] - 1, 1)
    squared_error_out = variance_out / max(outside.shape[0] - 1, 1)
    error = np.sqrt(squared_error_in + squared_error_out)
    return np.where(error > 1e-9, (mean_in - mean_out) / np.maximum(error, 1e-9), 0)


def top_markers(t: np.ndarray, n: int = 50) -> np.ndarray:
    """The ``n`` genes of largest t in each type: ``[types, n]``."""
    return np.argsort(-t, axis=1, kind="stable")[:, :n]


def marker_slope(real: np.ndarray, synthetic: np.ndarray, markers: np.ndarray) -> float:
    """Slope of the synthetic log-fold changes on the real ones, over the markers of every type.

    1: differences between types are as large as in real cells; below 1: attenuated; above 1:
    exaggerated. Least squares with an intercept, as `scipy.stats.linregress`.

    Parameters
    ----------
    real, synthetic
        ``[types, genes]`` log-fold changes.
    markers
        ``[types, n]`` genes, chosen on other cells (the training cells), so that no set is scored
        on genes that were selected in itself.

    Returns
    -------
    float
        Ideal 1; nan if the real fold changes are all equal.

    Examples
    --------
    >>> change = np.array([[0.0, 1.0, 3.0]])
    >>> marker_slope(change, change / 2, np.array([[0, 1, 2]]))
    0.5
    """
    covariance = _marker_covariance(real, synthetic, markers)
    if covariance[0, 0] <= 0:
        return float("nan")
    return float(covariance[0, 1] / covariance[0, 0])


def marker_correlation(real: np.ndarray, synthetic: np.ndarray, markers: np.ndarray) -> float:
    """Correlation of synthetic and real log-fold changes, over the markers of every type.

    Parameters
    ----------
    real, synthetic, markers
        As for `marker_slope`.

    Returns
    -------
    float
        From -1 to 1; higher is better.

    Examples
    --------
    >>> change = np.array([[0.0, 1.0, 3.0]])
    >>> round(marker_correlation(change, change / 2, np.array([[0, 1, 2]])), 6)
    1.0
    """
    covariance = _marker_covariance(real, synthetic, markers)
    scale = np.sqrt(covariance[0, 0] * covariance[1, 1])
    return float(covariance[0, 1] / scale) if scale > 0 else 0.0


def _marker_covariance(real: np.ndarray, synthetic: np.ndarray, markers: np.ndarray) -> np.ndarray:
    x = np.take_along_axis(real, markers, axis=1).ravel()
    y = np.take_along_axis(synthetic, markers, axis=1).ravel()
    return np.cov(x, y)


def de_recall(real: np.ndarray, synthetic: np.ndarray, n: int = 50) -> float:
    """Share of the top ``n`` markers in real cells that are among the top ``n`` in synthetic cells.

    By rank of `t_statistics`, so a set gains nothing by less noise or more cells. The mean over
    types.

    Parameters
    ----------
    real, synthetic
        ``[types, genes]`` t statistics.

    Returns
    -------
    float
        From 0 to 1; higher is better.

    Examples
    --------
    >>> de_recall(np.array([[3.0, 2.0, 1.0]]), np.array([[3.0, 1.0, 2.0]]), n=2)
    0.5
    """
    pairs = zip(top_markers(real, n), top_markers(synthetic, n), strict=True)
    found = [len(np.intersect1d(a, b)) / min(n, real.shape[1]) for a, b in pairs]
    return float(np.mean(found))


def label_predictor(cells: np.ndarray, codes: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Fit a classifier of cell types; returns a function from components to predicted codes.

    Multinomial logistic regression on standardised components. Trained on synthetic cells and
    tested on real ones, its `macro_f1` is "train on synthetic, test on real" (Esteban et al.,
    arXiv:1706.02633, section 4.2). Trained on real cells and applied to synthetic ones, its
    `accuracy` is the label accuracy.

    Examples
    --------
    >>> cells, codes = np.array([[0.0], [0.1], [9.0], [9.1]]), np.array([4, 4, 7, 7])
    >>> label_predictor(cells, codes)(np.array([[8.0]]))
    array([7])
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(codes)) == 1:
        classifier = DummyClassifier()
    else:
        regression = LogisticRegression(max_iter=1000, tol=1e-3)
        classifier = make_pipeline(StandardScaler(), regression)
    predict: Callable[[np.ndarray], np.ndarray] = classifier.fit(cells, codes).predict
    return predict


def macro_f1(codes: np.ndarray, predicted: np.ndarray, types: np.ndarray) -> float:
    """Mean over types of the F1 score of predicted codes; every type counts the same.

    Parameters
    ----------
    codes, predicted
        ``[cells]`` true and predicted codes.
    types
        Codes to average over.

    Returns
    -------
    float
        From 0 to 1; higher is better.

    Examples
    --------
    >>> macro_f1(np.array([0, 0, 1]), np.array([0, 0, 0]), np.array([0, 1]))
    0.4
    """
    from sklearn.metrics import f1_score

    scores = f1_score(codes, predicted, labels=types, average=None, zero_division=0)
    return float(scores.mean())


def accuracy(codes: np.ndarray, predicted: np.ndarray) -> float:
    """Share of cells whose predicted code is their own.

    Examples
    --------
    >>> accuracy(np.array([0, 1]), np.array([0, 0]))
    0.5
    """
    return float((codes == predicted).mean())


def composition_distance(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Total variation distance of two compositions: the share of cells that would change type.

    Parameters
    ----------
    real, synthetic
        ``[types]`` numbers of cells.

    Returns
    -------
    float
        From 0 to 1; lower is better.

    Examples
    --------
    >>> composition_distance(np.array([1, 1]), np.array([3, 1]))
    0.25
    """
    difference = real / real.sum() - synthetic / synthetic.sum()
    return float(np.abs(difference).sum() / 2)
