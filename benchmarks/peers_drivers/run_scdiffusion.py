"""Driver of scDiffusion (Luo et al., Bioinformatics 40:btae518, 2024), in two steps.

Settings of the step ``latents``: ``autoencoder``, ``backbone`` and ``classifier``, training steps
of its three networks. Of the step ``cells``: ``counts``; if true, counts are drawn from the
expression proportions of a cell, at the total count of a training cell; if not, cells are what it
generates, log(1 + counts per 10,000), each scaled to a sum of 10,000 again.

The functions of its own scripts are called with its own defaults. What this driver changes is in
`CHANGES`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from job import LABEL, Job

CHANGES = (
    "cuda -> cpu in guided_diffusion/cell_datasets_loader.py; batches are loaded in the process",
    "VAE_train: --state_dict None, that is, trained from scratch; detect_anomaly off",
    "classifier_train: no DistributedDataParallel, which fails without a GPU",
    "its fixed seed 1234 is replaced by the seed of the benchmark",
    "genes that its loader removes (in fewer than 3 cells) are zero in the generated cells",
    "its values are scaled so that each cell sums to 10,000: they are means of logarithms",
)
PACKAGES = ("torch", "scanpy", "mpi4py", "blobfile")
LEAST_CELLS = 3  # with a gene, in its loader


@contextmanager
def arguments(**options: Any) -> Iterator[None]:
    """The command line of one of its scripts."""
    former = sys.argv
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    sys.argv = [former[0], *words]
    yield
    sys.argv = former


def kept_genes(job: Job) -> np.ndarray:
    """The genes that its loader keeps."""
    return np.flatnonzero(np.asarray((job.train.X > 0).sum(axis=0)).ravel() >= LEAST_CELLS)


def newest(folder: Path, pattern: str) -> Path:
    """The file with the most training steps."""
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime)


def use_cpu() -> None:
    """Make its loader work without a GPU, in this process."""
    from guided_diffusion import cell_datasets_loader as loader

    autoencoder, batches = loader.VAE, loader.DataLoader
    loader.VAE = lambda **options: autoencoder(**options | {"device": "cpu"})
    loader.DataLoader = lambda *given, **options: batches(*given, **options | {"num_workers": 0})
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002, its code draws from it


def train_autoencoder(job: Job, cells: Path) -> Path:
    import VAE_train

    torch.autograd.set_detect_anomaly(False)
    folder, steps = job.folder / "autoencoder", job.settings["autoencoder"]
    sizes = {"num_genes": len(kept_genes(job)), "max_steps": steps}
    with arguments(data_dir=cells, save_dir=folder, **sizes):
        options = VAE_train.parse_arguments()
    VAE_train.train_vae(options | {"state_dict": None})
    return newest(folder, "*.pt")


def train_backbone(job: Job, cells: Path, autoencoder: Path) -> Path:
    import cell_train

    cell_train.setup_seed = lambda _: seed_everything(job.seed)
    folder, steps = job.folder / "backbone", job.settings["backbone"]
    folder.mkdir(exist_ok=True)
    places = {"data_dir": cells, "vae_path": autoencoder, "save_dir": folder}
    with arguments(lr_anneal_steps=steps, save_interval=steps, model_name="model", **places):
        cell_train.main()
    return newest(folder / "model", "model*.pt")


def train_classifier(job: Job, cells: Path, autoencoder: Path) -> Path:
    import classifier_train

    classifier_train.setup_seed = lambda _: seed_everything(job.seed)
    classifier_train.DDP = lambda model, **_: model
    folder = job.folder / "classifier"
    sizes = {"iterations": job.settings["classifier"], "num_class": len(set(job.types))}
    with arguments(data_dir=cells, vae_path=autoencoder, model_path=folder, **sizes):
        classifier_train.main()
    return newest(folder, "model*.pt")


def sample_latents(job: Job, backbone: Path, classifier: Path) -> np.ndarray:
    """Latents ``[cells, dimensions]`` of the wanted cells."""
    import classifier_sample

    kinds: list[str] = np.unique(job.types).tolist()
    latents: dict[int, np.ndarray] = {}
    places = {"model_path": backbone, "classifier_path": classifier}
    for kind, rows in job.wanted_types():
        sizes = {"num_samples": len(rows), "batch_size": len(rows), "num_class": len(kinds)}
        prefix = job.folder / "latents-"
        with arguments(sample_dir=prefix, **places, **sizes):
            classifier_sample.main(cell_type=[kinds.index(kind)])
        made = np.load(f"{prefix}{kinds.index(kind)}.npz")["cell_gen"]
        latents |= dict(zip(rows, made, strict=True))
    return np.stack([latents[row] for row in range(len(job.wanted))])


def make_latents(job: Job) -> None:
    job.train.obs["celltype"] = job.train.obs[LABEL]
    cells = job.folder / "train.h5ad"
    job.train.write_h5ad(cells)
    use_cpu()
    seed_everything(job.seed)
    autoencoder = train_autoencoder(job, cells)
    backbone = train_backbone(job, cells, autoencoder)
    classifier = train_classifier(job, cells, autoencoder)
    np.save(job.folder / "latents.npy", sample_latents(job, backbone, classifier))
    job.write_info(
        [autoencoder, backbone, classifier], PACKAGES, CHANGES, training_steps=job.settings
    )


def decoded(job: Job, latents: np.ndarray) -> np.ndarray:
    """Its log-normalised values ``[cells, kept genes]``.

    As in its notebooks the autoencoder is not switched to evaluation, so that its batch
    normalisation uses the cells at hand; where types are missing, real cells are added to them.
    """
    from VAE.VAE_model import VAE

    assert job.former is not None
    options = {"device": "cpu", "seed": 0, "loss_ae": "mse", "decoder_activation": "ReLU"}
    genes = kept_genes(job)
    autoencoder = VAE(num_genes=len(genes), hidden_dim=128, **options)
    autoencoder.load_state_dict(torch.load(newest(job.former / "autoencoder", "*.pt")))
    all_latents = torch.from_numpy(latents)
    with torch.no_grad():
        if set(job.wanted[LABEL]) != set(job.types):
            real = log_normalised(job.train.X[::5][:, genes])
            added = autoencoder(torch.from_numpy(real), return_latent=True)
            all_latents = torch.cat([all_latents, added])
        values = autoencoder(all_latents, return_decoded=True).numpy()
    return np.asarray(values[: len(latents)])


def log_normalised(counts: Any) -> np.ndarray:
    dense = counts.toarray()
    shares = dense / dense.sum(axis=1, keepdims=True)
    return np.asarray(np.log1p(shares * 1e4), np.float32)


def proportions_of(values: np.ndarray) -> np.ndarray:
    """Log-normalised values -> expression proportions."""
    linear = np.expm1(values.astype(float))
    return np.asarray(linear / linear.sum(axis=1, keepdims=True))


def drawn(proportions: np.ndarray, job: Job) -> np.ndarray:
    """Counts drawn from expression proportions, at the wanted total counts."""
    rng, totals = np.random.default_rng(job.seed), job.libraries(np.arange(len(proportions)))
    pairs = zip(totals.astype(int), proportions, strict=True)
    return np.stack([rng.multinomial(n, p) for n, p in pairs])


def make_cells(job: Job) -> None:
    assert job.former is not None
    values = decoded(job, np.load(job.former / "latents.npy").astype(np.float32))
    proportions = proportions_of(values)
    cells = np.zeros((len(values), job.train.n_vars), np.float32)
    if job.settings["counts"]:
        cells[:, kept_genes(job)] = drawn(proportions, job)
    else:
        cells[:, kept_genes(job)] = np.log1p(proportions * 1e4)
    job.write_cells(cells)
    job.write_info([], PACKAGES, CHANGES)


def main() -> None:
    job = Job.of_arguments()
    with job.copied_checkout() as checkout:
        sys.path[:0] = [str(checkout), str(checkout / "VAE")]
        os.chdir(checkout)
        {"latents": make_latents, "cells": make_cells}[job.settings["step"]](job)


if __name__ == "__main__":
    main()
