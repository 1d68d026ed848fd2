"""What a fit will take, before it starts: a rehearsal with some of its own cells, on its own machine, is timed and scaled up.

No table of machine speeds is in here, and no second training step either: what is timed is `Fit.run`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from scld.config import Config, TrainingConfig
from scld.fitting import Fit, split
from scld.generator import PAGE, Generator
from scld.train import steps_a_round

_ROUNDS = 3  # of each network in a rehearsal; the first warms up and is not counted
_STEPS = (2, 8, 8)  # of each network in a round: those of the autoencoder take longest
_USUAL = (0.8, 0.8, 0.25)  # of the rounds of each network: what 15 fits of five data sets ran before they stopped, on average
_LOOK = 1 / 3  # of a step's time for a cell: a look at a held-out cell, without gradients
_STATES = 6  # of each weight: itself, its gradient, two moments, the average and the best
_STEP_COPIES, _LOOK_COPIES, _DRAW_COPIES = 10, 8, 10  # dense arrays [cells, genes] at once: of a batch, of held-out cells, of a page
_START_BYTES, _MADE_BYTES = 36, 32  # for each non-zero count: of the real cells in the start, of generated cells for the selector


@dataclass(frozen=True)
class Cost:
    """What a fit will take.

    Parameters
    ----------
    seconds
        Expected: networks usually stop learning before their last round.
    most_seconds
        If none does.
    memory
        Bytes at the peak: of the process, or of the GPU where the networks are on one.
    room
        Bytes that there are for it, what is taken already included; None where the system does not say.
    device
        Where the networks are.
    """

    seconds: float
    most_seconds: float
    memory: int
    room: int | None
    device: str

    def __str__(self) -> str:
        """In words.

        Examples
        --------
        >>> print(Cost(100, 230, 1_100_000_000, 8_000_000_000, "cpu"))
        about 2 min (at most 4), 1.1 GB of memory on cpu
        >>> print(Cost(20, 37, 9_000_000_000, 8_000_000_000, "cpu"))
        about 20 s (at most 37), 9.0 GB of memory on cpu, but only 8.0 GB are free: fit fewer cells or genes, or on a larger machine
        """
        unit, name = (3600, "h") if self.most_seconds > 7200 else (60, "min") if self.most_seconds > 120 else (1, "s")
        expected, most = (max(1, round(seconds / unit)) for seconds in (self.seconds, self.most_seconds))
        return f"about {expected} {name} (at most {most}), {self.memory / 1e9:.1f} GB of memory on {self.device}{self._lack()}"

    def _lack(self) -> str:
        if self.room is None or self.memory <= self.room:
            return ""
        return f", but only {self.room / 1e9:.1f} GB are free: fit fewer cells or genes, or on a larger machine"


@dataclass(frozen=True)
class _Work:
    """How much a fit has to do, by part, each in units of its own.

    Rounds go by cells seen, a look at a held-out one counted as a part of one; what is done between them by cells or pages.
    """

    rounds: tuple[float, ...]  # of each network, in one round
    between: tuple[float, ...]  # before each network, and after the last

    @classmethod
    def of(cls, fit: Fit) -> _Work:
        cells, config, selector = len(fit.codes), fit.config, fit.config.selector
        train, held_out = (len(part) for part in split(fit.codes, config.held_out, fit.seed))
        counts = ((train, held_out), (train, held_out), (1.6 * cells, 0.4 * cells))  # real and generated, for the critic
        rounds = tuple(
            steps_a_round(settings, int(learnt)) * settings.batch + _LOOK * spare * settings.validation_repeats
            for settings, (learnt, spare) in zip(_trainings(config), counts, strict=True)
        )
        made = (selector.generated + 1) * min(cells, selector.most_cells)
        return cls(rounds, (min(train, config.autoencoder.component_cells), cells, -(-cells // PAGE), made))

    def seconds(self, known: _Work, rounds: tuple[float, ...], between: tuple[float, ...]) -> tuple[list[float], float]:
        """Of one round of each network, and of all that is done between them, by what they took of less work."""
        scaled = [taken * much / little for taken, much, little in zip(rounds + between, self.rounds + self.between, known.rounds + known.between, strict=True)]
        return scaled[: len(rounds)], sum(scaled[len(rounds) :])


@dataclass
class _Times:
    """Seconds of the parts of a fit, by its progress bars."""

    clock: Callable[[], float]
    marks: list[list[float]]  # of each network: when it began, and when each of its rounds ended

    def bar(self, text: str, length: int) -> Callable[[int, str], None]:
        self.marks.append([self.clock()])
        return lambda done, said: self.marks[-1].append(self.clock())

    def rounds(self) -> tuple[float, ...]:
        """Of one round of each network, the first left out."""
        return tuple((marks[_ROUNDS] - marks[1]) / (_ROUNDS - 1) for marks in self.marks)

    def between(self, began: float, ended: float) -> tuple[float, ...]:
        """Before each network, and after the last."""
        begins, ends = [marks[0] for marks in self.marks], [marks[-1] for marks in self.marks]
        return tuple(begin - end for begin, end in zip([*begins, ended], [began, *ends], strict=True))


def cost(fit: Fit, clock: Callable[[], float] = time.perf_counter) -> Cost:
    """Rehearse a fit and say what it will take.

    Time is what some steps and one page or two of each kind took, times how many there will be. Memory is what the process has now,
    and what the largest stage of the fit adds by the sizes of its arrays. Neither the fit's random state nor its files are touched.

    Parameters
    ----------
    fit
        As it will be run, from its beginning.
    clock
        What tells seconds.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, torch
    >>> counts = sp.csr_matrix(np.random.default_rng(0).poisson(2.0, (300, 20)).astype(np.float32) + 1)
    >>> fit = Fit(counts, np.zeros((300, 0), np.int64), (), Config(), 0, torch.device("cpu"), None)
    >>> foreseen = cost(fit)
    >>> 0 < foreseen.seconds < foreseen.most_seconds
    True
    """
    _rehearse(_tiny(fit), clock)  # loads what a fit loads
    (taken, free), small = _resident_and_free(fit.device), _some(fit)
    generator, times, between = _rehearse(small, clock)
    of_round, rest = _Work.of(fit).seconds(_Work.of(small), times, between)
    trainings = _trainings(fit.config)
    usual = rest + sum(seconds * _usual_rounds(settings, share) for seconds, settings, share in zip(of_round, trainings, _USUAL, strict=True))
    most = rest + sum(seconds * settings.rounds for seconds, settings in zip(of_round, trainings, strict=True))
    return Cost(usual, most, taken + _added(fit, generator), None if free is None else taken + free, fit.device.type)


def _usual_rounds(settings: TrainingConfig, share: float) -> float:
    return max(share * settings.rounds, min(settings.rounds, settings.patience + 1))


def _trainings(config: Config) -> tuple[TrainingConfig, TrainingConfig, TrainingConfig]:
    return config.autoencoder_training, config.denoiser_training, config.critic_training


def _rehearse(fit: Fit, clock: Callable[[], float]) -> tuple[Generator, tuple[float, ...], tuple[float, ...]]:
    times, began = _Times(clock, []), clock()
    generator, _ = replace(fit, bar=times.bar, resume=None).run()
    return generator, times.rounds(), times.between(began, clock())


def _tiny(fit: Fit) -> Fit:
    """Hardly any cells."""
    few = min(len(fit.codes), 20)
    return replace(fit, counts=sp.csr_matrix(np.ones((few, 2), np.float32)), codes=fit.codes[:few], config=_shortened(fit.config))


def _some(fit: Fit) -> Fit:
    """A page of the cells, and some steps."""
    cells = np.sort(np.random.default_rng(fit.seed).permutation(len(fit.codes))[:PAGE])
    return replace(fit, counts=fit.counts[cells], codes=fit.codes[cells], config=_shortened(fit.config))


def _shortened(config: Config) -> Config:
    """Some steps of each network; nothing is learnt in them, so that no rate is too high for so few."""
    autoencoder, denoiser, critic = (
        replace(settings, rounds=_ROUNDS, steps=_ROUNDS * steps, epochs=1, patience=_ROUNDS, learning_rate=0.0)
        for settings, steps in zip(_trainings(config), _STEPS, strict=True)
    )
    selector = replace(config.selector, generated=1)
    return replace(config, autoencoder_training=autoencoder, denoiser_training=denoiser, critic_training=critic, selector=selector)


def _added(fit: Fit, generator: Generator) -> int:
    """Bytes that the largest stage of a fit adds; on a GPU are the networks alone."""
    networks = _network_bytes(fit, generator)
    return networks if fit.device.type == "cuda" else max(networks, _cell_bytes(fit))


def _network_bytes(fit: Fit, generator: Generator) -> int:
    """At the peak of training: weights, what Adam and the best round keep of them, and a batch or the held-out cells in all genes."""
    weights = sum(parameter.nbytes for parameter in generator.autoencoder.parameters())
    settings, genes = fit.config.autoencoder_training, fit.counts.shape[1]
    looked_at = min(4 * settings.batch, round(fit.config.held_out * len(fit.codes)) * settings.validation_repeats)
    return _STATES * weights + 4 * genes * max(_STEP_COPIES * settings.batch, _LOOK_COPIES * looked_at)


def _cell_bytes(fit: Fit) -> int:
    """At the peak of what is done with all cells: the principal components of the real ones, and the selector's generated ones."""
    cells, selector, nonzeros = len(fit.codes), fit.config.selector, fit.counts.nnz
    made = (selector.generated + 1) * min(cells, selector.most_cells) / cells * nonzeros
    page = 4 * _DRAW_COPIES * PAGE * fit.counts.shape[1] * torch.get_num_threads()
    return max(_START_BYTES * nonzeros, round(_MADE_BYTES * made) + page)


def _resident_and_free(device: torch.device) -> tuple[int, int | None]:
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device), torch.cuda.mem_get_info(device)[0]
    return _resident(), _free()


def _resident() -> int:
    """Bytes of memory that this process has; where the system does not say, those that it had at most."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ImportError:  # a system that says neither: what the fit adds is all that is known
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _free() -> int | None:
    """Bytes of memory that can be had; all of the machine's where the system says no more, None where it does not say that."""
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    if available:
        return available[0]
    known = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {})
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else None
