"""The count autoencoder: counts -> a latent point -> the negative binomial of each count.

A latent point has ``config.latent`` dimensions and, last, the log of the cell's library size (its
total count), which is thereby generated too. The decoder also sees the cell's labels.

The logits of the expression proportions are a sum of three parts: the expression profile of the
categories that the latent point belongs to, which training counts give beforehand; a linear
function of the latent point; and a network.
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

from scld.config import AutoencoderConfig
from scld.io.disk import Counts, gene_totals, library_sizes
from scld.kernels.likelihood import log_dispersion
from scld.kernels.sparse import PaddedCounts, SparseCounts
from scld.model.likelihood import negative_log_likelihood
from scld.model.profiles import category_profiles, within_dispersions
from scld.preprocessing import log_normalise, principal_components
from scld.schema import MISSING


class Batch(NamedTuple):
    """Some cells: their counts, log library sizes and label codes."""

    counts: SparseCounts | PaddedCounts
    log_library: Tensor  # [cells]
    labels: Tensor  # [cells, labels]

    @classmethod
    def of(
        cls, counts: sp.csr_matrix, labels: np.ndarray, device: torch.device | str = "cpu"
    ) -> Batch:
        """From CSR counts ``[cells, genes]`` and codes ``[cells, labels]``."""
        cells = DeviceCells.of(counts, labels, device)
        if cells.labels.device.type == "cpu":
            return cls(cells.counts, cells.log_library, cells.labels)
        return cells.batch(torch.arange(len(cells.labels), device=device))


class DeviceCells(NamedTuple):
    """Cells whose counts are all on one device, where batches of them are gathered."""

    counts: SparseCounts
    log_library: Tensor  # [cells]
    labels: Tensor  # [cells, labels]
    places: int  # the most non-zero counts of a cell

    @classmethod
    def of(
        cls, counts: sp.csr_matrix, labels: np.ndarray, device: torch.device | str
    ) -> DeviceCells:
        """From CSR counts ``[cells, genes]`` and codes ``[cells, labels]``."""
        counts = counts if counts.has_sorted_indices else counts.sorted_indices()
        library = np.log(np.asarray(counts.sum(axis=1)).ravel())
        arrays = (counts.data, counts.indices, counts.indptr, library, np.ascontiguousarray(labels))
        values, genes, starts, log_library, codes = (
            torch.from_numpy(array).to(device) for array in arrays
        )
        places = int(np.diff(counts.indptr).max(initial=0))
        return cls(SparseCounts(values, genes, starts), log_library, codes, places)

    def batch(self, cells: Tensor) -> Batch:
        """Some of the cells; nothing leaves the device, and the host waits for nothing."""
        counts = PaddedCounts.gather(self.counts, cells, self.places)
        return Batch(counts, self.log_library[cells], self.labels[cells])


class Autoencoder(nn.Module):
    """A variational autoencoder with sparse input and a negative binomial for every gene.

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
    >>> autoencoder = Autoencoder(4, [], AutoencoderConfig(latent=2, width=8))
    >>> batch = Batch.of(counts, np.zeros((4, 0), np.int64))
    >>> autoencoder.start_from(counts, batch.labels.numpy()).encode(batch)[0].shape
    torch.Size([4, 3])
    """

    mean_log_p: Tensor  # [genes] log expression proportions over all training cells
    profiles: Tensor  # [sum of sizes, genes] what each category adds to them
    library_mean: Tensor  # of the log library sizes
    library_sd: Tensor

    def __init__(self, genes: int, sizes: Sequence[int], config: AutoencoderConfig) -> None:
        super().__init__()
        width, self.config, self.sizes = config.width, config, list(sizes)
        self.gene_weights = nn.Parameter(torch.randn(genes, width) * 0.0003)
        self.gene_offset = nn.Parameter(torch.zeros(width))
        posterior = nn.Linear(width, 2 * config.latent)
        self.encoder = nn.Sequential(
            *_layer(width, config.dropout), nn.Linear(width, width), *_layer(width), posterior
        )
        self.direct = nn.Parameter(torch.eye(config.latent, width))
        with torch.no_grad():  # start nearly certain, or the prior switches dimensions off too soon
            posterior.bias[config.latent :] = -4.0
        unspecified = 1  # embedding 0
        self.labels = nn.ModuleList(
            nn.Embedding(size + unspecified, config.label_width) for size in sizes
        )
        inputs = config.latent + 1 + config.label_width * len(sizes)
        self.decoder = nn.Sequential(
            nn.Linear(inputs, width),
            *_layer(width, config.dropout),
            nn.Linear(width, width),
            *_layer(width),
        )
        self.output = nn.Linear(width, genes)
        nn.init.normal_(self.output.weight, std=0.01)
        self.linear = nn.Parameter(torch.zeros(genes, config.latent))
        self.membership = nn.Parameter(torch.zeros(sum(sizes), config.latent))
        self.membership_offset = nn.Parameter(torch.zeros(sum(sizes)))
        self.given_weight = nn.Parameter(torch.ones(len(self.sizes)))
        self.log_dispersion = nn.Parameter(torch.zeros(genes))
        self.dispersion_slope = nn.Parameter(torch.zeros(genes))
        self.register_buffer("mean_log_p", torch.zeros(genes))
        self.register_buffer("profiles", torch.zeros(sum(sizes), genes))
        self.register_buffer("library_mean", torch.zeros(()))
        self.register_buffer("library_sd", torch.ones(()))
        self.cells = 1  # in training: the log-prior is divided by it

    def start_from(self, counts: Counts, codes: np.ndarray) -> Autoencoder:
        """Initialise from training counts ``[cells, genes]`` and labels ``[cells, labels]``.

        Expression proportions, profiles of categories, dispersions within them, library sizes and
        principal components.
        """
        library, self.cells = np.log(library_sizes(counts)), counts.shape[0]
        mean = gene_totals(counts) / self.cells
        with torch.no_grad():
            self.library_mean.fill_(float(library.mean()))
            self.library_sd.fill_(float(library.std()) or 1.0)
            self.mean_log_p.copy_(torch.from_numpy(np.log((mean + 1e-6) / mean.sum())))
            self.output.bias.copy_(self.mean_log_p)
            profiles = self.config.profile_weight * category_profiles(counts, codes, self.sizes)
            self.profiles.copy_(torch.from_numpy(profiles))
            dispersions = within_dispersions(counts, codes)
            self.log_dispersion.copy_(torch.from_numpy(np.log(dispersions)))
        self._start_from_components(counts)
        return self

    def _start_from_components(self, counts: Counts) -> None:
        """Make principal components the first inputs of the network, and its first latent points.

        Differences that few genes show, such as sex, are otherwise learnt too late to be kept.
        """
        shuffled = np.random.default_rng(0).permutation(counts.shape[0])
        rows = np.sort(shuffled[: self.config.component_cells])
        matrix = log_normalise(counts[rows], float(self.library_mean.exp()))
        number = min(self.config.components, self.config.width)
        loadings, mean, variance = principal_components(matrix, number)
        loadings = loadings / np.sqrt(variance.clip(1e-6))
        with torch.no_grad():
            self.gene_weights[:, : len(variance)] = torch.from_numpy(loadings)
            self.gene_offset[: len(variance)] = torch.from_numpy(-mean @ loadings)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior of each cell.

        Returns
        -------
        tuple of Tensor
            ``[cells, latent + 1]`` and ``[cells, latent]``: the library size is known exactly.
        """
        scale = (self.library_mean - batch.log_library).exp()
        logs = torch.log1p(batch.counts.values * batch.counts.per_count(scale))
        weights = self._with_prior(self.gene_weights, self.config.encoder_sd)
        inputs = batch.counts.product(logs, weights) + self.gene_offset
        mean, log_variance = self.encoder(inputs).chunk(2, dim=1)
        mean = mean + F.linear(inputs, self.direct)
        return torch.cat([mean, batch.log_library[:, None]], dim=1), log_variance.clamp(-10, 4)

    def logits(self, latent: Tensor, labels: Tensor) -> Tensor:
        """Logits ``[cells, genes]`` of the expression proportions.

        Parameters
        ----------
        latent
            ``[cells, latent + 1]``, not standardised.
        labels
            Codes ``[cells, labels]``.
        """
        point = latent[:, :-1]
        parts = [point, (latent[:, -1:] - self.library_mean) / self.library_sd]
        parts += [embedding(labels[:, i] + 1) for i, embedding in enumerate(self.labels)]
        hidden = self.decoder(torch.cat(parts, dim=1))
        weights = self._with_prior(self.output.weight, self.config.decoder_sd)
        linear = self._with_prior(self.linear, self.config.linear_sd)
        logits = torch.addmm(F.linear(hidden, weights, self.output.bias), point, linear.T)
        if not self.sizes:
            return logits
        return torch.addmm(logits, self.memberships(point, labels), self.profiles)

    def memberships(self, point: Tensor, labels: Tensor) -> Tensor:
        """The part of each category's profile that a cell has, ``[cells, sum of sizes]``.

        For each label they add up to one. They follow from the latent point, so that a cell between
        two types has a profile between theirs, and from the category that is given, by a learnt
        weight. An unspecified label follows from the latent point alone.
        """
        scores = F.linear(point, self.membership, self.membership_offset)
        parts = []
        for column, of_label in enumerate(torch.split(scores, self.sizes, dim=1)):
            given = F.one_hot(labels[:, column] + 1, self.sizes[column] + 1)[:, 1:]
            parts.append(torch.softmax(of_label + self.given_weight[column] * given, dim=1))
        return torch.cat(parts, dim=1)

    def nb_parameters(self, logits: Tensor, log_library: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mean and log-dispersion ``[cells, genes]``, of log library sizes ``[cells, 1]``.

        A gene's dispersion follows a power of its proportion: the ambient counts of a secreted gene
        vary little, those in the cells that express it vary a lot.
        """
        log_p = torch.log_softmax(logits, dim=1)
        return log_p + log_library, log_dispersion(
            log_p, self._dispersion_offset(), self.dispersion_slope
        )

    def _with_prior(self, weights: Tensor, sd: float) -> Tensor:
        if not self.training:
            return weights
        arguments = (weights, sd, 1 / self.cells)
        same: Tensor = _WeightPrior.apply(*arguments)  # type: ignore[no-untyped-call]
        return same

    def _dispersion_offset(self) -> Tensor:
        return self.log_dispersion - self.dispersion_slope * self.mean_log_p

    def loss(self, batch: Batch) -> Tensor:
        """Negative evidence lower bound in nats, its KL term weighted, mean over cells.

        Kingma & Welling (arXiv:1312.6114), equation 10. In training, the priors are added: of the
        one on weights only the gradient.
        """
        config = self.config
        mean, log_variance = self.encode(batch)
        labels = batch.labels
        if self.training:
            labels = drop_labels(labels, config.label_dropout)
        logits = self.logits(sample_latent(mean, log_variance), labels)
        reconstruction = negative_log_likelihood(
            logits,
            batch.log_library,
            self._dispersion_offset(),
            self.dispersion_slope,
            batch.counts,
            config.outlier_rate,
        )
        kl = 0.5 * (mean[:, :-1].square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        loss = reconstruction + config.kl_weight * kl
        if self.training:
            loss = (
                loss + 0.5 * self.dispersion_slope.square().sum() / config.slope_sd**2 / self.cells
            )
        return loss

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Groups for Adam.

        Dispersions learn faster; the input weights, many of which are summed, slower.
        """
        dispersions = [self.log_dispersion, self.dispersion_slope]
        fast = self.config.dispersion_rate * learning_rate
        special = [
            {"params": [self.gene_weights], "lr": 0.1 * learning_rate},
            {"params": dispersions, "lr": fast},
        ]
        taken = {id(parameter) for parameter in [self.gene_weights, *dispersions]}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in taken]
        return [{"params": rest}, *special]


