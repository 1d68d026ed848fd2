"""Is this version as fast as another one? Both run side by side on the same cells.

    python benchmarks/versions.py --other /path/to/other/src [--data-dir DIR] [--datasets NAME ...]
        [--parts training sampling] [--repeats 9] [--model MODEL]

Each version runs in a process of its own, with its source folder first in PYTHONPATH. The processes
take turns (this, other, this, other, ...), so that a busy machine slows both. The first turn of
each warms up and is not counted. Parts:

    training    steps/s of the autoencoder and of the denoiser, in `Synthesizer.fit`
    sampling    cells/s of `Synthesizer.sample`, without and with post-guidance

Both versions sample from the same model: --model, else one that the other version fits in a short
training, so the other version should be the older one. The table has medians over turns. "ratio"
is the ratio of the medians, this version to the other: above 1, this version is faster. The last
columns are quantiles of the ratios of single turns, which a load that comes and goes affects less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from common import LABEL, arguments, begin, load_cells

HERE = Path(__file__).resolve().parent
PARTS = ("training", "sampling")


class Version:
    """A process that runs one version of scld: see `version_worker`."""

    def __init__(self, name: str, source: Path) -> None:
        paths = [str(source), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "version_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        imported = Path(self.ask("source"))
        if not imported.is_relative_to(source):
            raise SystemExit(f"{name}: imported scld from {imported}, not from {source}")

    def ask(self, task: str, **options: Any) -> Any:
        """The answer of the process to one task."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"task": task, **options}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name}: {task} failed, see above")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def versions(other: Path) -> Iterator[tuple[Version, Version]]:
    """This version and the other one."""
    started: list[Version] = []
    try:
        for name, source in (("this", HERE.parent / "src"), ("other", other.resolve())):
            started.append(Version(name, source))
        yield started[0], started[1]
    finally:
        for version in started:
            version.close()


def compare(
    name: str, pair: Sequence[Version], folder: Path, given: argparse.Namespace
) -> list[dict[str, Any]]:
    """One row per rate of one dataset."""
    path, model = folder / f"{name}.h5ad", given.model or folder / f"{name}.scld"
    load_cells(name, given).write_h5ad(path)
    for version in pair:
        version.ask("load", data=str(path), label=LABEL)
    rows = []
    if "training" in given.parts:
        rows += ratios(turns("train", pair, given.repeats, steps=given.steps))
    if "sampling" in given.parts:
        if given.model is None:
            pair[1].ask("fit", model=str(model))
        for version in pair:
            version.ask("load_model", model=str(model))
        rows += ratios(turns("sample", pair, given.repeats, cells=given.cells))
    return [{"dataset": name, **row} for row in rows]


def turns(task: str, pair: Sequence[Version], repeats: int, **options: Any) -> list[pd.DataFrame]:
    """The rates of both versions, which take turns: one table ``[turns, rates]`` each."""
    answers: list[list[dict[str, float]]] = [[], []]
    for turn in range(1 + repeats):
        for version, rates in zip(pair, answers, strict=True):
            rates.append(version.ask(task, seed=turn, **options))
    return [pd.DataFrame(rates[1:]) for rates in answers]


def ratios(rates: Sequence[pd.DataFrame]) -> list[dict[str, Any]]:
    """One row per rate: its median in both versions, and their ratio."""
    this, other = rates
    medians = pd.DataFrame({"this": this.median(), "other": other.median()})
    quantiles = (this / other).quantile([0.25, 0.5, 0.75])
    return [
        {
            "rate": name,
            "this": f"{row['this']:,.1f}",
            "other": f"{row['other']:,.1f}",
            "ratio": f"{row['this'] / row['other']:.3f}",
            **{f"turns, {q:.0%}": f"{ratio:.3f}" for q, ratio in quantiles[name].items()},
        }
        for name, row in medians.iterrows()
    ]


def main() -> None:
    parser = arguments(__doc__, ["teaseq_pbmc"], seeds=[0], results=False)
    parser.add_argument("--other", type=Path, required=True, help="source folder of the other one")
    parser.add_argument("--model", type=Path, help="a checkpoint that both versions can load")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=9, help="turns of each version")
    parser.add_argument("--steps", type=int, default=100, help="training steps in a turn")
    parser.add_argument("--cells", type=int, default=4096, help="cells sampled in a turn")
    given = begin(parser)
    if given.quick:
        given.repeats, given.steps, given.cells = 2, 10, 256
    with tempfile.TemporaryDirectory() as folder, versions(given.other) as pair:
        print(f"threads: {pair[0].ask('threads')}\n", flush=True)
        rows = [row for name in given.datasets for row in compare(name, pair, Path(folder), given)]
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
