"""Intervals of proportions over simulated studies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEVEL = 0.95  # of all intervals


def interval(
    found: Sequence[float], of: Sequence[float], level: float = LEVEL
) -> tuple[float, float, float]:
    """A proportion with its interval, from one number found and one in total per replicate.

    Wilson's interval, with the number of trials that would have the variance seen between
    replicates: genes of one study are not independent, because they share its donors. Its quantile
    is that of the t-distribution, as few replicates know their variance badly (Franco et al. 2019,
    J. Surv. Stat. Methodol. 7, 334). Missing bounds: a single replicate.

    Examples
    --------
    >>> [round(value, 3) for value in interval([8, 9, 7], [10, 10, 10])]
    [0.8, 0.49, 0.943]
    """
    from scipy.stats import t

    hits, trials = np.asarray(found, float), np.asarray(of, float)
    if not trials.sum():
        return np.nan, np.nan, np.nan
    share, replicates = float(hits.sum() / trials.sum()), len(hits)
    if replicates == 1:
        return share, np.nan, np.nan
    residual = ((hits - share * trials) ** 2).sum() / trials.sum() ** 2
    variance = residual * replicates / (replicates - 1)
    number = share * (1 - share) / variance if variance > 1e-12 else trials.sum()
    return share, *wilson(share, number, float(t.ppf(0.5 + level / 2, replicates - 1)))


def wilson(share: float, trials: float, z: float) -> tuple[float, float]:
    """Wilson's score interval.

    Examples
    --------
    >>> [round(bound, 3) for bound in wilson(0.5, 10, 1.96)]
    [0.237, 0.763]
    """
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / 4 / trials**2)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def yes_or_no(found: Sequence[bool], level: float = LEVEL) -> tuple[float, float, float]:
    """A probability with Wilson's interval, from independent replicates."""
    from scipy.special import ndtri

    share = float(np.mean(found))
    return share, *wilson(share, len(found), float(ndtri(0.5 + level / 2)))
