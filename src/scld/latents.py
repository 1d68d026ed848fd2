"""The training cells in latent space: computed once, standardised, what the denoiser learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from scld.autoencoder import Autoencoder, Batch, draw_latent, drop_labels


@dataclass(frozen=True)
class Latents:
    """Posterior means and log-variances of some cells, with the centre and scale that standardise draws from them.

    Parameters
    ----------
    mean
        ``[cells, dims]``, the log library size last.
    log_variance
        ``[cells, dims - 1]``; the library size is certain.
    labels
        Codes ``[cells, labels]``.
    centre, scale
        ``[dims]``, mean and sd over cells and their posteriors.
    """

    mean: Tensor
    log_variance: Tensor
    labels: Tensor
    centre: Tensor
    scale: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, autoencoder: Autoencoder, counts: sp.csr_matrix, labels: np.ndarray, device: torch.device) -> Latents:
        """Encode all cells."""
        pieces = [slice(start, start + 1024) for start in range(0, counts.shape[0], 1024)]
        encoded = [autoencoder.encode(Batch.of(counts[piece], labels[piece], device)) for piece in pieces]
        mean, log_variance = (torch.cat(parts) for parts in zip(*encoded, strict=True))
        variance = mean.var(0, correction=0)
        variance[:-1] += log_variance.exp().mean(0)
        return cls(mean, log_variance, torch.from_numpy(labels).to(device), mean.mean(0), variance.sqrt().clamp_min(1e-4))

    def points(self) -> np.ndarray:
        """Standardised posterior means ``[cells, dims]``."""
        points: np.ndarray = ((self.mean - self.centre) / self.scale).cpu().numpy()
        return points

    def draw(self, cells: Tensor) -> Tensor:
        """A standardised draw from the posterior of each of these cells, ``[cells, dims]``."""
        return (draw_latent(self.mean[cells], self.log_variance[cells]) - self.centre) / self.scale

    def loss(self, denoiser: nn.Module, cells: Tensor, label_dropout: float) -> Tensor:
        """Denoising loss of these cells ``[cells]``; the noise levels are spread evenly over the batch, which steadies the mean."""
        count = len(cells)
        clean = self.draw(cells)
        quantiles = (torch.randperm(count, device=clean.device) + torch.rand(count, device=clean.device)) / count
        labels = self.labels[cells]
        labels = drop_labels(labels, label_dropout) if denoiser.training else labels
        sigma = denoiser.noise_levels(quantiles.clamp(1e-4, 1 - 1e-4))  # type: ignore[operator]
        loss: Tensor = denoiser.loss(clean, sigma, torch.randn_like(clean), labels)  # type: ignore[operator]
        return loss
