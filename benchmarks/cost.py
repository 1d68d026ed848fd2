"""What a fit says it will take, and what it takes: time, and peak memory of its process.

    python benchmarks/cost.py --data-dir DIR [--sets NAME ...] [--seeds 0] [--processor]

Each fit has a process of its own, since peak memory is a process's. On a machine that others use too, --processor counts the time of the processor
in place of that on the clock: with one thread (OMP_NUM_THREADS=1) it is what the fit would take alone.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import LABEL, LABELS, arguments, begin, settings

import scld
from scld.cost import cost
from scld.fitting import Fit
from scld.schema import Schema


def measure(name: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Foretell one fit, and run it."""
    clock = time.process_time if given.processor else time.perf_counter
    adata = scld.data.read(given.data_dir / f"{name}.h5ad")
    schema, counts = Schema.of(adata.obs, LABELS.get(name, [LABEL])), scld.data.count_matrix(adata)
    counts = counts[:, np.asarray(counts.sum(axis=0)).ravel() > 0]
    fit = Fit(counts, schema.codes(adata.obs), schema.sizes, settings(given), seed, torch.device("cpu"), None)
    started = clock()
    foretold = cost(fit, clock)
    print(f"{name}, seed {seed}: {foretold}", flush=True)
    between = clock()
    fit.run()
    took, peak = clock() - between, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "set": name,
        "cells x genes": f"{counts.shape[0]:,} x {counts.shape[1]:,}",
        "asking, s": round(between - started, 1),
        "expected, s": round(foretold.seconds),
        "at most, s": round(foretold.most_seconds),
        "took, s": round(took),
        "expected / took": round(foretold.seconds / took, 2),
        "memory, MB": round(foretold.memory / 1e6),
        "peak, MB": round(peak / 1e6),
        "memory / peak": round(foretold.memory / peak, 2),
    }


def main() -> None:
    parser = arguments(__doc__, ["mouse_endocrinogenesis", "pbmc3k"], [0])
    parser.add_argument("--processor", action="store_true", help="time of the processor in place of that on the clock")
    given = begin(parser)
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as alone:
        rows = [alone.submit(measure, name, seed, given).result() for name in given.sets for seed in given.seeds]
    print(f"\n{pd.DataFrame(rows).to_string(index=False)}")


if __name__ == "__main__":
    main()
