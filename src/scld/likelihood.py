"""The negative binomial log-likelihood of sparse counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from scld import fused
from scld.threads import PARTS, side_by_side, takes

FEWEST_IN_SPIKE = fused.FEWEST_IN_SPIKE


def dispersions(log_share: Tensor, offset: Tensor, slope: Tensor) -> Tensor:
    """Log-dispersion ``[cells, genes]``, which follows a power of a gene's share, ``offset + slope * log_share``, between 0.01 and 10,000.

    Gradients pass these limits, so that no gene is stuck there.
    """
    log_r = torch.addcmul(offset, slope, log_share)
    log_r.detach().clamp_(*fused.LIMITS)
    return log_r


def negative_log_likelihood(
    scores: Tensor, log_library: Tensor, offset: Tensor, slope: Tensor, counts: tuple[Tensor, Tensor, Tensor], spike_rate: float = 0.0
) -> Tensor:
    r"""-log p of the cells' counts under negative binomials with mean mu and variance mu + mu^2 / r, in nats: the mean over cells.

    .. math:: \log p(x) = \log\frac{\Gamma(x + r)}{\Gamma(r)\,x!} + x \log\frac{\mu}{\mu + r} - r \log(1 + \mu / r)

    Only the last term lives at every gene; the others are taken at the non-zero counts alone. In single precision on a
    processor, value and gradients are computed in one pass: see `scld.fused`.

    With a spike rate s, a count x from m = 5 on has probability p(x) + s m / (x (x + 1)): a lone 50 in a gene that else is
    nearly Poisson is then explained by the second term, and does not make the gene look over-dispersed in every cell.

    Parameters
    ----------
    scores
        What the softmax turns into each gene's share of a cell, ``[cells, genes]``.
    log_library
        log of the library sizes that the shares are of, ``[cells]``; gradients do not reach it.
    offset, slope
        ``[genes]``, of the log-dispersion: see `dispersions`.
    counts
        The counts, none of them zero, cell after cell: their numbers, genes, ascending, and where those of each cell begin, as in CSR.
    spike_rate
        Expected spikes a count.

    Examples
    --------
    >>> import torch
    >>> one, gene, starts = torch.ones(1), torch.zeros(1, dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32)
    >>> nats = negative_log_likelihood(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1), torch.zeros(1), (one, gene, starts))  # mu = r = x = 1
    >>> round(float((-nats).exp()), 6)
    0.25
    """
    if takes(scores):
        result: Tensor = _Fused.apply(scores, log_library, offset, slope, *counts, spike_rate)  # type: ignore[no-untyped-call]
        return result
    return -_formula(torch.log_softmax(scores, dim=1), log_library, offset, slope, *counts, spike_rate).mean()


def _formula(log_share: Tensor, log_library: Tensor, offset: Tensor, slope: Tensor, x: Tensor, genes: Tensor, starts: Tensor, spike_rate: float) -> Tensor:
    """Of each cell, as it stands, on any device and in any precision."""
    rows = torch.repeat_interleave(starts.diff(), output_size=len(x))  # a GPU need not be asked how many
    log_r = dispersions(log_share, offset, slope)
    ratio = log_share + log_library.detach()[:, None] - log_r  # log(mu / r)
    at_zero = log_r.exp() * softplus(ratio)
    zero, ratio, log_r = (part[rows, genes.long()].double() for part in (at_zero, ratio, log_r))  # the Gammas cancel badly in single precision
    r, n = log_r.exp(), x.double()
    at_counts = n * (ratio - softplus(ratio)) + log_r + torch.lgamma(n + r) - torch.lgamma(1 + r) - torch.lgamma(n + 1)
    if spike_rate:
        spike = (spike_rate * FEWEST_IN_SPIKE / (n * (n + 1))).log()
        at_counts = torch.where(n >= FEWEST_IN_SPIKE, torch.logaddexp(at_counts - zero, spike) + zero, at_counts)
    return (-at_zero.sum(1)).index_add(0, rows, at_counts.to(at_zero.dtype))


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, log_library: Tensor, offset: Tensor, slope: Tensor, x: Tensor, genes: Tensor, starts: Tensor, spike_rate: float
    ) -> Tensor:
        floats = (part.detach().to(torch.float32).contiguous() for part in (scores, scores.amax(dim=1), log_library, offset, slope, x))
        arrays: list[Any] = [part.numpy() for part in (*floats, genes, starts)]
        cells, weight = len(scores), np.float32(-1 / len(scores))
        values, of_scores, of_genes = np.empty(cells, np.float32), np.empty_like(arrays[0]), np.zeros((PARTS, 2, scores.shape[1]), np.float32)
        side_by_side(lambda part, span: fused.log_likelihoods(*arrays, spike_rate, weight, values, of_scores, of_genes[part], *span), cells)
        ctx.save_for_backward(torch.from_numpy(of_scores), *torch.from_numpy(weight * of_genes.sum(axis=0)))
        lost = 0 * (arrays[3].sum() + arrays[4].sum())  # not a number in a gene's dispersion: one that limits would hide
        return torch.tensor(lost - values.mean(dtype=np.float64), dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_scores, of_offset, of_slope = ctx.saved_tensors if gradient == 1 else (gradient * part for part in ctx.saved_tensors)
        return of_scores, None, of_offset, of_slope, None, None, None, None
