"""One training loop for anything with a loss per cell: averaged weights, early stopping, resuming.

A run goes in rounds. Everything random in a round (order of cells, noise, dropout) is seeded by (seed, round), so a run
that is interrupted and resumed at a round's start ends where the uninterrupted one does.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scld.aside import written_aside
from scld.config import TrainingConfig
from scld.errors import RequestError

_AVERAGED = 4  # steps between two weights that enter the average: all would change little, and cost time
Loss = Callable[[nn.Module, Tensor], Tensor]  # (module, cell indices) -> mean loss of these cells


@dataclass(frozen=True)
class Course:
    """What a training run did, round by round."""

    validation: tuple[float, ...]
    best_round: int
    steps: int
    seconds: float


@dataclass
class _State:
    round: int = 0
    best_round: int = -1
    seconds: float = 0.0
    validation: list[float] = field(default_factory=list)


def train(
    module: nn.Module,
    groups: list[dict[str, Any]],
    loss: Loss,
    cells: Tensor,
    held_out: Tensor,
    config: TrainingConfig,
    seed: int,
    resume: Path | None = None,
    progress: Callable[[int, str], None] = lambda done, text: None,
) -> Course:
    """Train ``module`` in place; it ends with the averaged weights of its best round on the held-out cells.

    Parameters
    ----------
    module
        What to train.
    groups
        Parameter groups for Adam; a group's own ``lr`` or ``weight_decay`` stands beside those of ``config``.
    loss
        ``(module, cell indices) ->`` mean over these cells.
    cells, held_out
        Indices of the cells to train on and to stop by.
    config
        Rates, batch, rounds, patience.
    seed
        Of everything random.
    resume
        Where the state of the run is kept now and then, and at its end, and taken up from if it is there already; None keeps none.
    progress
        Called with the number of rounds done and a short text.

    Returns
    -------
    Course
        Held-out loss by round, and what the run took.
    """
    averaged, best = copy.deepcopy(module).eval(), copy.deepcopy(module).eval()
    optimizer = torch.optim.Adam(groups, lr=config.learning_rate, betas=(0.9, 0.99), fused=True)
    state = _State()
    if resume is not None and resume.exists():
        state = _load_state(resume, module, averaged, best, optimizer)
    steps = steps_a_round(config, len(cells))
    rates = [group["lr"] for group in optimizer.param_groups]
    started, saved = time.monotonic() - state.seconds, time.monotonic()
    while _goes_on(state, config):
        with torch.random.fork_rng():
            torch.manual_seed((seed * 1_000_003 + state.round) % 2**63)
            _run_round(module, averaged, optimizer, rates, loss, cells, range(state.round * steps, (state.round + 1) * steps), config)
            torch.manual_seed(seed)  # the same noise every time: rounds differ by their weights alone
            state.validation.append(_mean_loss(averaged, loss, held_out, config))
        if state.validation[-1] < min(state.validation[:-1], default=math.inf):
            state.best_round = state.round
            best.load_state_dict(averaged.state_dict())
        state.round += 1
        state.seconds = time.monotonic() - started
        progress(state.round, f"held-out loss {min(state.validation):.4g}")
        if resume is not None and (time.monotonic() - saved > config.save_seconds or not _goes_on(state, config)):
            _save_state(resume, state, module, averaged, best, optimizer)
            saved = time.monotonic()
    if state.best_round < 0:
        raise RequestError(f"training: the held-out loss was never a number (rounds: {state.validation[-3:]}); lower learning_rate in the Config")
    progress(config.rounds, f"held-out loss {min(state.validation):.4g}, best of {state.round} rounds")
    module.load_state_dict(best.state_dict())
    module.eval()
    return Course(tuple(state.validation), state.best_round, state.round * steps, state.seconds)


def steps_a_round(config: TrainingConfig, cells: int) -> int:
    """Steps in a round of training on so many cells."""
    return math.ceil(max(config.steps, config.epochs * cells // config.batch) / config.rounds)


def _goes_on(state: _State, config: TrainingConfig) -> bool:
    return state.round < config.rounds and state.round - max(state.best_round, 0) <= config.patience


def _run_round(
    module: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    rates: list[float],
    loss: Loss,
    cells: Tensor,
    steps: range,
    config: TrainingConfig,
) -> None:
    module.train()
    total = config.rounds * len(steps)
    weights: list[Tensor] = list(module.parameters())
    averages: list[Tensor] = list(averaged.parameters())
    for step, batch in zip(steps, _batches(cells, config.batch), strict=False):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - step / total)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss(module, batch))
        nn.utils.clip_grad_norm_(weights, config.clip)
        optimizer.step()
        if step % _AVERAGED == 0:
            decay = min(config.average, (1 + step) / (10 + step)) ** _AVERAGED  # the first weights, nearly random, are soon forgotten
            with torch.no_grad():
                torch._foreach_lerp_(averages, weights, 1 - decay)


def _batches(cells: Tensor, size: int) -> Iterator[Tensor]:
    """Shuffled batches without end, each full; every cell once before any twice."""
    rest = cells[:0]
    while True:
        while len(rest) < size:
            rest = torch.cat([rest, cells[torch.randperm(len(cells))]])
        yield rest[:size]
        rest = rest[size:]


@torch.no_grad()
def _mean_loss(module: nn.Module, loss: Loss, cells: Tensor, config: TrainingConfig) -> float:
    """Mean over cells and over several draws of the noise."""
    repeated = cells.repeat(config.validation_repeats)
    batches = torch.split(repeated, 4 * config.batch)
    return sum(len(batch) * float(loss(module, batch)) for batch in batches) / len(repeated)


def _save_state(folder: Path, state: _State, *parts: nn.Module | torch.optim.Optimizer) -> None:
    with written_aside(folder) as place:
        place.mkdir()
        for i, part in enumerate(parts):
            save_file(_flat(part), place / f"{i}.safetensors")
        (place / "state.json").write_text(json.dumps(state.__dict__))


def _load_state(folder: Path, *parts: Any) -> _State:
    for i, part in enumerate(parts):
        tensors = load_file(folder / f"{i}.safetensors")
        part.load_state_dict(_nested(part, tensors) if isinstance(part, torch.optim.Optimizer) else tensors)
    return _State(**json.loads((folder / "state.json").read_text()))


def _flat(part: nn.Module | torch.optim.Optimizer) -> dict[str, Tensor]:
    if isinstance(part, nn.Module):
        return {name: tensor.contiguous() for name, tensor in part.state_dict().items()}
    return {f"{index}.{name}": torch.as_tensor(value) for index, values in part.state_dict()["state"].items() for name, value in values.items()}


def _nested(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
