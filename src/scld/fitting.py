"""Counts and labels -> the fitted parts: autoencoder, denoiser, and the two critics of what these generate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from scld.autoencoder import Autoencoder, Batch, drop_labels
from scld.config import Config
from scld.critic import Critic
from scld.denoiser import Denoiser
from scld.generator import PAGE, Generator, Plan
from scld.latents import Latents
from scld.sampler import schedule
from scld.selector import Selector, Sides
from scld.shift import Means
from scld.train import Course, train

_SPARE_NONE_BELOW = 20  # a category with fewer cells keeps all of them for training
Bar = Callable[[str, int], Callable[[int, str], None]]  # (text, length) -> update(done, text)


@dataclass(frozen=True)
class Fit:
    """One fit: the cells, the settings, and where its state is kept.

    Parameters
    ----------
    counts
        ``[cells, genes]``, each gene seen.
    codes
        Labels ``[cells, labels]``.
    sizes
        Number of categories of each label.
    resume
        Folder for the state of an unfinished fit, or None.
    bar
        Makes a progress bar.
    """

    counts: sp.csr_matrix
    codes: np.ndarray
    sizes: tuple[int, ...]
    config: Config
    seed: int
    device: torch.device
    resume: Path | None
    bar: Bar = lambda text, length: lambda done, said: None

    def run(self) -> tuple[Generator, dict[str, Any]]:
        """Train everything; the parts, and what their training did."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            cells, held_out = split(self.codes, self.config.held_out, self.seed)
            autoencoder, first = self._autoencoder(cells, held_out)
            latents = Latents.of(autoencoder, self.counts, self.codes, self.device)
            denoiser, second = self._denoiser(latents, cells, held_out)
            library = (float(latents.mean[:, -1].min()), float(latents.mean[:, -1].max()))
            means = Means.of(latents.points(), self.codes)
            generator = Generator(autoencoder, denoiser, latents.centre, latents.scale, library, means=means)
            critic, third = self._critic(generator, latents)
            if min(third.validation) >= math.log(2):  # the loss of a guess: a critic that does no better would lead astray
                critic.silence()
            generator = replace(generator, critic=critic, selector=self._selector(generator, cells, held_out))
        courses = {"autoencoder": asdict(first), "denoiser": asdict(second), "critic": asdict(third)}
        return generator, {"cells": self.counts.shape[0], "log_library": library, **courses}

    def _autoencoder(self, cells: Tensor, held_out: Tensor) -> tuple[Autoencoder, Course]:
        settings = self.config.autoencoder_training
        autoencoder = Autoencoder(self.counts.shape[1], self.sizes, self.config.autoencoder).start_from(self.counts[cells.numpy()]).to(self.device)

        def loss(module: nn.Module, picked: Tensor) -> Tensor:
            rows = np.sort(picked.numpy())
            return module.loss(Batch.of(self.counts[rows], self.codes[rows], self.device))  # type: ignore[operator, no-any-return]

        groups, update = autoencoder.parameter_groups(settings.learning_rate), self.bar("1/3 autoencoder", settings.rounds)
        return autoencoder, train(autoencoder, groups, loss, cells, held_out, settings, self.seed, self._part("autoencoder"), update)

    def _denoiser(self, latents: Latents, cells: Tensor, held_out: Tensor) -> tuple[Denoiser, Course]:
        config, settings = self.config.denoiser, self.config.denoiser_training
        denoiser = Denoiser(len(latents.centre), self.sizes, config).to(self.device)

        def loss(module: nn.Module, picked: Tensor) -> Tensor:
            return latents.loss(module, picked.to(self.device), config.label_dropout).mean()

        groups, update = [{"params": list(denoiser.parameters())}], self.bar("2/3 denoiser", settings.rounds)
        return denoiser, train(denoiser, groups, loss, cells, held_out, settings, self.seed, self._part("denoiser"), update)

    def _critic(self, generator: Generator, latents: Latents) -> tuple[Critic, Course]:
        """Real latent points, drawn anew each time, against as many generated ones, with the same labels."""
        config, settings, count = self.config.critic, self.config.critic_training, len(latents.labels)
        critic = Critic(len(latents.centre), self.sizes, config).to(self.device)
        pages = [generator.latents(page, self.codes[page * PAGE :][:PAGE], self._plan(1)) for page in range(-(-count // PAGE))]
        generated = torch.cat(pages)[:count]

        def loss(module: nn.Module, picked: Tensor) -> Tensor:
            real, picked = (picked < count).to(self.device), (picked % count).to(self.device)
            points = torch.where(real[:, None], latents.draw(picked), generated[picked])
            sigma = generator.denoiser.noise_levels(torch.rand(len(points), device=self.device).clamp(1e-4, 1 - 1e-4))
            labels = drop_labels(latents.labels[picked], config.label_dropout)
            noisy = points + sigma[:, None] * torch.randn_like(points)
            return module.loss(noisy, sigma, labels, real.to(points)).mean()  # type: ignore[operator, no-any-return]

        cells, held_out = split(np.zeros((2 * count, 0), np.int64), 0.2, self.seed)
        groups, update = [{"params": list(critic.parameters()), "weight_decay": 1e-3}], self.bar("3/3 critics", settings.rounds)
        return critic, train(critic, groups, loss, cells, held_out, settings, self.seed, self._part("critic"), update)

    def _selector(self, generator: Generator, cells: Tensor, held_out: Tensor) -> Selector:
        """Finished cells against real ones: the first of the generated ones give the components, the others are told from real ones."""
        config, random = self.config.selector, np.random.default_rng(self.seed)
        some = [np.sort(random.choice(part.numpy(), min(len(part), config.most_cells), replace=False)) for part in (cells, held_out)]
        copies = (config.generated + 1, config.generated)
        codes = np.concatenate([np.tile(self.codes[part], (number, 1)) for part, number in zip(some, copies, strict=True)])
        made = sp.csr_matrix(sp.vstack(list(generator.pages(codes, self._plan(2))), format="csr"))
        ends = (len(some[0]), len(some[0]) * copies[0])
        spans = (slice(*ends), slice(ends[1], None))
        seen, unseen = (Sides(self.counts[part], made[span], self.codes[part], codes[span]) for part, span in zip(some, spans, strict=True))
        return Selector.of(made[: ends[0]], seen, unseen, config, self.seed)

    def _plan(self, stream: int) -> Plan:
        """Cells at default settings, of a seed that no request is likely to have."""
        sampling = self.config.sampling
        sigmas = schedule(sampling.steps, sampling.sigma_max)
        interval = (sampling.guidance_low, sampling.guidance_high)
        return Plan(sigmas, (sampling.guidance,) * len(self.sizes), (2**62 + self.seed * 4 + stream) % 2**63, interval)

    def _part(self, name: str) -> Path | None:
        return None if self.resume is None else self.resume / name


def split(codes: np.ndarray, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Cells to train on, and cells to stop by: none of a rare category, unless all are rare."""
    rarest = np.full(len(codes), len(codes))
    for column in codes.T:
        _, category, cells = np.unique(column, return_inverse=True, return_counts=True)
        rarest = np.minimum(rarest, cells[category])
    spare = np.flatnonzero(rarest >= min(_SPARE_NONE_BELOW, rarest.max()))
    held_out = np.random.default_rng(seed).choice(spare, size=max(1, round(share * len(spare))), replace=False)
    return torch.from_numpy(np.setdiff1d(np.arange(len(codes)), held_out)), torch.from_numpy(np.sort(held_out))
