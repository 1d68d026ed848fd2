"""The count autoencoder: a cell's counts -> a latent point -> the negative binomial its counts are drawn from.

A latent point is ``config.latent`` coordinates and, last, the log of the cell's library size (its total count), which is
thereby part of what is generated. The decoder also sees the cell's labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scld.components import log_normalised, principal_components
from scld.config import AutoencoderConfig
from scld.likelihood import dispersions, log_likelihood
from scld.schema import MISSING


class Batch(NamedTuple):
    """Some cells: their counts, sparse, and their label codes."""

    counts: Tensor  # [non-zeros], cell after cell
    rows: Tensor  # [non-zeros], the cell of each
    genes: Tensor  # [non-zeros]
    starts: Tensor  # [cells + 1], where the counts of each cell begin
    by_gene: Tensor  # [non-zeros], the order that puts them gene after gene
    gene_starts: Tensor  # [genes + 1], where those of each gene begin in that order
    labels: Tensor  # [cells, labels]

    @classmethod
    def of(cls, counts: sp.csr_matrix, labels: np.ndarray, device: torch.device | str = "cpu") -> Batch:
        """From CSR counts ``[cells, genes]`` and codes ``[cells, labels]``."""
        order = sp.csr_matrix((np.arange(counts.nnz, dtype=np.int32), counts.indices, counts.indptr), shape=counts.shape).tocsc()
        rows = np.repeat(np.arange(counts.shape[0], dtype=np.int32), np.diff(counts.indptr))
        parts = (counts.data, rows, counts.indices, counts.indptr, order.data, order.indptr, np.ascontiguousarray(labels))
        return cls(*(torch.from_numpy(part).to(device, non_blocking=True) for part in parts))

    def times(self, values: Tensor, weights: Tensor) -> Tensor:
        """Other values in place of the counts, as a matrix ``[cells, genes]``, times weights ``[genes, width]``."""
        shape = (len(self.starts) - 1, len(self.gene_starts) - 1)
        matrix = _sparse(self.starts, self.genes, values, shape)
        transposed = _sparse(self.gene_starts, self.rows[self.by_gene], values[self.by_gene], shape[::-1])
        product: Tensor = _SparseProduct.apply(matrix, transposed, weights)  # type: ignore[no-untyped-call]
        return product


class _SparseProduct(torch.autograd.Function):
    """Sparse ``[cells, genes]`` times weights ``[genes, width]``; its gradient by the sparse matrix's transpose, never dense."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, weights: Tensor) -> Tensor:
        ctx.transposed = transposed
        product: Tensor = matrix @ weights
        return product

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.transposed @ gradient.contiguous()


class _HeavyTail(torch.autograd.Function):
    """Sum over rows of n / 2 log(1 + |w|^2 / (n sd^2)) for weights w ``[rows, n]``; its gradient in one pass, for the weights are many."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, sd: float) -> Tensor:
        ratio = torch.linalg.vector_norm(weights, dim=1).square() / (weights.shape[1] * sd**2)
        ctx.save_for_backward(weights, 1 / (sd**2 * (1 + ratio)))
        total: Tensor = weights.shape[1] / 2 * ratio.log1p().sum()
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        weights, share = ctx.saved_tensors
        return weights * (gradient * share)[:, None], None


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
        log_library = batch.counts.new_zeros(len(batch.labels)).index_add(0, batch.rows, batch.counts).log()
        scaled = torch.log1p(batch.counts * (self.library_mean - log_library).exp()[batch.rows])
        mean, log_variance = self.encoder(batch.times(scaled, self.gene_weights) + self.gene_offset).chunk(2, dim=1)
        return torch.cat([mean, log_library[:, None]], dim=1), log_variance.clamp(-10, 4)

    def decode(self, latent: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mean and log-dispersion ``[cells, genes]`` of the counts of latent points with these label codes.

        A gene's dispersion follows a power of its share: the ambient level of a secreted gene's counts is steady, the level in the
        cells that make it is not.
        """
        shares = self._shares(latent, labels)
        return shares + latent[:, -1:], dispersions(shares, self._dispersion_offset(), self.dispersion_slope)

    def _shares(self, latent: Tensor, labels: Tensor) -> Tensor:
        """log of each gene's share of a cell ``[cells, genes]``."""
        parts = [latent[:, :-1], (latent[:, -1:] - self.library_mean) / self.library_sd]
        parts += [embedding(labels[:, i] + 1) for i, embedding in enumerate(self.labels)]
        return torch.log_softmax(self.log_share(self.decoder(torch.cat(parts, dim=1))), dim=1)

    def _dispersion_offset(self) -> Tensor:
        return self.log_dispersion - self.dispersion_slope * self.usual_log_share

    def loss(self, batch: Batch) -> Tensor:
        """Negative evidence bound of each cell ``[cells]``, in nats, its KL term weighted: Kingma & Welling (arXiv:1312.6114), equation 10."""
        mean, log_variance = self.encode(batch)
        labels = drop_labels(batch.labels, self.config.label_dropout) if self.training else batch.labels
        shares, counts = self._shares(draw_latent(mean, log_variance), labels), (batch.counts, batch.genes, batch.starts)
        kl = 0.5 * (mean[:, :-1].square() + log_variance.exp() - 1 - log_variance).sum(1)
        fit = log_likelihood(shares, mean[:, -1], self._dispersion_offset(), self.dispersion_slope, counts, self.config.spike_rate)
        loss = self.config.kl_weight * kl - fit
        return loss + self._prior() / self.cells if self.training else loss

    def _prior(self) -> Tensor:
        """Negative log-density of a heavy-tailed prior on each gene's weights: most genes hardly vary, and are held back; some vary a lot, and are let go."""
        scales = ((self.gene_weights, self.config.encoder_sd), (self.log_share.weight, self.config.decoder_sd))
        parts: list[Tensor] = [_HeavyTail.apply(weights, sd) for weights, sd in scales]  # type: ignore[no-untyped-call]
        return torch.stack([*parts, 0.5 * self.dispersion_slope.square().sum() / self.config.slope_sd**2]).sum()

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


def _sparse(starts: Tensor, genes: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, genes, values, size=shape, check_invariants=False)


def _layer(width: int, dropout: float = 0.0) -> list[nn.Module]:
    return [nn.LayerNorm(width), nn.SiLU(), nn.Dropout(dropout)]
