"""The stages of a fit: autoencoder, latents, denoiser, calibration, discriminator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from scld.config import Config
from scld.generation.generator import Generator, build_networks
from scld.generation.latent_map import LatentMap
from scld.generation.latent_shift import CombinationMeans
from scld.generation.options import SamplingOptions
from scld.generation.post_guidance import Discriminator, Examples, LabelledCells
from scld.generation.request import SamplingRequest
from scld.io.disk import Counts, DiskCounts, some_rows
from scld.kernels.parallel import single_threaded_torch
from scld.model.autoencoder import Autoencoder, Batch, DeviceCells
from scld.model.denoiser import Denoiser
from scld.model.latents import Latents
from scld.preprocessing import split_rows
from scld.progress import Bar
from scld.training.calibration import calibrate_latents, calibrate_means, calibrate_spread
from scld.training.loop import TrainingHistory, train
from scld.training.processes import ALONE, Processes

_RARE = 20  # a category with fewer cells keeps all of them for training


def _no_bar(name: str, total: int) -> Callable[[int, str], None]:
    return lambda done, text: None


@dataclass(frozen=True)
class Fit:
    """One fit: cells, settings, and where its state is kept.

    Parameters
    ----------
    counts
        ``[cells, genes]``, a count of each gene at least; in memory or on disk.
    codes
        Labels ``[cells, labels]``.
    sizes
        Number of categories of each label.
    config
        Settings.
    seed
        Of everything random.
    device
        Where the networks are trained.
    resume
        Folder for the state of an unfinished fit, or None.
    bar
        Starts a progress bar.
    processes
        Those that train together.
    """

    counts: Counts
    codes: np.ndarray
    sizes: tuple[int, ...]
    config: Config
    seed: int
    device: torch.device
    resume: Path | None = None
    bar: Bar = _no_bar
    processes: Processes = ALONE

    @property
    def post_guided(self) -> bool:
        """Whether the discriminator of post-guidance is trained as well."""
        return self.config.sampling.post == "select"

    def _title(self, stage: int, name: str) -> str:
        return f"{stage}/{3 + self.post_guided} {name}"

    def run(self) -> tuple[Generator, dict[str, Any]]:
        """Train everything; return the generator and the training history, as plain values."""
        with torch.random.fork_rng(), torch.enable_grad(), single_threaded_torch():
            torch.manual_seed(self.seed)
            networks = build_networks(self.counts.shape[1], self.sizes, self.config)
            autoencoder, denoiser = networks
            cells, held_out = held_out_split(self.codes, self.config.held_out, self.seed)
            first = self._train_autoencoder(autoencoder, cells, held_out)
            latents = Latents.of(autoencoder, self.counts, self.codes, self.device)
            second = self._train_denoiser(denoiser, latents, cells, held_out)
            generator = self._generator(autoencoder, denoiser, latents)
            generator = self._calibrate(generator, latents)
            if self.post_guided:
                discriminator = self._fit_discriminator(generator, cells, held_out)
                generator = replace(generator, discriminator=discriminator)
        history = {"autoencoder": asdict(first), "denoiser": asdict(second)}
        summary = {"cells": self.counts.shape[0], **history}
        return generator, summary

    def _train_autoencoder(
        self, autoencoder: Autoencoder, cells: Tensor, held_out: Tensor
    ) -> TrainingHistory:
        rows = cells.numpy()
        counts = some_rows(self.counts, rows)
        autoencoder.start_from(counts, self.codes[rows]).to(self.device)
        batch_of = self._batches()

        def loss(module: nn.Module, picked: Tensor) -> Tensor:
            return module.loss(batch_of(picked))  # type: ignore[operator, no-any-return]

        rate = self.config.autoencoder_training.learning_rate
        groups = autoencoder.parameter_groups(rate)
        return self._train("autoencoder", 1, autoencoder, groups, loss, cells, held_out)

    def _batches(self) -> Callable[[Tensor], Batch]:
        """Indices of cells -> a batch of them; on a GPU all counts are there, if in memory."""
        if self.device.type != "cpu" and not isinstance(self.counts, DiskCounts):
            return DeviceCells.of(self.counts, self.codes, self.device).batch

        def batch_of(picked: Tensor) -> Batch:
            rows = np.sort(picked.cpu().numpy())
            return Batch.of(self.counts[rows], self.codes[rows], self.device)

        return batch_of

    def _train_denoiser(
        self, denoiser: Denoiser, latents: Latents, cells: Tensor, held_out: Tensor
    ) -> TrainingHistory:
        dropout = self.config.denoiser.label_dropout

        def loss(module: nn.Module, picked: Tensor) -> Tensor:
            return latents.loss(module, picked, dropout).mean()

        groups = [{"params": list(denoiser.to(self.device).parameters())}]
        return self._train("denoiser", 2, denoiser, groups, loss, cells, held_out)

    def _train(
        self,
        name: str,
        stage: int,
        module: nn.Module,
        groups: list[dict[str, Any]],
        loss: Callable[[nn.Module, Tensor], Tensor],
        cells: Tensor,
        held_out: Tensor,
    ) -> TrainingHistory:
        settings = getattr(self.config, f"{name}_training")
        resume = None if self.resume is None else self.resume / name
        update = self.bar(self._title(stage, name), settings.intervals)
        from_disk = name == "autoencoder" and isinstance(self.counts, DiskCounts)
        alone = self.processes.number == 1
        recorded = self.device.type == "cuda" and alone and not from_disk
        of_run = (settings, self.seed, resume, update, recorded, self.processes)
        return train(module, groups, loss, cells, held_out, *of_run)

    def _generator(
        self, autoencoder: Autoencoder, denoiser: Denoiser, latents: Latents
    ) -> Generator:
        log_library = latents.mean[:, -1]
        library = torch.stack([log_library.min(), log_library.max()])
        means = CombinationMeans.of(latents.points(), self.codes)
        identity = LatentMap.identity(len(means.cells), len(latents.centre)).to(self.device)
        standard = (latents.centre, latents.scale, library)
        return Generator(autoencoder, denoiser, *standard, means, identity)

    def _calibrate(self, generator: Generator, latents: Latents) -> Generator:
        """Give generated cells the spread, then the means, that real cells have."""
        settings, random = self.config.autoencoder, np.random.default_rng(self.seed)
        update = self.bar(self._title(3, "calibration"), 3)
        if settings.spread_cells:
            options = self._options(number=4, guidance=1.0)
            arguments = (latents, options, settings.spread_cells, self.seed)
            generator = calibrate_latents(generator, *arguments)
            update(1, "")
            rows = _sample(np.arange(len(self.codes)), settings.spread_cells, random)
            real = self._real(rows)
            options = self._options(number=1, guidance=1.0)
            calibrate_spread(generator, real.counts, real.codes, options)
        update(2, "")
        if settings.calibration_cells and self.sizes:
            options = self._options(number=3, guidance=1.0)
            calibrate_means(generator, self.counts, self.codes, options, settings.calibration_cells)
        update(3, "")
        return generator

    def _fit_discriminator(
        self, generator: Generator, cells: Tensor, held_out: Tensor
    ) -> Discriminator:
        """Train on real and generated cells with the same labels.

        The first of the generated cells give the components, the others are compared.
        """
        config, random = self.config.discriminator, np.random.default_rng(self.seed)
        seen, unseen = (
            _sample(part.numpy(), config.max_cells, random) for part in (cells, held_out)
        )
        rows = np.concatenate(
            [seen, np.tile(seen, config.generated), np.tile(unseen, config.generated)]
        )
        generated = LabelledCells(self._generate(generator, self.codes[rows]), self.codes[rows])
        first, second = len(seen), len(seen) * (1 + config.generated)
        training = Examples(self._real(seen), _part(generated, first, second))
        validation = Examples(self._real(unseen), _part(generated, second, len(rows)))
        reference = generated.counts[:first]
        return Discriminator.fit(reference, training, validation, config, self.seed)

    def _generate(self, generator: Generator, codes: np.ndarray) -> sp.csr_matrix:
        """Cells at default settings, with a seed that no request is likely to have."""
        options = self._options(number=2)
        update = self.bar(self._title(4, "post-guidance"), -(-len(codes) // generator.page_size))
        pages = []
        for page in generator.pages(SamplingRequest(codes), options):
            pages.append(page.counts)
            update(len(pages), "")
        return sp.csr_matrix(sp.vstack(pages, format="csr"))

    def _options(self, number: int, guidance: float | None = None) -> SamplingOptions:
        """The settings, without post-guidance, at another guidance weight if one is given."""
        labels = [str(i) for i in range(len(self.sizes))]
        keywords = {"post": "off", "seed": (2**62 + self.seed * 8 + number) % 2**63}
        if guidance is not None:
            keywords["guidance"] = dict.fromkeys(labels, guidance)
        return SamplingOptions.of(keywords, labels, self.config.sampling)

    def _real(self, rows: np.ndarray) -> LabelledCells:
        return LabelledCells(self.counts[rows], self.codes[rows])


def held_out_split(codes: np.ndarray, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Cells to train on and cells to validate with; none of a rare category, unless all are rare.

    Parameters
    ----------
    codes
        Labels ``[cells, labels]``.
    share
        Share of the other cells to hold out, one cell at least.
    seed
        Of the split.
    """
    smallest = np.full(len(codes), len(codes))  # cells of the rarest category that a cell has
    for column in codes.T:
        _, category, cells = np.unique(column, return_inverse=True, return_counts=True)
        smallest = np.minimum(smallest, cells[category])
    eligible = smallest >= min(_RARE, smallest.max())
    share = max(share, 1 / eligible.sum())
    cells, held_out = split_rows(np.where(eligible, 0, -1), share, seed)
    return torch.from_numpy(cells), torch.from_numpy(held_out)


def _sample(rows: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    return np.sort(random.choice(rows, min(len(rows), most), replace=False))


def _part(cells: LabelledCells, first: int, stop: int) -> LabelledCells:
    return LabelledCells(cells.counts[first:stop], cells.codes[first:stop])
