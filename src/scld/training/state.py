"""The state of an unfinished training run, on disk: checked before anything is continued."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from scld.config import TrainingConfig
from scld.io.atomic import atomic_write
from scld.io.sealed import SUMS, SealedFolder, seal

_OPTIMIZER, _FILE = "optimizer", "state.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam, each of the shape of its parameter


@dataclass
class State:
    """How far a training run is.

    Parameters
    ----------
    interval
        Validation intervals done.
    best_interval
        The one with the lowest validation loss, from 0; -1 if there is none.
    seconds
        Wall time so far.
    validation
        Held-out loss after each interval.
    """

    interval: int = 0
    best_interval: int = -1
    seconds: float = 0.0
    validation: list[float] = field(default_factory=list)

    def continues(self, config: TrainingConfig) -> bool:
        """Whether another interval is to come."""
        without_gain = self.interval - max(self.best_interval, 0)
        return self.interval < config.intervals and without_gain <= config.patience

    @classmethod
    def of(cls, values: dict[str, Any], intervals: int) -> State:
        """From JSON; ``ValueError`` unless a run of so many intervals can be in this state."""
        if set(values) != {part.name for part in fields(cls)} or not cls(**values)._is_of(
            intervals
        ):
            raise ValueError(f"{_FILE} does not hold the state of a run of {intervals} intervals")
        return cls(**values)

    def _is_of(self, intervals: int) -> bool:
        return (
            type(self.interval) is type(self.best_interval) is int
            and 0 <= self.interval <= intervals
            and -1 <= self.best_interval < self.interval
            and isinstance(self.validation, list)
            and len(self.validation) == self.interval
            and all(isinstance(number, float) for number in [self.seconds, *self.validation])
        )


def save_state(
    folder: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, state: State
) -> None:
    """Save all that it takes to continue, atomically."""
    parts = {name: module.state_dict() for name, module in modules.items()}
    parts[_OPTIMIZER] = _tensors(optimizer)
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        for name, tensors in parts.items():
            plain = {key: tensor.contiguous() for key, tensor in tensors.items()}
            (temporary / f"{name}.safetensors").write_bytes(save(plain))
        (temporary / _FILE).write_text(json.dumps(asdict(state)))
        seal(temporary)


def load_state(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    intervals: int,
) -> State:
    """Load what `save_state` wrote into networks and optimiser.

    Raises
    ------
    ValueError
        It is damaged, or of other networks; nothing has changed then.
    """
    try:
        with SealedFolder.opened(folder) as files:
            if files.sums is None:
                raise ValueError(f"{SUMS} is missing")
            state = State.of(files.json(_FILE), intervals)
            names = [*modules, _OPTIMIZER]
            parts = {name: load(files.content(f"{name}.safetensors")) for name in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(str(error)) from error
    for name, module in modules.items():
        _check_same(name, parts[name], module.state_dict())
    values = _values(optimizer, parts[_OPTIMIZER])
    for name, module in modules.items():
        module.load_state_dict(parts[name])
    optimizer.load_state_dict(
        {"state": values, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    return state


def _check_same(name: str, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    if _shapes(found) != _shapes(wanted):
        raise ValueError(f"{name}.safetensors holds the weights of another network")


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {key: (tensor.dtype, tensor.shape) for key, tensor in tensors.items()}


def _tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of the optimiser: ``"index of the parameter.name"`` -> values."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def _values(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> dict[int, dict[str, Tensor]]:
    """The reverse of `_tensors`; ``ValueError`` if they are of other parameters."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    shapes = {f"{i}.step": torch.Size() for i in range(len(weights))}
    shapes |= {f"{i}.{name}": w.shape for i, w in enumerate(weights) for name in _MOMENTS}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if shapes.get(key) != tensor.shape:
            raise ValueError(f"{_OPTIMIZER}.safetensors is of another network")
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    if any(len(values) != 1 + len(_MOMENTS) for values in state.values()):
        raise ValueError(f"{_OPTIMIZER}.safetensors is of another network")
    return state
