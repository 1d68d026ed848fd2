"""The training cells in latent space: encoded once, standardised, what the denoiser learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from scld.io.disk import Counts
from scld.model.autoencoder import Autoencoder, Batch, drop_labels, sample_latent

_BATCH = 1024


@dataclass(frozen=True)
class Latents:
    """Posteriors of some cells, and the mean and sd that standardise samples of them.

    Parameters
    ----------
    mean
        ``[cells, dims]`` posterior means, the log library size last.
    log_variance
        ``[cells, dims - 1]``; the library size is known exactly.
    labels
        Codes ``[cells, labels]``.
    centre, scale
        ``[dims]`` mean and sd over cells and their posteriors.
    """

    mean: Tensor
    log_variance: Tensor
    labels: Tensor
    centre: Tensor
    scale: Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        autoencoder: Autoencoder,
        counts: Counts,
        labels: np.ndarray,
        device: torch.device,
    ) -> Latents:
        """Encode all cells."""
        pieces = [slice(start, start + _BATCH) for start in range(0, counts.shape[0], _BATCH)]
        batches = (Batch.of(counts[piece], labels[piece], device) for piece in pieces)
        encoded = [autoencoder.encode(batch) for batch in batches]
        mean, log_variance = (torch.cat(parts) for parts in zip(*encoded, strict=True))
        variance = mean.var(0, correction=0)
        variance[:-1] += log_variance.exp().mean(0)
        scale = variance.sqrt().clamp_min(1e-4)
        return cls(mean, log_variance, torch.from_numpy(labels).to(device), mean.mean(0), scale)

    def points(self) -> np.ndarray:
        """Standardised posterior means ``[cells, dims]``."""
        points: np.ndarray = ((self.mean - self.centre) / self.scale).cpu().numpy()
        return points

    def sample(self, cells: Tensor) -> Tensor:
        """A standardised sample of the posterior of each of these cells, ``[cells, dims]``."""
        latent = sample_latent(self.mean[cells], self.log_variance[cells])
        return (latent - self.centre) / self.scale

    def loss(self, denoiser: nn.Module, cells: Tensor, label_dropout: float) -> Tensor:
        """Denoising loss of these cells ``[cells]``.

        The noise levels are spread evenly over the batch, which lowers the variance of its mean.
        """
        count, clean, labels = len(cells), self.sample(cells), self.labels[cells]
        order = _permutation(count, clean.device)
        quantiles = (order + torch.rand(count, device=clean.device)) / count
        if denoiser.training:
            labels = drop_labels(labels, label_dropout)
        sigma = denoiser.noise_levels(quantiles.clamp(1e-4, 1 - 1e-4))  # type: ignore[operator]
        noise = torch.randn_like(clean)
        loss: Tensor = denoiser.loss(clean, sigma, noise, labels)  # type: ignore[operator]
        return loss


def _permutation(count: int, device: torch.device) -> Tensor:
    """A random order of ``0 ... count - 1``."""
    if device.type == "cpu":
        return torch.randperm(count)
    return torch.rand(count, device=device).argsort()  # randperm may ask the host
