"""Whether synthetic cells are of their type: marker genes, label classifiers, composition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from scld.evaluation.metrics.space import column_moments

PSEUDOCOUNT = 0.1  # counts per 10,000: keeps the fold change of a gene that is not there finite


def effects(inside: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Log2 fold change of mean counts per 10,000, a type against all other cells.

    Of means that are not log-transformed, each plus 0.1. A difference of means of log-normalised
    values, used often in its place, shrinks with the share of cells that lack the gene.

    Parameters
    ----------
    inside, rest
        ``[types, genes]`` mean counts per 10,000 in each type, and in all other cells.

    Examples
    --------
    >>> effects(np.array([[39.9, 0.0]]), np.array([[9.9, 0.0]]))
    array([[2., 0.]])
    """
    return np.asarray(np.log2((inside + PSEUDOCOUNT) / (rest + PSEUDOCOUNT)))


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


def top_markers(statistic: np.ndarray, n: int = 50) -> np.ndarray:
    """The ``n`` genes of largest t, or of largest effect, in each type: ``[types, n]``."""
    return np.argsort(-statistic, axis=1, kind="stable")[:, :n]


def effect_slope(real: np.ndarray, synthetic: np.ndarray, markers: np.ndarray) -> float:
    """Slope of the synthetic effects on the real ones, over the markers of every type.

    1: markers differ between types as much as in real cells; below 1: attenuated; above 1:
    exaggerated. Least squares through the origin. An intercept would hide what is looked for:
    where every marker of a type loses the same amount, the slope with an intercept is 1.

    Errors of the real effects, which are those of few cells, pull a slope towards 0 (regression
    dilution). So the slope of real cells is below 1 too: compare it with the baseline.

    Parameters
    ----------
    real, synthetic
        ``[types, genes]`` `effects`.
    markers
        ``[types, n]`` genes, chosen on other cells (the training cells), so that no set is scored
        on genes that were selected in itself.

    Returns
    -------
    float
        Ideal 1; nan if the real effects are all 0.

    Examples
    --------
    >>> effect = np.array([[0.0, 1.0, 3.0]])
    >>> effect_slope(effect, effect / 2, np.array([[0, 1, 2]]))
    0.5
    """
    x, y = _of_markers(real, markers), _of_markers(synthetic, markers)
    square = float(x @ x)
    return float(x @ y) / square if square > 0 else float("nan")


def effect_correlation(real: np.ndarray, synthetic: np.ndarray, markers: np.ndarray) -> float:
    """Pearson correlation of synthetic and real effects, over the markers of every type.

    Parameters
    ----------
    real, synthetic, markers
        As for `effect_slope`.

    Returns
    -------
    float
        From -1 to 1; higher is better. 0 if either set has equal effects only.

    Examples
    --------
    >>> effect = np.array([[0.0, 1.0, 3.0]])
    >>> round(effect_correlation(effect, effect / 2, np.array([[0, 1, 2]])), 6)
    1.0
    """
    x, y = _of_markers(real, markers), _of_markers(synthetic, markers)
    vary = x.std() > 0 and y.std() > 0
    return float(np.corrcoef(x, y)[0, 1]) if vary else 0.0


def _of_markers(effect: np.ndarray, markers: np.ndarray) -> np.ndarray:
    return np.take_along_axis(effect, markers, axis=1).ravel()


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
