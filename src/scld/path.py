"""A path between two points through where the data are: the ridge of their density, as a denoiser knows it."""

from __future__ import annotations

import torch
from torch import Tensor

from scld.sampler import Denoise

_RATE = 0.3  # of a move, as a share of the way to the denoised point: less is only slower, more overshoots


def path(denoise: Denoise, ends: Tensor, points: int, sigmas: Tensor) -> Tensor:
    """Lay a string between two points along a ridge of the data's density: E, Ren & Vanden-Eijnden (2007), J. Chem. Phys. 126:164103.

    The string starts straight. At each noise level, its points climb the density that is smoothed by so much noise,
    whose gradient is ``(denoise(x, sigma) - x) / sigma ** 2``; then they are spread evenly again, which leaves only the part of the
    climb across the string. Falling noise levels let it follow ever finer bends. Its ends stay.

    Parameters
    ----------
    denoise
        ``(x [points, dims], sigma [points])`` -> posterior mean ``[points, dims]``.
    ends
        ``[2, dims]``.
    points
        Number of points of the string.
    sigmas
        Noise levels to climb at, one after another.

    Returns
    -------
    Tensor
        ``[points, dims]``, evenly spaced.

    Examples
    --------
    >>> import torch
    >>> on_circle = lambda x, sigma: x / x.norm(dim=1, keepdim=True)
    >>> arc = path(on_circle, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 9, torch.ones(50))
    >>> arc[4]
    tensor([0.7071, 0.7071])
    """
    string = along(ends, torch.linspace(0, 1, points).to(ends))
    for sigma in sigmas:
        climbed = string + _RATE * (denoise(string, sigma.expand(points)) - string)
        string = along(torch.cat([ends[:1], climbed[1:-1], ends[1:]]), torch.linspace(0, 1, points).to(ends))
    return string


def along(string: Tensor, positions: Tensor) -> Tensor:
    """Points ``[positions, dims]`` of a string ``[points, dims]`` at these shares of its length."""
    lengths = (string[1:] - string[:-1]).norm(dim=1)
    reached = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    at = positions * reached[-1]
    after = torch.searchsorted(reached, at.contiguous()).clamp(1, len(string) - 1)
    share = (at - reached[after - 1]) / lengths[after - 1].clamp_min(1e-12)
    return torch.lerp(string[after - 1], string[after], share[:, None])
