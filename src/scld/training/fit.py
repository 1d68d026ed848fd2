"""A source of cells -> a fitted model, saved where it is wanted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from scld._version import __version__
from scld.config import Config
from scld.errors import DataError
from scld.generation.fitted import FittedModel
from scld.io import checkpoint
from scld.io.counts import count_matrix
from scld.io.read import Source, read
from scld.progress import note, progress_bars
from scld.schema import Schema
from scld.training.memory import estimate_memory
from scld.training.stages import Fit

FEWEST_CELLS = 20


def fit_model(
    source: Source,
    layer: str | None,
    labels: Sequence[str],
    config: Config,
    seed: int,
    device: torch.device,
    target: Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> FittedModel:
    """Read and validate cells, check memory, train, and save: see `Synthesizer.fit`."""
    if target is not None and not (target / checkpoint.RESUME).exists():
        checkpoint.check_output(target, overwrite)
    adata = read(source, layer)
    counts = count_matrix(adata)
    if counts.shape[0] < FEWEST_CELLS:
        seen = f"{counts.shape[0]} cells; a fit needs at least {FEWEST_CELLS}"
        raise DataError(f"X: {seen}: pass more cells")
    schema, codes = Schema.encode(adata.obs, labels)
    in_training = np.asarray(counts.sum(axis=0)).ravel() > 0
    genes = pd.DataFrame({"gene": adata.var_names.astype(str), "seen": in_training})
    fit = Fit(counts[:, in_training], codes, schema.sizes, config, seed, device)
    memory = estimate_memory(fit)
    memory.check()
    if target is not None:
        run = _fingerprint(counts, codes, schema, config, seed)
        fit = replace(fit, resume=checkpoint.resume_folder(target, run, overwrite))
    if progress:
        note(f"fit: {counts.shape[0]:,} cells x {counts.shape[1]:,} genes, {memory}")
    with progress_bars(progress) as bar:
        generator, history = replace(fit, bar=bar).run()
    model = FittedModel(generator, schema, genes, history, config, seed)
    if target is not None:
        model.save(target, overwrite=True)
    return model


def _fingerprint(
    counts: sp.csr_matrix, codes: np.ndarray, schema: Schema, config: Config, seed: int
) -> str:
    """Distinguishes fits, so that none continues from the state of another."""
    arrays = (counts.data, counts.indices, counts.indptr, codes)
    hashes = [hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() for array in arrays]
    settings = [__version__, seed, config.to_dict(), counts.shape]
    return json.dumps([*settings, hashes, schema.to_json()])
