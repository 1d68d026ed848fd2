"""Do synthetic cells carry their label: markers, train on synthetic and test on real, label fidelity, composition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from scld.metrics.space import column_moments


def log_fold_changes(log: sp.csr_matrix, codes: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Mean of the log-normalised values in a type minus that in all other cells: ``[types, genes]``, natural logarithm."""
    return np.stack([column_moments(log[codes == t])[0] - column_moments(log[codes != t])[0] for t in types])


def t_statistics(log: sp.csr_matrix, codes: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Welch's t of each gene, a type against all other cells: ``[types, genes]``; 0 where a gene varies in neither.

    (Welch 1947, Biometrika 34:28; as `scipy.stats.ttest_ind` with ``equal_var=False``.)
    """
    return np.stack([_welch(log[codes == t], log[codes != t]) for t in types])


def _welch(inside: sp.csr_matrix, outside: sp.csr_matrix) -> np.ndarray:
    (mean_in, var_in), (mean_out, var_out) = column_moments(inside), column_moments(outside)
    error = np.sqrt(var_in / max(inside.shape[0] - 1, 1) + var_out / max(outside.shape[0] - 1, 1))
    return np.where(error > 1e-9, (mean_in - mean_out) / np.maximum(error, 1e-9), 0)


def top_markers(t: np.ndarray, n: int = 50) -> np.ndarray:
    """The ``n`` genes of largest t in each type: ``[types, n]``."""
    return np.argsort(-t, axis=1, kind="stable")[:, :n]


def marker_agreement(real: np.ndarray, fake: np.ndarray, markers: np.ndarray) -> dict[str, float]:
    """Slope and correlation of the synthetic log-fold changes on the real ones, over the markers of every type.

    Slope 1: differences between types as large as in real cells; below 1: attenuated; above 1: exaggerated. Least squares
    with an intercept, as `scipy.stats.linregress`.

    Parameters
    ----------
    real, fake
        ``[types, genes]`` log-fold changes.
    markers
        ``[types, n]`` genes, chosen on other cells (the training cells), so that no set has picked its own winners.

    Returns
    -------
    dict
        ``slope``, ideal 1; ``correlation`` in -1..1, higher is better.

    Examples
    --------
    >>> change = np.array([[0.0, 1.0, 3.0]])
    >>> marker_agreement(change, change / 2, np.array([[0, 1, 2]]))["slope"]
    0.5
    """
    x, y = (np.take_along_axis(changes, markers, axis=1).ravel() for changes in (real, fake))
    covariance = np.cov(x, y)
    scale = np.sqrt(covariance[0, 0] * covariance[1, 1])
    return {
        "slope": float(covariance[0, 1] / covariance[0, 0]) if covariance[0, 0] > 0 else float("nan"),
        "correlation": float(covariance[0, 1] / scale) if scale > 0 else 0.0,
    }


def de_recall(real: np.ndarray, fake: np.ndarray, n: int = 50) -> np.ndarray:
    """Share of each type's top ``n`` markers in real cells that are among its top ``n`` in synthetic cells.

    By rank of `t_statistics`, so that a set does not gain by being cleaner or larger than real cells.

    Parameters
    ----------
    real, fake
        ``[types, genes]`` t statistics.

    Returns
    -------
    numpy.ndarray
        ``[types]`` in 0..1; higher is better.

    Examples
    --------
    >>> de_recall(np.array([[3.0, 2.0, 1.0]]), np.array([[3.0, 1.0, 2.0]]), n=2)
    array([0.5])
    """
    pairs = zip(top_markers(real, n), top_markers(fake, n), strict=True)
    return np.array([len(np.intersect1d(a, b)) / min(n, real.shape[1]) for a, b in pairs])


def label_predictor(cells: np.ndarray, codes: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Learn types from components: a function from ``[cells, components]`` to predicted codes ``[cells]``.

    Multinomial logistic regression on standardised components. Trained on synthetic cells and asked about real ones, its
    macro-F1 is "train on synthetic, test on real" (Esteban et al., arXiv:1706.02633, section 4.2); trained on real cells and asked about synthetic ones,
    its accuracy on the requested labels is label fidelity.

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

    one_type = len(np.unique(codes)) == 1
    classifier = DummyClassifier() if one_type else make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-3))
    predict: Callable[[np.ndarray], np.ndarray] = classifier.fit(cells, codes).predict
    return predict


def composition_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Total variation distance between two compositions: the share of cells that would have to change type.

    Parameters
    ----------
    real, fake
        ``[types]`` numbers of cells.

    Returns
    -------
    float
        In 0..1; lower is better.

    Examples
    --------
    >>> composition_distance(np.array([1, 1]), np.array([3, 1]))
    0.25
    """
    return float(np.abs(real / real.sum() - fake / fake.sum()).sum() / 2)
