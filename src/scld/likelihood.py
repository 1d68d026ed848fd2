"""The negative binomial log-likelihood of sparse counts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from scld import fused

FEWEST_IN_SPIKE = fused.FEWEST_IN_SPIKE
_PARTS = 4  # of the cells of a batch, side by side; fixed, so that sums over cells do not depend on the number of threads


def dispersions(log_share: Tensor, offset: Tensor, slope: Tensor) -> Tensor:
    """Log-dispersion ``[cells, genes]``, which follows a power of a gene's share, ``offset + slope * log_share``, between 0.01 and 10,000.

    Gradients pass these limits, so that no gene is stuck there.
    """
    log_r = torch.addcmul(offset, slope, log_share)
    log_r.detach().clamp_(*fused.LIMITS)
    return log_r


def log_likelihood(
    log_share: Tensor, log_library: Tensor, offset: Tensor, slope: Tensor, counts: tuple[Tensor, Tensor, Tensor], spike_rate: float = 0.0
) -> Tensor:
    r"""Log-likelihood of each cell's counts under negative binomials with mean mu and variance mu + mu^2 / r.

    .. math:: \log p(x) = \log\frac{\Gamma(x + r)}{\Gamma(r)\,x!} + x \log\frac{\mu}{\mu + r} - r \log(1 + \mu / r)

    Only the last term lives at every gene; the others are taken at the non-zero counts alone. In single precision on a
    processor, values and gradients are computed in one pass: see `scld.fused`.

    With a spike rate s, a count x from m = 5 on has probability p(x) + s m / (x (x + 1)): a lone 50 in a gene that else is
    nearly Poisson is then explained by the second term, and does not make the gene look over-dispersed in every cell.

    Parameters
    ----------
    log_share
        log of each gene's share of a cell, ``[cells, genes]``.
    log_library
        log of the library sizes that the shares are of, ``[cells]``; gradients do not reach it.
    offset, slope
        ``[genes]``, of the log-dispersion: see `dispersions`.
    counts
        The non-zero counts, cell after cell: their numbers, genes, and where those of each cell begin, as in CSR.
    spike_rate
        Expected spikes a count.

    Returns
    -------
    Tensor
        ``[cells]``, in nats.

    Examples
    --------
    >>> import torch
    >>> one, gene, starts = torch.ones(1), torch.zeros(1, dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32)
    >>> p = log_likelihood(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1), torch.zeros(1), (one, gene, starts))  # mu = r = x = 1
    >>> round(float(p.exp()), 6)
    0.25
    """
    if log_share.device.type == "cpu" and log_share.dtype == torch.float32:
        result: Tensor = _Fused.apply(log_share, log_library, offset, slope, *counts, spike_rate)  # type: ignore[no-untyped-call]
        return result
    return _formula(log_share, log_library, offset, slope, *counts, spike_rate)


def _formula(log_share: Tensor, log_library: Tensor, offset: Tensor, slope: Tensor, x: Tensor, genes: Tensor, starts: Tensor, spike_rate: float) -> Tensor:
    """As it stands, on any device and in any precision."""
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
        ctx: Any, log_share: Tensor, log_library: Tensor, offset: Tensor, slope: Tensor, x: Tensor, genes: Tensor, starts: Tensor, spike_rate: float
    ) -> Tensor:
        inputs = (log_share.contiguous(), log_library.contiguous(), offset, slope, x, genes, starts)
        ctx.save_for_backward(*inputs)
        ctx.spike_rate = spike_rate
        values = log_share.new_empty(len(log_share))
        arrays: list[Any] = [part.detach().numpy() for part in inputs]
        _side_by_side(lambda part, cells: fused.values(*arrays, spike_rate, values.numpy(), *cells), len(values))
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs: list[Any] = [part.detach().numpy() for part in ctx.saved_tensors]
        of_share, weights = np.empty_like(inputs[0]), gradient.contiguous().numpy()
        of_genes = np.zeros((_PARTS, 2, of_share.shape[1]), np.float32)
        _side_by_side(lambda part, cells: fused.gradients(*inputs, ctx.spike_rate, weights, of_share, of_genes[part], *cells), len(of_share))
        of_offset, of_slope = torch.from_numpy(of_genes.sum(axis=0))
        return torch.from_numpy(of_share), None, of_offset, of_slope, None, None, None, None


def _side_by_side(work: Callable[[int, tuple[int, int]], object], cells: int) -> None:
    """Do ``work(part, (first cell, one after the last))`` for the parts of a batch, by as many threads as torch was told to use."""
    bounds = [cells * part // _PARTS for part in range(_PARTS + 1)]
    spans = list(itertools.pairwise(bounds))
    if torch.get_num_threads() == 1:
        for part, span in enumerate(spans):
            work(part, span)
        return
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(work, range(_PARTS), spans))
