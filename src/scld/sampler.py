"""From noise to data: functions of any ``denoise(x, sigma) -> x_hat``, the posterior mean of the clean point given ``x``."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]


def schedule(steps: int, sigma_min: float, sigma_max: float, rho: float, strength: float = 1.0) -> Tensor:
    """Noise levels ``[steps + 1]`` from ``sigma_max`` down to ``sigma_min``, then 0: Karras et al. (arXiv:2206.00364), equation 5.

    A strength below 1, in (0, 1), takes the last part of them, and that share of the steps (at least one).

    Examples
    --------
    >>> schedule(3, 1.0, 4.0, 1.0).tolist()
    [4.0, 2.5, 1.0, 0.0]
    >>> schedule(3, 1.0, 4.0, 1.0, strength=0.5).tolist()
    [2.5, 1.0, 0.0]
    """
    ramp = torch.linspace(1 - strength, 1, max(1, round(strength * steps)), dtype=torch.float64)
    sigmas = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()


def dpm_solver(denoise: Denoise, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Solve the probability-flow ODE by DPM-Solver++(2M): Lu et al. (arXiv:2211.01095), algorithm 2, in Karras' variables.

    One evaluation of ``denoise`` a step, second order; the last step, to noise level 0, returns the denoised point itself.

    Parameters
    ----------
    denoise
        ``(x [cells, dims], sigma [cells])`` -> posterior mean ``[cells, dims]``.
    noise
        Standard normal, ``[cells, dims]``.
    sigmas
        Decreasing noise levels ``[steps + 1]``, 0 last: see `schedule`.

    Returns
    -------
    Tensor
        ``[cells, dims]``.

    Examples
    --------
    >>> import torch
    >>> always_two = lambda x, sigma: torch.full_like(x, 2.0)
    >>> dpm_solver(always_two, torch.randn(1, 1), schedule(4, 0.1, 10.0, 7.0)).item()
    2.0
    """
    x, previous, last_step = noise * sigmas[0], noise, sigmas[0]
    for i, (sigma, following) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoise(x, sigma.expand(len(x)))
        if following == 0:
            return denoised
        step = torch.log(sigma / following)
        ahead = denoised if i == 0 else denoised + (denoised - previous) * step / (2 * last_step)
        x = following / sigma * x - torch.expm1(-step) * ahead
        previous, last_step = denoised, step
    return x
