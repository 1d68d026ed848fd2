"""A source of cells -> a fitted model, saved where it is wanted."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch

from scld._version import __version__
from scld.config import Config
from scld.errors import DataError, listed
from scld.generation.fitted import FittedModel
from scld.io import checkpoint
from scld.io.disk import Counts, gene_totals, gene_variances, row_blocks, some_genes
from scld.io.pieces import Pieces
from scld.io.read import Source
from scld.progress import note, progress_bars
from scld.schema import Schema
from scld.training.memory import check_loading, estimate_memory, larger_than_memory
from scld.training.processes import Processes
from scld.training.stages import Fit

FEWEST_CELLS = 20
_FEW_CELLS, _FEW_OF_CATEGORY = 1000, 40  # below which quality falls: docs/planning.md
_MISSING_AS_TEXT = ("nan", "None", "<NA>", "NaT")  # what astype(str) makes of missing values


def fit_model(
    source: Source | Sequence[Source],
    layer: str | None,
    genes: str,
    stream: bool | None,
    devices: int,
    nodes: int,
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
    pieces = Pieces.of(source, layer, genes)
    if pieces.cells < FEWEST_CELLS:
        seen = f"{pieces.cells} cells; a fit needs at least {FEWEST_CELLS}"
        raise DataError(f"{pieces.place}: {seen}: pass more cells")
    if stream is None:
        stream = larger_than_memory(pieces.stored)
    elif not stream:
        check_loading(pieces.stored)
    schema, codes = Schema.encode(pieces.obs(labels), labels)
    batches = (config.autoencoder_training.batch, config.denoiser_training.batch)
    processes = Processes.start(devices, nodes, device, batches)
    if processes.number > 1 and device.type == "cuda":
        device = processes.fabric.device
    progress, stream = progress and processes.first, processes.of_first(stream)
    with _counts_of(pieces, stream, target, progress, processes) as counts:
        in_training = gene_totals(counts) > 0
        names = pd.DataFrame({"gene": pieces.genes, "seen": in_training})
        names = names.join(pieces.gene_annotation.reset_index(drop=True))
        fit = Fit(some_genes(counts, in_training), codes, schema.sizes, config, seed, device)
        memory = estimate_memory(fit)
        memory.check()
        if processes.first:
            _warn_of_labels(schema)
            _warn_of_steady_genes(names["gene"][in_training].to_numpy(), fit.counts)
        if target is not None:
            run = _fingerprint(counts, codes, schema, config, seed)
            if processes.first:
                checkpoint.resume_folder(target, run, overwrite)
            processes.wait()
            fit = replace(fit, resume=target / checkpoint.RESUME)
        if progress:
            where = ", counts read from a copy on disk" if stream else ""
            note(f"fit: {pieces.cells:,} cells x {len(names):,} genes, {memory}{where}")
            _note_few_cells(schema)
        with progress_bars(progress) as bar:
            generator, history = replace(fit, bar=bar, processes=processes).run()
        processes.wait()
    history["layer"] = layer
    model = FittedModel(generator, schema, names, history, config, seed)
    if target is not None and processes.first:
        model.save(target, overwrite=True)
    processes.wait()
    return model


def _warn_of_labels(schema: Schema) -> None:
    """Say which categories look like missing values, or have a single cell."""
    for label in schema.labels:
        cells = {str(name): int(n) for name, n in schema.category_cells(label.name).items()}
        texts = [name for name in cells if name in _MISSING_AS_TEXT]
        if texts and isinstance(label.categories[0], str):
            seen = f"{cells[texts[0]]:,} cells have the category {texts[0]!r}, as text"
            column = f"adata.obs[{label.name!r}]"
            advice = f"if it means missing: {column} = {column}.where({column} != {texts[0]!r})"
            warnings.warn(f"label {label.name!r}: {seen}; {advice}", stacklevel=4)
        single = [name for name, number in cells.items() if number == 1]
        if single:
            seen = f"categories with a single cell: {listed(single, 3)}"
            advice = "synthetic cells of these vary as those of others do; merge or drop them"
            warnings.warn(f"label {label.name!r}: {seen}; {advice}", stacklevel=4)


def _note_few_cells(schema: Schema) -> None:
    """Say when there is little to learn from."""
    cells = int(schema.cells.sum())
    if cells < _FEW_CELLS:
        note(f"fit: {cells:,} training cells are few: {_FEW_CELLS:,} or more give better cells")
    for label in schema.labels:
        sizes = schema.category_cells(label.name).items()
        small = [name for name, number in sizes if 1 < number < _FEW_OF_CATEGORY]
        if small:
            seen = f"fit: label {label.name!r}: few cells of {listed(small, 3)}"
            note(f"{seen}: {_FEW_OF_CATEGORY} or more keep the marker genes better")


def _warn_of_steady_genes(genes: np.ndarray, counts: Counts) -> None:
    """Say which genes vary less than a negative binomial can."""
    mean, variance = gene_totals(counts) / counts.shape[0], gene_variances(counts)
    chance = 5 * np.sqrt(2 / counts.shape[0])  # 5 standard errors of the ratio of both
    steady = (mean > 0.5) & (variance < min(0.4, 1 - chance) * mean)
    if steady.any():
        first = int(np.flatnonzero(steady)[0])
        example = (
            f"such as {genes[first]!r}, mean {mean[first]:.3g}, variance {variance[first]:.3g}"
        )
        seen = f"genes that vary less than counts of molecules do: {steady.sum():,} ({example})"
        advice = "their synthetic counts vary more; check that these are raw counts"
        warnings.warn(f"fit: {seen}; {advice}", stacklevel=4)


@contextmanager
def _counts_of(
    pieces: Pieces, stream: bool, target: Path | None, progress: bool, processes: Processes
) -> Iterator[Counts]:
    """The counts in memory, or in a folder beside the model that is removed at the end."""
    if not stream:
        yield pieces.in_memory()
        return
    with _folder_beside(target, processes) as temporary:
        with progress_bars(progress) as bar:
            update = bar("reading", pieces.cells)
            counts = pieces.on_disk(Path(temporary), update) if processes.first else None
        yield cast(Counts, processes.of_first(counts))


@contextmanager
def _folder_beside(target: Path | None, processes: Processes) -> Iterator[str]:
    """A folder for the copy, removed at the end; one of a killed fit of the same model is too."""
    if target is None or not processes.first:
        with tempfile.TemporaryDirectory(prefix="scld-") as temporary:
            yield temporary
        return
    folder = target.absolute().with_name(f".scld-{target.name}-counts")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fingerprint(
    counts: Counts, codes: np.ndarray, schema: Schema, config: Config, seed: int
) -> str:
    """Distinguishes fits, so that none continues from the state of another."""
    hashes = [hashlib.sha256() for _ in range(3)]
    for _, block in row_blocks(counts):
        for of_part, array in zip(hashes, (block.data, block.indices, block.indptr), strict=True):
            of_part.update(np.ascontiguousarray(array).data)
    of_codes = hashlib.sha256(np.ascontiguousarray(codes).data)
    digests = [part.hexdigest() for part in (*hashes, of_codes)]
    settings = [__version__, seed, config.to_dict(), counts.shape]
    return json.dumps([*settings, digests, schema.to_json()])
