"""Pre-guidance: a conditional denoiser and the labels asked for -> a plain denoise that a sampler can follow. Post-guidance: the same, corrected."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scld.sampler import Denoise
from scld.schema import MISSING

ConditionalDenoise = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, sigma, label codes) -> x_hat


def pre_guided(denoiser: ConditionalDenoise, labels: Tensor, weights: Sequence[float], interval: tuple[float, float] = (0.0, math.inf)) -> Denoise:
    r"""Steer a denoiser to given labels by classifier-free guidance (Ho & Salimans, arXiv:2207.12598), one weight a label.

    Labels are added one after another, and what each adds is weighted:

    .. math:: D = D_\emptyset + \sum_k w_k\,(D_{1..k} - D_{1..k-1})

    Equal weights w give the paper's :math:`D_\emptyset + w (D_{all} - D_\emptyset)`, weights 1 the conditional denoiser itself.
    The weights may be kept to an interval of noise levels (Kynkaanniemi et al., arXiv:2404.07724).

    Parameters
    ----------
    denoiser
        ``(x, sigma, labels)`` -> posterior mean.
    labels
        Codes ``[cells, labels]``.
    weights
        One guidance weight per label: 0 ignores it, 1 follows it, more exaggerates what sets it apart.
    interval
        The weights hold where ``low < sigma <= high``; elsewhere every weight is 1.

    Returns
    -------
    Denoise
        It evaluates the network once for every level that carries weight: once at weights 1 and outside the interval, twice at any other
        equal weights.

    Examples
    --------
    >>> import torch
    >>> shift = lambda x, sigma, labels: x + (labels + 1).sum(1, keepdim=True)
    >>> denoise = pre_guided(shift, torch.zeros(1, 1, dtype=torch.long), [3.0])
    >>> denoise(torch.zeros(1, 1), torch.ones(1)).item()
    3.0
    """
    after = torch.tensor([1.0, *weights])  # each level gains its own weight and loses the next one's
    share = after - torch.tensor([*weights, 0.0])
    levels = [(float(c), _only_first(labels, k)) for k, c in enumerate(share) if c != 0]
    low, high = interval

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        terms = [c * denoiser(x, sigma, known) for c, known in levels]
        return torch.stack(terms).sum(0)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        inside = (low < sigma) & (sigma <= high)
        if inside.all():
            return guided(x, sigma)
        plain = denoiser(x, sigma, labels)
        return torch.where(inside[:, None], guided(x, sigma), plain) if inside.any() else plain

    return denoise


def post_guided(denoise: Denoise, critic: ConditionalDenoise, labels: Tensor, weight: float, most: float) -> Denoise:
    r"""Correct a denoise by a critic's gradient: discriminator guidance (Kim et al., arXiv:2211.17091, equation 8).

    With log-odds L of real against generated at noise level sigma, the score gains its gradient, and so the posterior mean

    .. math:: D' = D + w\,\sigma^2\,\nabla_x L(x, \sigma)

    Parameters
    ----------
    denoise
        What to correct.
    critic
        ``(x, sigma, labels)`` -> log-odds ``[cells]`` that noisy points are real cells'.
    labels
        Codes ``[cells, labels]``.
    weight
        1 takes the critic at its word, 0 ignores it.
    most
        Largest length of a correction.

    Examples
    --------
    >>> import torch
    >>> lean = lambda x, sigma, labels: 2 * x[:, 0]
    >>> denoise = post_guided(lambda x, sigma: x, lean, torch.zeros(1, 0), weight=1.0, most=9.0)
    >>> denoise(torch.zeros(1, 2), torch.ones(1))
    tensor([[2., 0.]])
    """

    def corrected(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            slope: Tensor = torch.autograd.grad(critic(point, sigma, labels).sum(), point)[0]
        move: Tensor = weight * sigma[:, None] ** 2 * slope
        length = move.norm(dim=1, keepdim=True).clamp_min(1e-12)
        share: Tensor = (most / length).clamp_max(1.0)
        return denoise(x, sigma) + move * share

    return corrected


def _only_first(labels: Tensor, count: int) -> Tensor:
    known = labels.clone()
    known[:, count:] = MISSING
    return known
