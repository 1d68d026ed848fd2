"""The denoiser: an AdaLN multilayer perceptron inside EDM's preconditioning.

Karras et al. (arXiv:2206.00364). Latents are standardised, so the paper's sigma_data is 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scld.config import DenoiserConfig


class Denoiser(nn.Module):
    """Posterior mean of clean latents given noisy ones and any of their labels.

    Parameters
    ----------
    dims
        Number of latent coordinates.
    sizes
        Number of categories of each label.
    config
        Width, depth and noise levels.

    Examples
    --------
    >>> import torch
    >>> from scld.config import DenoiserConfig
    >>> denoiser = Denoiser(dims=2, sizes=[3], config=DenoiserConfig(width=8))
    >>> denoiser(torch.zeros(5, 2), torch.ones(5), torch.zeros(5, 1, dtype=torch.long)).shape
    torch.Size([5, 2])
    """

    frequencies: Tensor  # of the embedding of the noise level

    def __init__(self, dims: int, sizes: Sequence[int], config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("frequencies", _frequencies(), persistent=False)
        self.input = nn.Linear(dims, config.width)
        self.noise = nn.Sequential(
            nn.Linear(2 * len(self.frequencies), config.condition),
            nn.SiLU(),
            nn.Linear(config.condition, config.condition),
        )
        unspecified = 1  # embedding 0
        self.labels = nn.ModuleList(
            nn.Embedding(size + unspecified, config.condition) for size in sizes
        )
        self.blocks = nn.ModuleList(
            Block(config.width, config.condition, config.dropout) for _ in range(config.blocks)
        )
        self.output = nn.Linear(config.width, dims)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """Denoise points at given noise levels.

        Parameters
        ----------
        x
            ``[cells, dims]``.
        sigma
            ``[cells]``, positive.
        labels
            Codes ``[cells, labels]``; `MISSING` is unspecified.
        """
        sigma = sigma[:, None]
        c_skip = 1 / (sigma**2 + 1)  # table 1 of the paper, with sigma_data = 1
        c_out = sigma / (sigma**2 + 1).sqrt()
        c_in = 1 / (sigma**2 + 1).sqrt()
        denoised: Tensor = c_skip * x + c_out * self._network(c_in * x, sigma.log() / 4, labels)
        return denoised

    def loss(self, clean: Tensor, sigma: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
        """Weighted squared error of each cell ``[cells]``: equations 2 and 8 of the paper."""
        error: Tensor = self(clean + sigma[:, None] * noise, sigma, labels) - clean
        loss: Tensor = (sigma**2 + 1) / sigma**2 * error.square().mean(1)
        return loss

    def noise_levels(self, quantiles: Tensor) -> Tensor:
        """Training noise levels, log-normal, at these quantiles in (0, 1)."""
        normal = torch.special.ndtri(quantiles.double()).float()
        log_sigma: Tensor = self.config.log_sigma_mean + self.config.log_sigma_sd * normal
        return log_sigma.exp()

    def _network(self, x: Tensor, log_noise: Tensor, labels: Tensor) -> Tensor:
        angles = log_noise * self.frequencies
        condition = self.noise(torch.cat([angles.cos(), angles.sin()], dim=1))
        for i, embedding in enumerate(self.labels):
            condition = condition + embedding(labels[:, i] + 1)
        hidden = self.input(x)
        for block in self.blocks:
            hidden = block(hidden, condition)
        outcome: Tensor = self.output(hidden)
        return outcome


class Block(nn.Module):
    """A residual block whose scale, shift and gate come from the condition.

    AdaLN-Zero: Peebles & Xie (arXiv:2212.09748).
    """

    def __init__(self, width: int, condition: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        last = nn.Linear(condition, 3 * width)
        self.modulation = nn.Sequential(nn.SiLU(), last)
        self.body = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        scale, shift, gate = self.modulation(condition).chunk(3, dim=1)
        change: Tensor = gate * self.body(self.norm(hidden) * (1 + scale) + shift)
        return hidden + change


def _frequencies() -> Tensor:
    """Log-spaced: periods from far wider than the range of log-noise to one step of it."""
    return torch.exp(torch.linspace(math.log(0.5), math.log(30.0), 16))
