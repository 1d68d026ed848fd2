"""From noise to latent points: noise levels, and a solver for any ``denoise(x, sigma)``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]


def schedule(steps: int, sigma_max: float, strength: float = 1.0) -> Tensor:
    """Noise levels ``[steps + 1]`` from ``sigma_max`` to 0, evenly spaced in arctan(sigma).

    A strength in (0, 1) keeps that last share of the angle and of the steps (at least one).

    Examples
    --------
    >>> [round(sigma, 3) for sigma in schedule(2, 1.0).tolist()]
    [1.0, 0.414, 0.0]
    >>> [round(sigma, 3) for sigma in schedule(2, 1.0, strength=0.5).tolist()]
    [0.414, 0.0]
    """
    start, number = strength * math.atan(sigma_max), max(1, round(strength * steps))
    return torch.linspace(start, 0, number + 1, dtype=torch.float64).tan().float()


def solve(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    r"""Solve the probability-flow ODE with steps that are exact for standard normal data.

    The ODE is equation 1 of Karras et al. (arXiv:2206.00364). With angle t = arctan(sigma) and
    y = x cos(t) (TrigFlow: Lu & Song, arXiv:2410.11081) it becomes

    .. math:: \frac{dy}{dt} = -F, \qquad F = \frac{D(x, \sigma) - x \cos^2 t}{\sin t}

    F is what a network inside EDM's preconditioning is trained to give, and vanishes for standard
    normal data. Latents are standardised, so F is small and smooth, and a few steps of the
    Adams-Bashforth method suffice: one evaluation of ``denoise`` per step, second order after the
    first.

    Parameters
    ----------
    denoise
        ``(x [cells, dims], sigma [cells])`` -> posterior mean ``[cells, dims]``.
    x
        Points at the first noise level, ``[cells, dims]``.
    sigmas
        Decreasing noise levels ``[steps + 1]``, 0 last: see `schedule`. On the CPU.

    Returns
    -------
    Tensor
        ``[cells, dims]``.

    Examples
    --------
    >>> import torch
    >>> standard_normal = lambda x, sigma: x / (1 + sigma[:, None] ** 2)
    >>> sigmas = schedule(3, 20.0)
    >>> x = (1 + sigmas[0] ** 2).sqrt() * torch.full((1, 1), 0.5)
    >>> round(solve(standard_normal, x, sigmas).item(), 5)
    0.5
    """
    angles = sigmas.double().atan().tolist()
    y, slope, last_step = x * math.cos(angles[0]), None, 0.0
    for sigma, (angle, following) in zip(sigmas.tolist(), itertools.pairwise(angles), strict=False):
        x, before = y / math.cos(angle), slope
        denoised = denoise(x, x.new_full((len(x),), sigma))
        slope = (denoised - x * math.cos(angle) ** 2) / math.sin(angle)
        step = angle - following
        ahead = slope if before is None else slope + (slope - before) * step / (2 * last_step)
        y, last_step = y + step * ahead, step
    return y
