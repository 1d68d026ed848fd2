"""What does a GPU give? Fits and samples on the GPU and on the CPU of one machine, beside SCVI.

    python benchmarks/gpu.py [--data-dir DIR] [--datasets NAME ...] [--seeds 0]
        [--devices cuda cpu] [--cells 20000] [--results FOLDER]

A dataset is split 70/30 within type. SCLD is fitted on the training part at default settings on
each device, and generates cells, in memory. SCVI has the latent size, widths, batch and likelihood
of SCLD, is trained on the same device from its second epoch on, and gives posterior predictive
cells. Rates are cells/s; those of training include validation. The first fit on a GPU starts its
libraries: the second one is measured. "busy" is the mean share of time in which the GPU computes,
asked 20 times a second while the networks train; it needs nvidia-ml-py. The scores are those of
quality.py. Without a GPU the CPU alone is measured, by default.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from common import (
    LABEL,
    LABELS,
    arguments,
    begin,
    evaluation_options,
    long_records,
    settings,
    split_cells,
    write_results,
)
from other_methods import fit_scvi, sample_scvi, scvi_installed, scvi_training_rate
from quality import SCLD

import scld
from scld.evaluation.cells import OVERALL

SCORES = ["c2st", "w2", "tstr_f1", "label_accuracy", "effect_slope"]
NETWORKS = ("autoencoder", "denoiser")
EPOCHS = 5  # of SCVI
GPU, CPU = "cuda", "cpu"


def devices() -> list[str]:
    """The GPU if there is one, and the CPU."""
    return [GPU, CPU] if torch.cuda.is_available() else [CPU]


def title(method: str, device: str) -> str:
    """A method and where it runs."""
    return f"{method}, {'GPU' if device == GPU else 'CPU'}"


@contextmanager
def busy() -> Iterator[list[float]]:
    """The share of time in which the GPU computes, in per cent, one number a twentieth second."""
    found: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.05):
            found.append(float(torch.cuda.utilization()))

    thread = threading.Thread(target=ask)
    try:
        torch.cuda.utilization()
        thread.start()
    except Exception:  # no GPU, or nothing that can ask it
        yield found
        return
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def rates(synth: scld.Synthesizer) -> dict[str, float]:
    """Training cells/s of each network."""
    found = {}
    for network in NETWORKS:
        history = synth.summary[network]
        batch = getattr(synth.config, f"{network}_training").batch
        found[f"{network}, cells/s"] = history["steps"] * batch / history["seconds"]
    return found


def sampling_rate(synth: scld.Synthesizer, cells: int) -> float:
    """Cells/s into memory; after a first call."""
    synth.sample(min(cells, 2000), seed=0, progress=False)
    started = time.perf_counter()
    synth.sample(cells, seed=0, progress=False)
    return cells / (time.perf_counter() - started)


def of_scld(
    device: str, name: str, seed: int, train: AnnData, test: AnnData, given: argparse.Namespace
) -> tuple[dict[str, float], AnnData]:
    """Rates on a device, and cells with the labels of the test cells."""
    labels = LABELS.get(name, [LABEL])
    for repeat in range(2 if device == GPU else 1):
        synth = scld.Synthesizer(labels, config=settings(given), seed=seed, device=device)
        started = time.perf_counter()
        with busy() as shares:
            synth.fit(train, progress=False)
        seconds = time.perf_counter() - started
        print(f"{name}, {device}, fit {repeat + 1}: {seconds:.1f} s", flush=True)
    row = {
        "fit, s": seconds,
        **rates(synth),
        "sampling, cells/s": sampling_rate(synth, given.cells),
    }
    if device == GPU and shares:
        row["busy, %"] = float(np.mean(shares))
        row["GPU memory, MB"] = torch.cuda.max_memory_allocated() / 1e6
    return row, synth.sample(obs=test.obs[labels], seed=seed, progress=False)


def of_scvi(device: str, train: AnnData, test: AnnData) -> dict[str, float]:
    """Rates of SCVI on a device."""
    accelerator = "gpu" if device == GPU else "cpu"
    rate = scvi_training_rate(train, EPOCHS, accelerator)
    model = fit_scvi(train, 1, accelerator)
    sample_scvi(model, train, test.obs[[LABEL]], 0)
    started = time.perf_counter()
    sample_scvi(model, train, test.obs[[LABEL]], 0)
    seconds = time.perf_counter() - started
    return {"autoencoder, cells/s": rate, "sampling, cells/s": test.n_obs / seconds}


def measured(name: str, seed: int, given: argparse.Namespace) -> pd.DataFrame:
    """One row per method and device, in long format."""
    train, test = split_cells(name, seed, given)
    rows, samples = [], {}
    for device in given.devices:
        row, cells = of_scld(device, name, seed, train, test, given)
        rows.append({"method": title(SCLD, device), **row})
        samples[title(SCLD, device)] = cells
        if scvi_installed():
            rows.append({"method": title("SCVI", device), **of_scvi(device, train, test)})
    options = evaluation_options(given) | {"controls": False, "seed": seed}
    scores = scld.evaluate(train, test, samples, LABEL, **options).table
    scores = scores[(scores["group"] == OVERALL) & scores["metric"].isin(SCORES)]
    scores = scores[scores["dataset"].isin(samples)].rename(columns={"dataset": "method"})
    found = pd.concat(
        [long_records(rows, ["method"]), scores[["method", "metric", "value", "baseline"]]]
    )
    return found.assign(dataset=name, seed=seed, group=OVERALL)


def main() -> None:
    parser = arguments(__doc__, ["teaseq_pbmc"], seeds=[0])
    parser.add_argument("--devices", nargs="+", choices=[GPU, CPU], default=devices())
    parser.add_argument("--cells", type=int, default=20_000, help="cells to generate")
    given = begin(parser)
    if given.quick:
        given.cells = 300
    if torch.cuda.is_available():
        print(torch.cuda.get_device_name(), flush=True)
    for name in given.datasets:
        for seed in given.seeds:
            found = measured(name, seed, given)
            write_results("gpu", found, given)
            wide = found.pivot(index="method", columns="metric", values="value")
            print(f"\n{name}, seed {seed}\n{wide.to_string()}\n", flush=True)


if __name__ == "__main__":
    main()
