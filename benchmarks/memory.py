"""Does a fit need as much memory as it says? The estimate beside the measured peak.

    python benchmarks/memory.py [--data-dir DIR] [--datasets NAME ...] [--seeds 0]

`scld.training.memory.estimate_memory` says before a fit how much memory it will add. Each fit runs
in a process of its own. What it added is the peak of the process (ru_maxrss) minus the memory in
use before the fit. A short fit of a few of the cells runs first, so that imported modules and
compiled code, which the estimate leaves out, are in memory already. A ratio above 1 is an estimate
above the measured peak: a fit that the check lets through then has the memory that it needs. With
small datasets the peak can be that of reading the cells.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import (
    LABEL,
    LABELS,
    arguments,
    begin,
    few_cells,
    in_own_process,
    load_cells,
    long_records,
    peak_memory,
    settings,
    write_results,
)

import scld
from scld.schema import Schema
from scld.training.memory import estimate_memory
from scld.training.stages import Fit


def measure(name: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """One row: estimate and measured peak of one fit."""
    labels, adata = LABELS.get(name, [LABEL]), load_cells(name, given)
    quick = scld.Config.preset("quick")
    scld.Synthesizer(labels, config=quick).fit(few_cells(adata), progress=False)
    counts, (schema, codes) = scld.data.count_matrix(adata), Schema.encode(adata.obs, labels)
    counts = counts[:, np.asarray(counts.sum(axis=0)).ravel() > 0]
    fit = Fit(counts, codes, schema.sizes, settings(given), seed, torch.device("cpu"))
    estimate, before = estimate_memory(fit).needed, memory_in_use()
    fit.run()
    added = max(1, peak_memory() - before)
    return {
        "dataset": name,
        "seed": seed,
        "cells": counts.shape[0],
        "genes": counts.shape[1],
        "before, MB": round(before / 1e6),
        "estimate, MB": round(estimate / 1e6),
        "added, MB": round(added / 1e6),
        "estimate / added": round(estimate / added, 2),
    }


def memory_in_use() -> int:
    """Bytes of this process now; its peak where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    resident = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")]
    return resident[0] if resident else peak_memory()


def main() -> None:
    given = begin(arguments(__doc__, ["mouse_endocrinogenesis", "pbmc3k", "teaseq_pbmc"], [0]))
    rows = []
    for name in given.datasets:
        for seed in given.seeds:
            rows.append(in_own_process(measure, name, seed, given))
            write_results("memory", long_records(rows[-1:], ["dataset", "seed"]), given)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
