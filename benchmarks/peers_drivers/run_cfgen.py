"""Driver of CFGen (Palma et al., ICLR 2025, arXiv:2407.11734), in two steps.

Settings of the step ``autoencoder``: ``epochs``, ``batch``. Of the step ``flow``: ``epochs``,
``batch``; ``network``, a denoising module of its configuration; ``autoencoder``, which state of the
autoencoder is used: "last" (the file ``last.ckpt`` that its scripts load), "best" (the epoch with
the lowest held-out loss) or "final" (the last epoch); ``flow``, "last" or "final", the same.

Its classes are used as its scripts use them, with its configuration files and the dataset file of
its own pbmc3k, whose label is also called cell_type. What this driver changes is in `CHANGES`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from job import LABEL, Job

AUTOENCODER, FLOW = "autoencoder", "flow"
STATES = ("last", "best", "final")
CHANGES = (
    "trainer.accelerator=cpu, and no progress bar, by overrides of its configuration",
    "detect_anomaly off: it only raises errors earlier",
    "batches are loaded in the process itself (num_workers 4 -> 0), nothing is logged to wandb",
    "checkpoints of the best and the final epoch are saved beside its own",
    "flow: latents of the frozen autoencoder are computed once, not at every step",
    "flow: its test with UMAPs at the end of the training script is left out",
    "cells: `_generate_n_cells_for_class` of its evaluation, with total counts of training cells",
)
PACKAGES = ("torch", "pytorch-lightning", "torchdyn", "scvi-tools", "hydra-core")


def configuration(checkout: Path, kind: str, job: Job, overrides: Sequence[str]) -> Any:
    """Its configuration, with overrides."""
    from hydra import compose, initialize_config_dir

    changed = [
        "dataset=pbmc3k",
        f"dataset.dataset_path={job.folder / 'train.h5ad'}",
        f"training_config.batch_size={job.settings['batch']}",
        f"trainer.max_epochs={job.settings['epochs']}",
        "trainer.accelerator=cpu",
        "trainer.detect_anomaly=False",
        "+trainer.enable_progress_bar=False",
        "~launcher",
        *overrides,
    ]
    with initialize_config_dir(str(checkout / "configs" / kind), version_base=None):
        return compose("train", overrides=changed)


def adapt(module: Any, folder: Path) -> None:
    """Make an estimator module of CFGen run in this process and write into the folder."""

    class Loader(torch.utils.data.DataLoader):  # type: ignore[type-arg]
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options | {"num_workers": 0})

    torch.utils.data.DataLoader = Loader  # type: ignore[misc]
    torch.autograd.set_detect_anomaly(False)
    module.TRAINING_FOLDER = folder / "training"
    module.WandbLogger = lambda **_: False


def keep_states(estimator: Any, folder: Path) -> dict[str, float]:
    """Train; save the three states that a later step may use.

    Returns the epoch of each, and the lowest held-out loss.
    """
    from pytorch_lightning.callbacks import ModelCheckpoint

    best = ModelCheckpoint(folder, filename="best", monitor="valid/loss", every_n_epochs=1)
    trainer = estimator.trainer_generative
    trainer.callbacks.append(best)
    estimator.train()
    trainer.save_checkpoint(folder / "final.ckpt")
    shutil.copy(estimator.training_dir / "checkpoints" / "last.ckpt", folder / "last.ckpt")
    shutil.rmtree(folder / "training")
    epochs = {name: state(folder, name)["epoch"] for name in STATES}
    assert best.best_model_score is not None
    return epochs | {"lowest held-out loss": float(best.best_model_score)}


def state(folder: Path, name: str) -> Any:
    """A saved state; the files are from this driver, so they may be unpickled."""
    return torch.load(folder / f"{name}.ckpt", map_location="cpu", weights_only=False)


def train_autoencoder(job: Job, checkout: Path) -> None:
    from cfgen.estimator import encoder_estimator

    adapt(encoder_estimator, job.folder)
    chosen = configuration(checkout, "configs_encoder", job, [])
    epochs = keep_states(encoder_estimator.EncoderEstimator(chosen), job.folder)
    job.write_info([job.folder / "last.ckpt"], PACKAGES, CHANGES, autoencoder_epochs=epochs)


def use_latents(estimator: Any) -> None:
    """Let the dataset return latents and total counts in place of counts."""
    encoder, dataset = estimator.encoder_model, estimator.dataset
    counts = dataset.X["rna"]
    with torch.no_grad():
        latents = encoder.encode({"X_norm": {"rna": torch.log1p(counts)}})["rna"]
    totals = counts.sum(1, keepdim=True)

    def item(self: Any, i: int) -> dict[str, Any]:
        types = {name: codes[i] for name, codes in self.Y_cov.items()}
        return {"X": {"rna": totals[i]}, "X_norm": {"rna": latents[i]}, "y": types}

    type(dataset).__getitem__ = item
    type(encoder).encode = lambda _, batch: batch["X_norm"]


def generate(model: Any, ids: dict[str, int], job: Job) -> np.ndarray:
    """Counts ``[cells, genes]``, with the types and total counts that are wanted."""
    from cfgen.eval.launch_evaluation_metrics_unimodal import _generate_n_cells_for_class

    counts = np.zeros((len(job.wanted), job.train.n_vars), np.float32)
    for kind, rows in job.wanted_types():
        cells = max(len(rows), 2)  # its sampler fails on a single cell
        made = _generate_n_cells_for_class(
            model,
            n_cells=cells,
            class_id=ids[kind],
            log_size_factors_ct=torch.from_numpy(np.log(np.resize(job.libraries(rows), cells))),
            cluster_key=LABEL,
            theta_covariate=LABEL,
            size_factor_covariate=LABEL,
            conditioning_covariates=[LABEL],
            batch_size=350,
            n_sample_steps=2,
            device="cpu",
        )
        counts[rows] = made.numpy()[: len(rows)]
    return counts


def train_flow(job: Job, checkout: Path) -> None:
    from cfgen.estimator import cfgen_estimator

    assert job.former is not None
    adapt(cfgen_estimator, job.folder)
    autoencoder = job.former / f"{job.settings['autoencoder']}.ckpt"
    overrides = [
        f"denoising_module={job.settings['network']}",
        f"training_config.encoder_ckpt={autoencoder}",
    ]
    chosen = configuration(checkout, "configs_sccfm", job, overrides)
    estimator = cfgen_estimator.CfgenEstimator(chosen)
    use_latents(estimator)
    epochs, used = keep_states(estimator, job.folder), job.settings["flow"]
    model, saved = estimator.generative_model.eval(), state(job.folder, used)
    model.load_state_dict(saved["state_dict"])
    model.feature_embeddings = saved["hyper_parameters"]["feature_embeddings"]
    job.write_cells(generate(model, estimator.dataset.id2cov[LABEL], job))
    notes = {"flow_epochs": epochs, "used": [autoencoder.stem, used]}
    job.write_info([job.folder / f"{used}.ckpt"], PACKAGES, CHANGES, **notes)


def main() -> None:
    import pytorch_lightning

    os.environ["WANDB_MODE"] = "disabled"
    job = Job.of_arguments()
    pytorch_lightning.seed_everything(job.seed)
    job.train.write_h5ad(job.folder / "train.h5ad")
    with job.copied_checkout() as checkout:
        sys.path.insert(0, str(checkout))
        train = {AUTOENCODER: train_autoencoder, FLOW: train_flow}[job.settings["step"]]
        train(job, checkout)


if __name__ == "__main__":
    main()
