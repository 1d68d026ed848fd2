"""The part of versions.py that runs inside one version of scld; any version, by its public API.

It reads one task per line as JSON from standard input, and answers each with one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import fields, is_dataclass
from typing import Any

SHORT_TRAINING = {"steps": 90, "epochs": 1, "rounds": 3, "intervals": 3}
SMALL_DISCRIMINATOR = {"trees": 20, "generated": 1, "most_cells": 500, "max_cells": 500}
ONE_STEP = {"steps": 1, "epochs": 1, "rounds": 1, "intervals": 1}
TINY_DISCRIMINATOR = {"trees": 1, "generated": 1, "most_cells": 50, "max_cells": 50}
TRAINED = ("autoencoder", "denoiser")


class Worker:
    """One version of scld, with cells to fit and a model to sample from."""

    def __init__(self) -> None:
        self.cells: Any = None
        self.label = ""
        self.synth: Any = None

    def source(self) -> str:
        """Where scld is imported from."""
        import scld

        return os.path.realpath(scld.__file__)

    def threads(self) -> int:
        """Threads that torch uses."""
        import torch

        return torch.get_num_threads()

    def load(self, data: str, label: str) -> None:
        """Read the cells to fit."""
        import scld

        self.cells, self.label = scld.data.read(data), label

    def fit(self, model: str) -> None:
        """Fit a model to sample from in a short training, and save it."""
        import scld

        selecting = {"sampling": {"post": "select"}}
        config = settings(SHORT_TRAINING, SMALL_DISCRIMINATOR, selecting)
        synth = scld.Synthesizer(self.label, config=config).fit(self.cells, progress=False)
        synth.save(model)

    def load_model(self, model: str) -> None:
        """Load the model to sample from."""
        import scld

        self.synth = scld.load(model)

    def train(self, steps: int, seed: int) -> dict[str, float]:
        """Steps/s of each network in a fit whose other stages are as short as can be."""
        import scld

        timed = {f"{name}_training": {"steps": steps} for name in TRAINED}
        rest = {"held_out": 1e-9, "sampling": {"steps": 1}}
        config = settings(ONE_STEP, TINY_DISCRIMINATOR, timed, rest)
        synth = scld.Synthesizer(self.label, config=config, seed=seed)
        summary = synth.fit(self.cells, progress=False).summary
        rates = {name: summary[name]["steps"] / summary[name]["seconds"] for name in TRAINED}
        return {f"training the {name}, steps/s": rate for name, rate in rates.items()}

    def sample(self, cells: int, seed: int) -> dict[str, float]:
        """Cells/s of sampling, without and with post-guidance."""
        names = {"off": "sampling, cells/s", "select": "sampling with post-guidance, cells/s"}
        rates = {}
        for post, name in names.items():
            started = time.perf_counter()
            self.synth.sample(cells, post=post, seed=seed, progress=False)
            rates[name] = cells / (time.perf_counter() - started)
        return rates


def settings(
    training: dict[str, int],
    discriminator: dict[str, int],
    *changes: dict[str, Any],
) -> Any:
    """Settings by the names that this version knows, and further changes to them."""
    import scld

    values: dict[str, Any] = {}
    for entry in fields(scld.Config):
        section = getattr(scld.Config(), entry.name)
        if entry.name.endswith("_training"):
            values[entry.name] = known(section, training)
        elif entry.name in ("selector", "discriminator"):
            values[entry.name] = known(section, discriminator)
    for change in changes:
        for name, value in change.items():
            values[name] = values.get(name, {}) | value if isinstance(value, dict) else value
    return scld.Config.from_dict(values)


def known(section: Any, values: dict[str, int]) -> dict[str, int]:
    """The values whose names this section has."""
    assert is_dataclass(section)
    names = {entry.name for entry in fields(section)}
    return {name: value for name, value in values.items() if name in names}


def main() -> None:
    worker, answers = Worker(), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints to standard output goes to standard error
    for line in sys.stdin:
        task = json.loads(line)
        answer = getattr(worker, task.pop("task"))(**task)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
