"""The negative binomial log-likelihood of sparse counts: special functions only where a count is above one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

FEWEST_IN_SPIKE = 5  # smaller counts are common anyway: no spike is told from them


def log_likelihood(log_mean: Tensor, log_dispersion: Tensor, rows: Tensor, genes: Tensor, counts: Tensor, spike_rate: float = 0.0) -> Tensor:
    r"""Log-likelihood of each cell's counts under a negative binomial with mean mu and variance mu + mu^2 / r.

    .. math:: \log p(x) = \log\frac{\Gamma(x + r)}{\Gamma(r)\,x!} + x \log\frac{\mu}{\mu + r} - r \log(1 + \mu / r)

    Only the last term lives at every gene; the second is taken at the non-zero counts alone, and so is the first, which
    is log r where x = 1 and needs a Gamma function only from x = 2. The gradient is written out for the same reason.

    With a spike rate s, a count x from m = 5 on has probability p(x) + s m / (x (x + 1)): a lone 50 in a gene that else is
    nearly Poisson is then explained by the second term, and does not make the gene look over-dispersed in every cell.

    Parameters
    ----------
    log_mean
        log mu, ``[cells, genes]``.
    log_dispersion
        log r, ``[cells, genes]``; the larger, the nearer to Poisson.
    rows, genes, counts
        The non-zero counts and where they stand, each ``[non-zeros]``.
    spike_rate
        Expected spikes a count.

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
    result: Tensor = _LogLikelihood.apply(log_mean, log_dispersion, rows, genes, counts, spike_rate)  # type: ignore[no-untyped-call]
    return result


class _LogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_mean: Tensor, log_dispersion: Tensor, rows: Tensor, genes: Tensor, counts: Tensor, spike_rate: float) -> Tensor:
        r = log_dispersion.exp()
        log_ratio = log_mean - log_dispersion
        log_one_plus = softplus(log_ratio)  # log(1 + mu / r)
        flat = rows * log_mean.shape[1] + genes
        at_counts = counts * (log_ratio.view(-1)[flat] - log_one_plus.view(-1)[flat]) + log_dispersion.view(-1)[flat]
        several = counts > 1
        x, r_there = counts[several].double(), r.view(-1)[flat[several]].double()  # the Gammas cancel badly in single precision
        gammas = torch.lgamma(x + r_there) - torch.lgamma(1 + r_there) - torch.lgamma(x + 1)
        at_counts[several] += gammas.to(at_counts.dtype)
        at_zero = log_one_plus * r
        high = (counts >= FEWEST_IN_SPIKE if spike_rate else torch.zeros_like(counts, dtype=torch.bool)).nonzero()[:, 0]
        usual = at_counts[high] - at_zero.view(-1)[flat[high]]
        mixed = torch.logaddexp(usual, (spike_rate * FEWEST_IN_SPIKE / (counts[high] * (counts[high] + 1))).log())
        at_counts[high] += mixed - usual
        ctx.save_for_backward(log_ratio, log_one_plus, r, counts, flat, high, (usual - mixed).exp())
        return at_zero.sum(1).neg_().index_add(0, rows, at_counts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        log_ratio, log_one_plus, r, counts, flat, high, no_spike = ctx.saved_tensors
        share = torch.sigmoid(log_ratio)  # mu / (mu + r)
        of_dispersion = (share - log_one_plus).mul_(r)
        several = counts > 1
        x, r_there = counts[several].double(), r.view(-1)[flat[several]].double()
        digammas = r_there * (torch.digamma(x + r_there) - torch.digamma(1 + r_there))
        outside = counts * (1 - share.view(-1)[flat])
        at_counts = 1 - outside  # r times d/dr of log r is 1
        at_counts[several] += digammas.to(at_counts.dtype)
        of_dispersion.view(-1)[flat] += at_counts  # each place stands once
        of_mean = share.mul_(r).neg_()
        of_mean.view(-1)[flat] += outside
        for part in (of_mean, of_dispersion):
            part.view(-1)[flat[high]] *= no_spike
        return of_mean.mul_(gradient[:, None]), of_dispersion.mul_(gradient[:, None]), None, None, None, None
