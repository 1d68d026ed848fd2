"""Scores of cells -> scores of donors -> how well members are distinguished from others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from scld.evaluation.metrics.two_sample import auc
from scld.privacy_audit import results

DRAWS = 50  # random sets of cells of each donor: each of them is attacked
LEVEL = 0.95  # of intervals


def scores_of_donors(
    scores: np.ndarray,
    donors: np.ndarray,
    names: Iterable[str],
    cells: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The mean score of so many cells of a donor, for `DRAWS` random sets of each donor.

    Parameters
    ----------
    scores
        ``[cells]``; cells without a score are not used.
    donors
        ``[cells]``.
    names
        The donors to score. Those with fewer cells are left out.
    cells
        Of each set.
    rng
        Draws them.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores_of_donors(np.array([1.0, 3.0]), np.array(["a", "a"]), ["a"], 2, rng)[:2].tolist()
    [2.0, 2.0]
    """
    found = []
    for name in names:
        known = scores[(donors == name) & ~np.isnan(scores)]
        if len(known) >= cells:
            drawn = [rng.choice(known, cells, replace=False) for _ in range(DRAWS)]
            found += [float(each.mean()) for each in drawn]
    return np.array(found)


def success(members: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """AUC, and true-positive rates at the false-positive rates of `results.RATES`.

    Missing: the AUC without members or others; a rate that is below one of the others, 0.01 with
    fewer than 100 of them.

    Parameters
    ----------
    members, others
        Scores of sets of cells, of donors that were in training and of those that were not.

    Examples
    --------
    >>> success(np.arange(50.0) + 45, np.arange(50.0))
    {'auc': 0.995, 'tpr_10': 1.0, 'tpr_1': nan}
    """
    if not (len(members) and len(others)):
        return dict.fromkeys((results.AUC, *results.RATES), np.nan)
    rates = {
        name: true_positives(members, others, rate) if rate * len(others) > 0.999 else np.nan
        for name, rate in results.RATES.items()
    }
    return {results.AUC: round(auc(members, others), 12), **rates}


def true_positives(members: np.ndarray, others: np.ndarray, rate: float) -> float:
    """Share of members above a threshold that at most this share of the others exceeds.

    Examples
    --------
    >>> true_positives(np.array([8.0, 9.5]), np.arange(10.0), 0.1)
    0.5
    """
    allowed = int(rate * len(others) + 1e-9)
    threshold = np.sort(others)[len(others) - 1 - allowed]
    return float((members > threshold).mean())


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over replicates with Student's 95% interval, within 0 and 1.

    Missing bounds: fewer than two values.

    Examples
    --------
    >>> [round(value, 3) for value in interval([0.5, 0.6, 0.7])]
    [0.6, 0.352, 0.848]
    """
    from scipy.stats import t

    known = np.array([value for value in values if not np.isnan(value)])
    if len(known) < 2:
        return (float(known[0]) if len(known) else np.nan), np.nan, np.nan
    mean, error = float(known.mean()), float(known.std(ddof=1)) / len(known) ** 0.5
    half = float(t.ppf(0.5 + LEVEL / 2, len(known) - 1)) * error
    return mean, max(0.0, mean - half), min(1.0, mean + half)
