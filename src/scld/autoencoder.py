"""The count autoencoder: a cell's counts -> a latent point -> the negative binomial its counts are drawn from.

A latent point is ``config.latent`` coordinates and, last, the log of the cell's library size (its total count), which is
thereby part of what is generated. The decoder also sees the cell's labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from scld.components import log_normalised, principal_components
from scld.config import AutoencoderConfig
from scld.likelihood import dispersions, negative_log_likelihood
from scld.schema import MISSING
from scld.sparse import product


class Batch(NamedTuple):
    """Some cells: their counts, sparse, and their label codes."""

    counts: Tensor  # [non-zeros], cell after cell
    genes: Tensor  # [non-zeros], ascending within each cell
    starts: Tensor  # [cells + 1], where the counts of each cell begin
    log_library: Tensor  # [cells], log of the sum of counts
    labels: Tensor  # [cells, labels]

    @classmethod
    def of(cls, counts: sp.csr_matrix, labels: np.ndarray, device: torch.device | str = "cpu") -> Batch:
        """From CSR counts ``[cells, genes]`` and codes ``[cells, labels]``."""
        counts = counts if counts.has_sorted_indices else counts.sorted_indices()
        library = np.log(np.asarray(counts.sum(axis=1)).ravel())
        parts = (counts.data, counts.indices, counts.indptr, library, np.ascontiguousarray(labels))
        return cls(*(torch.from_numpy(part).to(device, non_blocking=True) for part in parts))

    def each(self, of_cells: Tensor) -> Tensor:
        """Values ``[cells]`` at each of a cell's counts, ``[non-zeros]``."""
        return torch.repeat_interleave(of_cells, self.starts.diff(), output_size=len(self.counts))  # a GPU need not be asked how many


