"""The negative binomial log-likelihood of sparse counts: special functions only where a count is not zero."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def log_likelihood(log_mean: Tensor, log_dispersion: Tensor, rows: Tensor, genes: Tensor, counts: Tensor) -> Tensor:
    r"""Log-likelihood of each cell's counts under a negative binomial with mean mu and variance mu + mu^2 / r.

    .. math:: \log p(x) = \log\frac{\Gamma(x + r)}{\Gamma(r)\,x!} + x \log\frac{\mu}{\mu + r} - r \log(1 + \mu / r)

    Only the last term lives at every gene; the others vanish where x = 0 and are taken at the non-zero counts alone.

    Parameters
    ----------
    log_mean
        log mu, ``[cells, genes]``.
    log_dispersion
        log r, broadcastable to ``[cells, genes]``; the larger, the nearer to Poisson.
    rows, genes, counts
        The non-zero counts and where they stand, each ``[non-zeros]``.

    Returns
    -------
    Tensor
        ``[cells]``, in nats.

    Examples
    --------
    >>> import torch
    >>> at = torch.tensor([0])
    >>> p = log_likelihood(torch.zeros(1, 1), torch.zeros(1, 1), at, at, torch.tensor([1.0]))  # mu = r = x = 1: p = 1/4
    >>> round(float(p.exp()), 6)
    0.25
    """
    log_dispersion = log_dispersion.expand_as(log_mean)
    log_ratio = log_mean - log_dispersion
    log_one_plus = softplus(log_ratio)  # log(1 + mu / r)
    at_zero = -(log_dispersion.exp() * log_one_plus).sum(1)
    r = log_dispersion[rows, genes].exp().double()  # lgamma(x + r) - lgamma(r) cancels badly in single precision
    x = counts.double()
    combinatorial = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
    at_counts = combinatorial.to(log_mean.dtype) + counts * (log_ratio - log_one_plus)[rows, genes]
    return at_zero.index_add(0, rows, at_counts)
