"""The critic of latent points: how much likelier a noisy point is under real cells than under generated ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scld.config import CriticConfig

_FLOOR = 0.002  # added to noise levels, whose logarithm the network reads


class Critic(nn.Module):
    """Log-odds that a noisy latent point is a real cell's, given its noise level and any of its labels.

    Trained by cross-entropy, it estimates the log-ratio of the two densities (Kim et al., arXiv:2211.17091, section 3).

    Parameters
    ----------
    dims
        Number of latent coordinates.
    sizes
        Number of categories of each label.
    config
        Width and regularisation.

    Examples
    --------
    >>> import torch
    >>> from scld.config import CriticConfig
    >>> critic = Critic(dims=2, sizes=[3], config=CriticConfig(width=8))
    >>> critic(torch.zeros(5, 2), torch.ones(5), torch.zeros(5, 1, dtype=torch.long)).shape
    torch.Size([5])
    """

    def __init__(self, dims: int, sizes: Sequence[int], config: CriticConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.labels = nn.ModuleList(nn.Embedding(size + 1, config.label_width) for size in sizes)  # 0: left open
        inlet = nn.Linear(dims + 1 + config.label_width * len(sizes), width)
        layers = [layer for _ in range(2) for layer in (nn.LayerNorm(width), nn.SiLU(), nn.Dropout(config.dropout), nn.Linear(width, width))]
        self.network = nn.Sequential(inlet, *layers, nn.SiLU())
        self.outlet = nn.Linear(width, 1)
        self.silence()

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """Log-odds ``[cells]`` of ``x [cells, dims]`` at noise levels ``sigma [cells]``; ``labels [cells, labels]`` are codes, `MISSING` left open."""
        sigma = sigma[:, None]
        parts = [x / (sigma**2 + 1).sqrt(), (sigma + _FLOOR).log() / 4]
        parts += [embedding(labels[:, i] + 1) for i, embedding in enumerate(self.labels)]
        log_odds: Tensor = self.outlet(self.network(torch.cat(parts, dim=1)))[:, 0]
        return log_odds

    def silence(self) -> None:
        """Say of every point that it may be either."""
        nn.init.zeros_(self.outlet.weight)
        nn.init.zeros_(self.outlet.bias)

    def loss(self, x: Tensor, sigma: Tensor, labels: Tensor, real: Tensor) -> Tensor:
        """Cross-entropy of each point ``[cells]``; ``real [cells]`` is 1 or 0."""
        return F.binary_cross_entropy_with_logits(self(x, sigma, labels), real, reduction="none")
