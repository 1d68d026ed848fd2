"""From noise to latent points: noise levels, and a solver that is a pure function of ``denoise(x, sigma) -> x_hat``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]


def schedule(steps: int, sigma_max: float, strength: float = 1.0) -> Tensor:
    """Noise levels ``[steps + 1]`` from ``sigma_max`` down to 0, whose angles arctan(sigma) are evenly spaced: see `solve`.

    A strength below 1, in (0, 1), takes the last part of the angle, and that share of the steps (at least one).

    Examples
    --------
    >>> [round(sigma, 3) for sigma in schedule(2, 1.0).tolist()]
    [1.0, 0.414, 0.0]
    >>> [round(sigma, 3) for sigma in schedule(2, 1.0, strength=0.5).tolist()]
    [0.414, 0.0]
    """
    angles = torch.linspace(strength * math.atan(sigma_max), 0, max(1, round(strength * steps)) + 1, dtype=torch.float64)
    return angles.tan().float()


def solve(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    r"""Solve the probability-flow ODE (Karras et al., arXiv:2206.00364, equation 1) by steps that are exact for standard normal data.

    With angle t = arctan(sigma) and y = x cos(t) (Lu & Song's TrigFlow, arXiv:2410.11081), the ODE becomes

    .. math:: \frac{dy}{dt} = -F, \qquad F = \frac{D(x, \sigma) - x \cos^2 t}{\sin t}

    and F, what a network inside EDM's preconditioning is trained to give, vanishes where the data are standard normal. Latents
    come standardised, so F is small and smooth, and a few steps of Adams and Bashforth's method suffice: one evaluation of ``denoise``
    a step, second order after the first.

    Parameters
    ----------
    denoise
        ``(x [cells, dims], sigma [cells])`` -> posterior mean ``[cells, dims]``.
    x
        Points at the first noise level, ``[cells, dims]``.
    sigmas
        Decreasing noise levels ``[steps + 1]``, 0 last: see `schedule`.

    Returns
    -------
    Tensor
        ``[cells, dims]``.

    Examples
    --------
    >>> import torch
    >>> standard_normal = lambda x, sigma: x / (1 + sigma[:, None] ** 2)
    >>> sigmas = schedule(3, 20.0)
    >>> round(solve(standard_normal, (1 + sigmas[0] ** 2).sqrt() * torch.full((1, 1), 0.5), sigmas).item(), 5)
    0.5
    """
    angles = sigmas.double().atan().tolist()
    y, slope, last_step = x * math.cos(angles[0]), None, 0.0
    for sigma, (angle, following) in zip(sigmas, itertools.pairwise(angles), strict=False):
        x = y / math.cos(angle)
        slope, before = (denoise(x, sigma.expand(len(x))) - x * math.cos(angle) ** 2) / math.sin(angle), slope
        step = angle - following
        ahead = slope if before is None else slope + (slope - before) * step / (2 * last_step)
        y, last_step = y + step * ahead, step
    return y