class _HeldBack(torch.autograd.Function):
    """Weights ``[rows, n]`` as they are; their gradient gets that of a heavy-tailed prior, n / 2 log(1 + |w|^2 / (n sd^2)) for each row, times a factor."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, sd: float, factor: float) -> Tensor:
        ctx.save_for_backward(weights)
        ctx.sd, ctx.factor = sd, factor
        return weights.view_as(weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weights,) = ctx.saved_tensors
        size = torch.linalg.vector_norm(weights, dim=1, keepdim=True).square()
        return torch.addcmul(gradient, weights, ctx.factor / (ctx.sd**2 + size / weights.shape[1])), None, None


class Autoencoder(nn.Module):
    """A variational autoencoder of counts with sparse input and a negative binomial for every gene.

    Parameters
    ----------
    genes
        Number of genes.
    sizes
        Number of categories of each label.
    config
        Widths, priors and dropout.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from scld.config import AutoencoderConfig
    >>> counts = sp.csr_matrix(np.eye(4, dtype=np.float32) + 1)
    >>> autoencoder = Autoencoder(4, [], AutoencoderConfig(latent=2, width=8)).start_from(counts)
    >>> autoencoder.encode(Batch.of(counts, np.zeros((4, 0), np.int64)))[0].shape
    torch.Size([4, 3])
    """

    usual_log_share: Tensor  # of each gene, over all training cells
    library_mean: Tensor  # of the log library sizes
    library_sd: Tensor

    def __init__(self, genes: int, sizes: Sequence[int], config: AutoencoderConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.gene_weights = nn.Parameter(torch.randn(genes, width) * 0.0003)
        self.gene_offset = nn.Parameter(torch.zeros(width))
        posterior = nn.Linear(width, 2 * config.latent)
        self.encoder = nn.Sequential(*_layer(width, config.dropout), nn.Linear(width, width), *_layer(width), posterior)
        with torch.no_grad():  # begin nearly certain, or the prior switches coordinates off before the decoder has learnt to use them
            posterior.bias[config.latent :] = -4.0
        self.labels = nn.ModuleList(nn.Embedding(size + 1, config.label_width) for size in sizes)  # 0: left open
        inputs = config.latent + 1 + config.label_width * len(sizes)
        self.decoder = nn.Sequential(nn.Linear(inputs, width), *_layer(width, config.dropout), nn.Linear(width, width), *_layer(width))
        self.log_share = nn.Linear(width, genes)
        nn.init.normal_(self.log_share.weight, std=0.01)
        self.log_dispersion = nn.Parameter(torch.zeros(genes))
        self.dispersion_slope = nn.Parameter(torch.zeros(genes))
        self.register_buffer("usual_log_share", torch.zeros(genes))
        self.cells = 1  # in training: what the prior is shared out over
        self.register_buffer("library_mean", torch.zeros(()))
        self.register_buffer("library_sd", torch.ones(()))

    def start_from(self, counts: sp.csr_matrix) -> Autoencoder:
        """Begin where the training counts ``[cells, genes]`` are on the whole: gene shares, dispersions, library sizes, principal components."""
        library = np.log(np.asarray(counts.sum(axis=1)).ravel())
        mean = np.asarray(counts.mean(axis=0)).ravel()
        variance = np.asarray(counts.multiply(counts).mean(axis=0)).ravel() - mean**2
        dispersion = mean**2 / np.maximum(variance - mean, 1e-3 * mean + 1e-8)  # by moments, over all types: a lower bound
        self.cells = counts.shape[0]
        with torch.no_grad():
            self.library_mean.fill_(float(library.mean()))
            self.library_sd.fill_(float(library.std()) or 1.0)
            self.usual_log_share.copy_(torch.from_numpy(np.log((mean + 1e-6) / mean.sum())))
            self.log_share.bias.copy_(self.usual_log_share)
            self.log_dispersion.copy_(torch.from_numpy(np.log(dispersion.clip(0.1, 100))))
        self._read_components(counts)
        return self

    def _read_components(self, counts: sp.csr_matrix) -> None:
        """Let the first inputs of the network be principal components, or splits that few genes tell, such as sex, are learnt too late to be kept."""
        some = counts[:: -(-counts.shape[0] // self.config.component_cells)]  # evenly, for cells often come sorted
        matrix = log_normalised(some, float(self.library_mean.exp()))
        loadings, mean, variance = principal_components(matrix, min(self.config.components, self.config.width))
        loadings = loadings / np.sqrt(variance.clip(1e-6))
        with torch.no_grad():
            self.gene_weights[:, : len(variance)] = torch.from_numpy(loadings)
            self.gene_offset[: len(variance)] = torch.from_numpy(-mean @ loadings)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of each cell's latent point, ``[cells, latent + 1]`` and ``[cells, latent]``: the library size is certain."""
        scaled = torch.log1p(batch.counts * batch.each((self.library_mean - batch.log_library).exp()))
        sums = product(scaled, batch.genes, batch.starts, self._held_back(self.gene_weights, self.config.encoder_sd))
        mean, log_variance = self.encoder(sums + self.gene_offset).chunk(2, dim=1)
        return torch.cat([mean, batch.log_library[:, None]], dim=1), log_variance.clamp(-10, 4)

    def scores(self, latent: Tensor, labels: Tensor) -> Tensor:
        """What the softmax turns into each gene's share of a cell, ``[cells, genes]``, of latent points with these label codes."""
        parts = [latent[:, :-1], (latent[:, -1:] - self.library_mean) / self.library_sd]
        parts += [embedding(labels[:, i] + 1) for i, embedding in enumerate(self.labels)]
        weights = self._held_back(self.log_share.weight, self.config.decoder_sd)
        return F.linear(self.decoder(torch.cat(parts, dim=1)), weights, self.log_share.bias)

    def laws(self, scores: Tensor, log_library: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mean and log-dispersion ``[cells, genes]`` of the counts of cells with these scores and log library sizes ``[cells, 1]``.

        A gene's dispersion follows a power of its share: the ambient level of a secreted gene's counts is steady, the level in the
        cells that make it is not.
        """
        shares = torch.log_softmax(scores, dim=1)
        return shares + log_library, dispersions(shares, self._dispersion_offset(), self.dispersion_slope)

    def _held_back(self, weights: Tensor, sd: float) -> Tensor:
        """Under the prior that most genes hardly vary, and some vary a lot, shared out over the training cells."""
        held: Tensor = _HeldBack.apply(weights, sd, 1 / self.cells) if self.training else weights  # type: ignore[no-untyped-call]
        return held

    def _dispersion_offset(self) -> Tensor:
        return self.log_dispersion - self.dispersion_slope * self.usual_log_share

    def loss(self, batch: Batch) -> Tensor:
        """Negative evidence bound, in nats, its KL term weighted, the mean over cells: Kingma & Welling (arXiv:1312.6114), equation 10.

        In training it is that under priors; of those on many weights it has the gradients alone.
        """
        config = self.config
        mean, log_variance = self.encode(batch)
        labels = drop_labels(batch.labels, config.label_dropout) if self.training else batch.labels
        scores, counts = self.scores(draw_latent(mean, log_variance), labels), (batch.counts, batch.genes, batch.starts)
        fit = negative_log_likelihood(scores, batch.log_library, self._dispersion_offset(), self.dispersion_slope, counts, config.spike_rate)
        kl = 0.5 * (mean[:, :-1].square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        prior = 0.5 * self.dispersion_slope.square().sum() / config.slope_sd**2 / self.cells if self.training else 0.0
        return fit + config.kl_weight * kl + prior

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Groups for Adam: a faster rate for the dispersions, a slower one for the input weights, many of which are summed."""
        special = [
            {"params": [self.gene_weights], "lr": 0.1 * learning_rate},
            {"params": [self.log_dispersion, self.dispersion_slope], "lr": self.config.dispersion_rate * learning_rate},
        ]
        taken = {id(parameter) for group in special for parameter in group["params"]}  # type: ignore[attr-defined]
        return [{"params": [parameter for parameter in self.parameters() if id(parameter) not in taken]}, *special]


def draw_latent(mean: Tensor, log_variance: Tensor) -> Tensor:
    """A draw from each cell's posterior, ``[cells, latent + 1]``."""
    noise = torch.randn_like(log_variance) * (log_variance / 2).exp()
    return mean + F.pad(noise, (0, 1))


def drop_labels(labels: Tensor, share: float) -> Tensor:
    """Leave labels ``[cells, labels]`` open: in a share of the cells all of them, and in the others a share of each."""
    each = torch.rand(labels.shape, device=labels.device) < share * (labels.shape[1] > 1)
    every = torch.rand(len(labels), 1, device=labels.device) < share
    return torch.where(each | every, MISSING, labels)


def _layer(width: int, dropout: float = 0.0) -> list[nn.Module]:
    return [nn.LayerNorm(width), nn.SiLU(), nn.Dropout(dropout)]
