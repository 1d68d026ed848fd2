"""Pre-guidance: a conditional denoiser and labels -> a denoiser that a sampler can follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from scld.model.sampler import Denoise
from scld.schema import MISSING

ConditionalDenoise = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, sigma, labels) -> x_hat


def pre_guided(
    denoiser: ConditionalDenoise,
    labels: Tensor,
    weights: Sequence[float],
    interval: tuple[float, float] = (0.0, math.inf),
    unguided: int = 0,
) -> Denoise:
    r"""Guide a denoiser to labels by classifier-free guidance, with one weight per label.

    Ho & Salimans (arXiv:2207.12598). Labels are added one after another, and what each adds is
    weighted:

    .. math:: D = D_\emptyset + \sum_k w_k\,(D_{1..k} - D_{1..k-1})

    Equal weights w give the paper's :math:`D_\emptyset + w (D_{all} - D_\emptyset)`, weights 1 the
    conditional denoiser itself. The weights may be limited to an interval of noise levels
    (Kynkaanniemi et al., arXiv:2404.07724).

    Parameters
    ----------
    denoiser
        ``(x, sigma, labels)`` -> posterior mean.
    labels
        Codes ``[cells, labels]``.
    weights
        One guidance weight per label: 0 ignores it, 1 conditions on it, more exaggerates what
        distinguishes it.
    interval
        The weights hold where ``low < sigma <= high``; elsewhere every weight is 1.
    unguided
        Number of last dimensions that always have weight 1.

    Returns
    -------
    Denoise
        It evaluates the network once at weights 1 and outside the interval, twice at any other
        equal weights.

    Examples
    --------
    >>> import torch
    >>> shift = lambda x, sigma, labels: x + (labels + 1).sum(1, keepdim=True)
    >>> denoise = pre_guided(shift, torch.zeros(1, 1, dtype=torch.long), [3.0], unguided=1)
    >>> denoise(torch.zeros(1, 2), torch.ones(1)).tolist()
    [[3.0, 1.0]]
    """
    low, high = interval
    number = labels.shape[1]
    upper = np.array([1.0, *weights], np.float32)  # each level gains its own weight,
    lower = np.array([*weights, 0.0], np.float32)  # and loses the next one's
    levels = [(k, share) for k, share in enumerate((upper - lower).tolist()) if share != 0]

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        conditional = denoiser(x, sigma, labels)
        inside = (low < sigma) & (sigma <= high)
        if levels == [(number, 1.0)] or not inside.any():
            return conditional
        terms = [
            share * (conditional if k == number else denoiser(x, sigma, _first(labels, k)))
            for k, share in levels
        ]
        guided = torch.stack(terms).sum(0)
        if unguided:
            guided = torch.cat([guided[:, :-unguided], conditional[:, -unguided:]], dim=1)
        return torch.where(inside[:, None], guided, conditional)

    return denoise


def _first(labels: Tensor, count: int) -> Tensor:
    """The first labels; the others unspecified."""
    known = labels.clone()
    known[:, count:] = MISSING
    return known
