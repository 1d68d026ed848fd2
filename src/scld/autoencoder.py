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
from scld.likelihood import log_likelihood
from scld.schema import MISSING


class Batch(NamedTuple):
    """Some cells: their counts, sparse, and their label codes."""

    matrix: Tensor  # [cells, genes], sparse CSR
    rows: Tensor  # [non-zeros]
    labels: Tensor  # [cells, labels]

    @property
    def counts(self) -> Tensor:
        """``[non-zeros]``, row after row."""
        return self.matrix.values()

    @property
    def genes(self) -> Tensor:
        """``[non-zeros]``."""
        return self.matrix.col_indices()

    @classmethod
    def of(cls, counts: sp.csr_matrix, labels: np.ndarray, device: torch.device | str = "cpu") -> Batch:
        """From CSR counts ``[cells, genes]`` and codes ``[cells, labels]``."""
        starts, genes, values = (torch.from_numpy(part) for part in (counts.indptr.astype(np.int64), counts.indices.astype(np.int64), counts.data))
        matrix = _sparse(starts, genes, values, counts.shape)
        rows = torch.from_numpy(np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr)))
        return cls(matrix.to(device), rows.to(device), torch.from_numpy(np.ascontiguousarray(labels)).to(device))


class _SparseProduct(torch.autograd.Function):
    """Sparse ``[cells, genes]`` times weights ``[genes, width]``; its gradient by the transposed sparse matrix, never dense."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, weights: Tensor) -> Tensor:
        ctx.matrix = matrix
        return matrix @ weights

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, ctx.matrix.t().to_sparse_csr() @ gradient.contiguous()


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
        matrix = _sparse(batch.matrix.crow_indices(), batch.genes, scaled, batch.matrix.shape)
        hidden: Tensor = _SparseProduct.apply(matrix, self.gene_weights)  # type: ignore[no-untyped-call]
        mean, log_variance = self.encoder(hidden + self.gene_offset).chunk(2, dim=1)
        return torch.cat([mean, log_library[:, None]], dim=1), log_variance.clamp(-10, 4)

    def decode(self, latent: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mean and log-dispersion ``[cells, genes]`` of the counts of latent points with these label codes.

        A gene's dispersion follows a power of its share: the ambient level of a secreted gene's counts is steady, the level in the
        cells that make it is not.
        """
        log_library = latent[:, -1:]
        parts = [latent[:, :-1], (log_library - self.library_mean) / self.library_sd]
        parts += [embedding(labels[:, i] + 1) for i, embedding in enumerate(self.labels)]
        shares = torch.log_softmax(self.log_share(self.decoder(torch.cat(parts, dim=1))), dim=1)
        log_dispersion = self.log_dispersion + self.dispersion_slope * (shares - self.usual_log_share)
        return shares + log_library, log_dispersion.clamp(-4.6, 9.2)  # 0.01 to 10,000

    def loss(self, batch: Batch) -> Tensor:
        """Negative evidence bound of each cell ``[cells]``, in nats, its KL term weighted: Kingma & Welling (arXiv:1312.6114), equation 10."""
        mean, log_variance = self.encode(batch)
        labels = drop_labels(batch.labels, self.config.label_dropout) if self.training else batch.labels
        log_mean, log_dispersion = self.decode(draw_latent(mean, log_variance), labels)
        kl = 0.5 * (mean[:, :-1].square() + log_variance.exp() - 1 - log_variance).sum(1)
        loss = self.config.kl_weight * kl - log_likelihood(log_mean, log_dispersion, batch.rows, batch.genes, batch.counts, self.config.spike_rate)
        return loss + self._prior() / self.cells if self.training else loss

    def _prior(self) -> Tensor:
        """Negative log-density of a heavy-tailed prior on each gene's weights: most genes hardly vary, and are held back; some vary a lot, and are let go."""
        scales = ((self.gene_weights, self.config.encoder_sd), (self.log_share.weight, self.config.decoder_sd))
        parts = [weights.shape[1] / 2 * torch.log1p(weights.square().mean(1) / sd**2).sum() for weights, sd in scales]
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