class _WeightPrior(torch.autograd.Function):
    """The identity, whose gradient gains that of a negative log-prior on the weights.

    The prior is heavy-tailed: most genes hardly vary, some vary a lot. Each row ``w`` of
    ``[rows, n]`` weights contributes n / 2 log(1 + |w|^2 / (n sd^2)), times a factor.
    """

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
        shrinkage = ctx.factor / (ctx.sd**2 + size / weights.shape[1])
        return torch.addcmul(gradient, weights, shrinkage), None, None


def sample_latent(mean: Tensor, log_variance: Tensor) -> Tensor:
    """A sample of each cell's posterior, ``[cells, latent + 1]``."""
    noise = torch.randn_like(log_variance) * (log_variance / 2).exp()
    return mean + F.pad(noise, (0, 1))


def drop_labels(labels: Tensor, share: float) -> Tensor:
    """Make labels ``[cells, labels]`` unspecified at random.

    In a share of the cells all of them, and in the others a share of each label.
    """
    each = torch.rand(labels.shape, device=labels.device) < share * (labels.shape[1] > 1)
    every = torch.rand(len(labels), 1, device=labels.device) < share
    return torch.where(each | every, MISSING, labels)


def _layer(width: int, dropout: float = 0.0) -> list[nn.Module]:
    return [nn.LayerNorm(width), nn.SiLU(), nn.Dropout(dropout)]
