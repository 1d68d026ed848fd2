"""The training of one network: averaged weights, early stopping, resuming.

Training runs in validation intervals. Everything random in an interval (noise, dropout) is seeded
by (seed, interval), and the order of the cells in an epoch by (seed, epoch). So a run that is
resumed at the start of an interval ends where an uninterrupted one does.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scld.config import TrainingConfig
from scld.errors import RequestError, one_line
from scld.progress import Update
from scld.training.processes import ALONE, Processes
from scld.training.recorded import Recorded
from scld.training.state import State, load_state, save_state

_AVERAGE_EVERY = 4  # steps: averaging all of them would change little, and cost time
Loss = Callable[[nn.Module, Tensor], Tensor]  # (module, cell indices) -> mean loss of these cells


@dataclass(frozen=True)
class TrainingHistory:
    """What a training run did.

    Parameters
    ----------
    validation
        Held-out loss after each validation interval.
    best_interval
        The interval with the lowest, counted from 0.
    steps
        Steps of the optimiser.
    seconds
        Wall time, interruptions left out.
    """

    validation: tuple[float, ...]
    best_interval: int
    steps: int
    seconds: float


def train(
    module: nn.Module,
    groups: list[dict[str, Any]],
    loss: Loss,
    cells: Tensor,
    held_out: Tensor,
    config: TrainingConfig,
    seed: int,
    resume: Path | None = None,
    progress: Update = lambda done, text: None,
    recorded: bool = False,
    processes: Processes = ALONE,
) -> TrainingHistory:
    """Train ``module`` in place; it ends with the averaged weights of its best interval.

    Parameters
    ----------
    module
        The network.
    groups
        Parameter groups for Adam; the ``lr`` of a group comes before that of ``config``.
    loss
        ``(module, cell indices) ->`` mean over these cells.
    cells, held_out
        Indices of the cells to train on and to validate with.
    config
        Rates, batch, intervals, patience.
    seed
        Of everything random.
    resume
        Folder for the state of the run, saved now and then and at its end, and continued from if
        it is there already. None keeps no state.
    progress
        Called with the number of intervals done and a short text.
    recorded
        Record a step as a CUDA graph and replay it. ``loss`` must then keep to the GPU: no copy to
        or from the host, the same shapes in each step.
    processes
        Those that train together: each takes a part of every batch, and all end with the same
        weights. The first one validates, and saves the state.

    Returns
    -------
    TrainingHistory
        Held-out loss by interval, and what the run took.
    """
    run = _Run.start(module, groups, loss, config, seed, recorded, processes)
    cells, held_out = cells.to(run.device), held_out.to(run.device)
    state = run.continued(resume) if resume is not None and resume.exists() else State()
    started, saved = time.monotonic() - state.seconds, time.monotonic()
    if state.interval:
        progress(state.interval, "continued from here")
    while state.continues(config):
        run.interval(state, cells, held_out)
        state.seconds = time.monotonic() - started
        progress(state.interval, f"validation loss {min(state.validation):.4g}")
        due = time.monotonic() - saved > config.save_seconds or not state.continues(config)
        if resume is not None and due and processes.first:
            run.save(resume, state)
            saved = time.monotonic()
    if state.best_interval < 0:
        advice = "lower learning_rate in the Config"
        raise RequestError(f"training: the validation loss is not a number; {advice}")
    progress(config.intervals, _outcome(state, config))
    module.load_state_dict(run.best.state_dict())
    module.eval()
    steps = state.interval * steps_per_interval(config, len(cells))
    return TrainingHistory(tuple(state.validation), state.best_interval, steps, state.seconds)


def _outcome(state: State, config: TrainingConfig) -> str:
    """The best loss, and why training ended before its last interval."""
    loss = f"validation loss {min(state.validation):.4g}"
    if state.interval == config.intervals:
        return loss
    return f"{loss}, stopped after interval {state.interval}: no gain in the last {config.patience}"


def steps_per_interval(config: TrainingConfig, cells: int) -> int:
    """Steps between two validations when training on so many cells."""
    steps = max(config.steps, config.epochs * cells // config.batch)
    return math.ceil(steps / config.intervals)


@dataclass(frozen=True)
class _Run:
    """The network in training, the averages of its weights, and the best of these so far."""

    module: nn.Module
    averaged: nn.Module
    best: nn.Module
    optimizer: torch.optim.Optimizer
    rates: list[float]
    loss: Loss
    config: TrainingConfig
    seed: int
    device: torch.device
    recorded: bool
    processes: Processes

    @classmethod
    def start(
        cls,
        module: nn.Module,
        groups: list[dict[str, Any]],
        loss: Loss,
        config: TrainingConfig,
        seed: int,
        recorded: bool,
        processes: Processes,
    ) -> _Run:
        averaged, best = (copy.deepcopy(module).eval() for _ in range(2))
        optimizer = torch.optim.Adam(
            groups, config.learning_rate, betas=(0.9, 0.99), fused=True, capturable=recorded
        )
        rates, device = [group["lr"] for group in optimizer.param_groups], device_of(module)
        if recorded:  # a graph reads them from the GPU
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"], device=device)
        of_run = (loss, config, seed, device, recorded, processes)
        return cls(module, averaged, best, optimizer, rates, *of_run)

    def interval(self, state: State, cells: Tensor, held_out: Tensor) -> None:
        """Train to the next validation, and validate."""
        number = steps_per_interval(self.config, len(cells))
        steps = range(state.interval * number, (state.interval + 1) * number)
        with torch.random.fork_rng():
            own = self.seed * 1_000_003 + state.interval + self.processes.rank * 2**40
            torch.manual_seed(own % 2**63)
            self._steps(cells, steps, total=self.config.intervals * number)
            torch.manual_seed(self.seed)  # the same noise in every validation
            found = self._validate(held_out) if self.processes.first else math.nan
            state.validation.append(self.processes.of_first(found))
        if state.validation[-1] < min(state.validation[:-1], default=math.inf):
            state.best_interval = state.interval
            self.best.load_state_dict(self.averaged.state_dict())
        state.interval += 1

    def _steps(self, cells: Tensor, steps: range, total: int) -> None:
        self.module.train()
        weights: list[Tensor] = list(self.module.parameters())
        averages: list[Tensor] = list(self.averaged.parameters())
        batches = shuffled_batches(cells, self.config.batch, steps, self.seed)
        update = self._recorded_update if self.recorded else self._update
        for step, batch in zip(steps, batches, strict=True):
            self._set_rates(1 - step / total)
            update(batch)
            if step % _AVERAGE_EVERY == 0:
                early = (1 + step) / (10 + step)  # the first weights, nearly random, count little
                decay = min(self.config.average, early) ** _AVERAGE_EVERY
                with torch.no_grad():
                    torch._foreach_lerp_(averages, weights, 1 - decay)

    def _set_rates(self, share: float) -> None:
        """The learning rates as a share of the first ones."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            if self.recorded:
                group["lr"].fill_(rate * share)
            else:
                group["lr"] = rate * share

    def _update(self, cells: Tensor) -> None:
        """One step of the optimiser."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.loss(self.module, self.processes.part(cells)))
        self.processes.average_gradients(self.module)
        nn.utils.clip_grad_norm_(list(self.module.parameters()), self.config.clip)
        self.optimizer.step()

    @cached_property
    def _recorded_update(self) -> Recorded:
        return Recorded(self._update)

    @torch.no_grad()
    def _validate(self, cells: Tensor) -> float:
        """Mean validation loss over cells and over several draws of the noise."""
        repeated = cells.repeat(self.config.validation_repeats)
        batches = torch.split(repeated, 4 * self.config.batch)
        losses = [len(batch) * self.loss(self.averaged, batch).double() for batch in batches]
        return float(sum(losses)) / len(repeated)

    @property
    def _modules(self) -> dict[str, nn.Module]:
        return {"module": self.module, "averaged": self.averaged, "best": self.best}

    def save(self, folder: Path, state: State) -> None:
        """Save all that it takes to continue."""
        save_state(folder, self._modules, self.optimizer, state)

    def continued(self, folder: Path) -> State:
        """The state that `save` wrote; of a damaged one nothing is used, and that is said."""
        try:
            return load_state(folder, self._modules, self.optimizer, self.config.intervals)
        except ValueError as error:
            if self.processes.first:
                seen = f"the state of an interrupted fit is damaged: {one_line(str(error))}"
                warnings.warn(f"{folder}: {seen}; this stage begins anew", stacklevel=3)
            return State()


def device_of(module: nn.Module) -> torch.device:
    """Where the parameters of a network are."""
    return next(module.parameters()).device


def shuffled_batches(cells: Tensor, size: int, steps: range, seed: int) -> Iterator[Tensor]:
    """The batches of these steps, each full; every cell once per epoch, in random order.

    Examples
    --------
    >>> batches = list(shuffled_batches(torch.arange(6), 4, range(3), seed=0))
    >>> sorted(torch.cat(batches)[:6].tolist()), [len(batch) for batch in batches]
    ([0, 1, 2, 3, 4, 5], [4, 4, 4])
    """
    epoch, order = -1, cells
    for step in steps:
        parts: list[Tensor] = []
        position, stop = step * size, (step + 1) * size
        while position < stop:
            if position // len(cells) != epoch:
                epoch = position // len(cells)
                permutation = np.random.default_rng([seed, epoch]).permutation(len(cells))
                order = cells[torch.from_numpy(permutation).to(cells.device)]
            start = position - epoch * len(cells)
            parts.append(order[start : start + stop - position])
            position += len(parts[-1])
        yield torch.cat(parts)
