"""What speed.py compares scld with: plain dense PyTorch, scvi-tools' SCVI, and torch's sampler."""

from __future__ import annotations

import logging
import time
import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from common import LABEL
from torch import Tensor, nn

import scld


class DenseAutoencoder(nn.Module):
    """A plain autoencoder of counts.

    Dense input, two hidden layers of ReLU on each side, and the negative binomial log-likelihood
    evaluated at every gene.
    """

    def __init__(self, genes: int, width: int, latent: int) -> None:
        super().__init__()
        self.encoder = _perceptron(genes, width, latent)
        self.decoder = _perceptron(latent, width, genes)
        self.log_dispersion = nn.Parameter(torch.zeros(genes))

    def loss(self, x: Tensor) -> Tensor:
        """Negative log-likelihood of counts ``[cells, genes]``, the mean over cells."""
        logits = self.decoder(self.encoder(torch.log1p(x)))
        mean = torch.softmax(logits, dim=1) * x.sum(1, keepdim=True) + 1e-8
        r = self.log_dispersion.exp()
        coefficient = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
        powers = r * torch.log(r / (r + mean)) + x * torch.log(mean / (r + mean))
        return -(coefficient + powers).sum(1).mean()


def _perceptron(inputs: int, width: int, outputs: int) -> nn.Module:
    hidden = (nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


def dense_training_rate(cells: AnnData, epochs: int) -> float:
    """Cells/s of training a `DenseAutoencoder` in a plain loop."""
    config, matrix = scld.Config(), sp.csr_matrix(cells.X, dtype=np.float32)
    batch, rng = config.autoencoder_training.batch, np.random.default_rng(0)
    shape = (config.autoencoder.width, config.autoencoder.latent)
    module = DenseAutoencoder(cells.n_vars, *shape)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    started = time.perf_counter()
    for _ in range(epochs):
        order = rng.permutation(cells.n_obs)
        for start in range(0, cells.n_obs, batch):
            rows = order[start : start + batch]
            optimizer.zero_grad()
            module.loss(torch.from_numpy(matrix[rows].toarray())).backward()
            optimizer.step()
    return epochs * cells.n_obs / (time.perf_counter() - started)


def scvi_installed() -> bool:
    """Whether scvi-tools is installed."""
    return find_spec("scvi") is not None


def scvi_training_rate(cells: AnnData, epochs: int, accelerator: str = "cpu") -> float:
    """Cells/s of SCVI's own training, from the end of its first epoch on."""
    from lightning.pytorch.callbacks import LambdaCallback

    ends: list[float] = []
    clock = LambdaCallback(on_train_epoch_end=lambda *_: ends.append(time.perf_counter()))
    fit_scvi(cells, epochs + 1, accelerator, train_size=1.0, callbacks=[clock])
    return epochs * cells.n_obs / (ends[-1] - ends[0])


def fit_scvi(cells: AnnData, epochs: int | None, accelerator: str = "cpu", **options: Any) -> Any:
    """SCVI with the latent size, widths, batch and likelihood of scld.

    It stops by itself if ``epochs`` is None.
    """
    from scvi.model import SCVI

    config, adata = scld.Config(), cells.copy()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    no_output = ("enable_progress_bar", "enable_checkpointing", "logger", "enable_model_summary")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SCVI.setup_anndata(adata)
        model = SCVI(
            adata,
            n_hidden=config.autoencoder.width,
            n_latent=config.autoencoder.latent,
            n_layers=2,
            gene_likelihood="nb",
            dispersion="gene",
        )
        model.train(
            max_epochs=epochs,
            early_stopping=epochs is None,
            batch_size=config.autoencoder_training.batch,
            accelerator=accelerator,
            devices=1,
            **dict.fromkeys(no_output, False),
            **options,
        )
    return model


def sample_scvi(model: Any, train: AnnData, obs: pd.DataFrame, seed: int) -> AnnData:
    """One posterior predictive cell per row of ``obs``, of a random training cell of its type."""
    types, rng = train.obs[LABEL].to_numpy(), np.random.default_rng(seed)
    rows = [int(rng.choice(np.flatnonzero(types == wanted))) for wanted in obs[LABEL]]
    sampled = model.posterior_predictive_sample(indices=rows).to_scipy_sparse()
    counts = sampled.tocsr().astype(np.float32)
    return AnnData(counts, obs=obs.copy(), var=pd.DataFrame(index=train.var_names))


def torch_counts(mean: Tensor, dispersion: Tensor) -> sp.csr_matrix:
    """Counts from torch's own negative binomial, converted to CSR."""
    logits = (mean / dispersion).log()
    counts = torch.distributions.NegativeBinomial(dispersion, logits=logits).sample()
    return sp.csr_matrix(counts.numpy())
