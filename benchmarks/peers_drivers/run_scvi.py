"""Driver of scvi-tools' SCVI (Lopez et al., Nat. Methods 15:1053, 2018).

Settings: ``from``, "posterior" or "prior"; ``model`` and ``train``, arguments of SCVI and of its
method `train`, on top of the defaults of scvi-tools.

Posterior: a training cell of the wanted type is encoded, its latent is sampled from the posterior,
and counts from the decoder at the total count of that cell. The model has no labels. Prior: the
type is the batch of the model, so that the decoder depends on it; latents are standard normal, and
total counts those of training cells of the type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from job import LABEL, Job
from other_methods import sample_scvi

QUIET = {"enable_progress_bar": False, "enable_model_summary": False}


def fitted(job: Job) -> Any:
    """SCVI, trained on the training cells."""
    from scvi import settings
    from scvi.model import SCVI

    settings.seed = job.seed
    SCVI.setup_anndata(job.train, batch_key=LABEL if job.settings["from"] == "prior" else None)
    model = SCVI(job.train, **job.settings["model"])
    model.train(accelerator="cpu", devices=1, **QUIET, **job.settings["train"])
    return model


@torch.no_grad()
def sample_prior(model: Any, job: Job) -> np.ndarray:
    """Counts ``[cells, genes]`` from the prior."""
    types = pd.Categorical(job.wanted[LABEL], categories=job.train.obs[LABEL].cat.categories)
    codes = torch.from_numpy(types.codes.astype(np.int64))[:, None]
    library = torch.from_numpy(np.log(job.libraries(np.arange(len(codes))))).float()[:, None]
    latent, module = torch.randn(len(codes), model.module.n_latent), model.module.eval()
    parts = []
    for start in range(0, len(codes), 512):
        rows = slice(start, start + 512)
        made = module.generative(z=latent[rows], library=library[rows], batch_index=codes[rows])
        parts.append(made["px"].sample().numpy())
    return np.concatenate(parts)


def main() -> None:
    job = Job.of_arguments()
    model = fitted(job)
    if job.settings["from"] == "prior":
        job.write_cells(sample_prior(model, job))
    else:
        job.write_cells(sample_scvi(model, job.train, job.wanted, job.seed).X)
    folder = job.folder / "model"
    model.save(str(folder), overwrite=True)
    epochs = model.trainer.current_epoch
    job.write_info([folder], ["scvi-tools", "torch"], epochs=epochs)


if __name__ == "__main__":
    main()
