"""How fast is it? scld beside other methods, in turns, on the same cells and as many threads.

    OMP_NUM_THREADS=1 python benchmarks/speed.py [--data-dir DIR] [--datasets NAME ...]
        [--parts autoencoder counts ...] [--models MODELS]

Each part prints a table; all of them run if none is named:

    autoencoder  training, cells/s, all genes: scld in `Synthesizer.fit`; scvi-tools' SCVI in its
                 own `train`, from the second epoch on; and an autoencoder in plain dense PyTorch.
                 The same latent size, widths, batch and number of epochs. Each dataset, and the
                 first one with more genes
    quality      seconds of fitting until the largest AUC of the three C2ST classifiers is at most
                 .60: scld at shares of its training steps, each a fit of its own, beside SCVI at
                 numbers of epochs and with its own early stopping (posterior predictive cells)
    counts       sampling counts, cells/s: `scld.kernels.sampling.sample_counts` beside torch's
                 NegativeBinomial and a conversion to CSR, at the means of a fitted model
    sampling     from noise to an .h5ad on disk at default settings, cells/s, and the share of each
                 stage in the time of all threads
    precision    the denoiser trained in float32 and in bfloat16: validation loss and training rate
    steps        solver steps, and candidates of post-guidance, against quality and cells/s; mean ±
                 sd over seeds

Rates are medians over repetitions. A ratio is the median over repetitions of scld's rate to the
other's in the same repetition, so that a busy machine slows both. SCVI needs scvi-tools
(`pip install -c constraints.txt '.[bench]'`); without it its column is left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any
from unittest import mock

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
    fitted,
    load_cells,
    long_records,
    resized,
    settings,
    split_cells,
    spread,
    write_results,
)
from other_methods import (
    dense_training_rate,
    fit_scvi,
    sample_scvi,
    scvi_installed,
    scvi_training_rate,
    torch_counts,
)
from torch import Tensor, nn

import scld
from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE
from scld.generation import generator
from scld.generation.post_guidance import Discriminator
from scld.io.write import write
from scld.kernels.sampling import sample_counts
from scld.model.autoencoder import Autoencoder, Batch
from scld.model.denoiser import Denoiser
from scld.model.latents import Latents
from scld.training.loop import train as train_network
from scld.training.stages import held_out_split

SCLD, SCVI, DENSE, TORCH = "scld", "SCVI", "dense PyTorch", "torch + CSR"
SHARES = (0.125, 0.25, 0.5, 1.0)  # of the training steps: budgets of part quality
GOOD = 0.6  # largest C2ST AUC
STEPS, CANDIDATES = (4, 6, 8, 10, 15, 20, 40), (1, 2, 3, 4, 6)
METRICS = ["c2st", "w2", "mmd2", "label_accuracy"]
PAGE = generator.PAGE
STAGES = (  # name, whose function, its name
    ("latent diffusion", generator.Generator, "latents"),
    ("decoding", Autoencoder, "logits"),
    ("decoding", Autoencoder, "nb_parameters"),
    ("counts", generator, "sample_counts"),
    ("post-guidance", Discriminator, "log_odds"),
)
REST, WRITING = "rest of a page", "writing"
Rows = list[dict[str, Any]]


def in_turns(methods: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The rate of each method, scld first, and its ratio to each other one; they take turns."""
    rates = pd.DataFrame([{name: run() for name, run in methods.items()} for _ in range(repeats)])
    row = {f"{name}, cells/s": float(rate) for name, rate in rates.median().items()}
    for other in rates.columns.drop(SCLD):
        row[f"{SCLD} / {other}"] = float((rates[SCLD] / rates[other]).median())
    return row


def seconds(work: Callable[[], object]) -> float:
    """Wall time of some work."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def model_of(name: str, seed: int, given: argparse.Namespace) -> scld.Synthesizer:
    """A model of the training cells of a dataset, with post-guidance."""
    train, _ = split_cells(name, seed, given)
    labels = LABELS.get(name, [LABEL])
    return fitted(train, labels, seed, given, name, settings(given, "select"))


# training of the autoencoder


def autoencoder(given: argparse.Namespace) -> pd.DataFrame:
    """One row per dataset, one column per method."""
    datasets = {name: load_cells(name, given) for name in given.datasets}
    first = given.datasets[0]
    datasets[f"{first}, more genes"] = resized(datasets[first], given.genes)
    methods = {SCLD: scld_training_rate, DENSE: dense_training_rate}
    if scvi_installed():
        methods[SCVI] = scvi_training_rate
    rows = []
    for name, cells in datasets.items():
        runs = {method: partial(rate, cells, given.epochs) for method, rate in methods.items()}
        size = {"dataset": name, "cells": cells.n_obs, "genes": cells.n_vars}
        rows.append(size | in_turns(runs, given.repeats))
        save("autoencoder", rows[-1:], given)
    return pd.DataFrame(rows)


def scld_training_rate(cells: AnnData, epochs: int) -> float:
    """Cells/s of the autoencoder in a fit whose other stages are as short as can be.

    One cell is held out, so that validation takes no time.
    """
    short = {"intervals": 1, "steps": 1, "epochs": 1}
    values = {
        "held_out": 1e-9,
        "autoencoder_training": short | {"epochs": epochs},
        "denoiser_training": short,
        "discriminator": {"max_cells": 200, "generated": 1, "trees": 1},
        "sampling": {"steps": 1},
    }
    config = scld.Config.from_dict(values)
    synth = scld.Synthesizer(LABEL, config=config).fit(cells, progress=False)
    history = synth.summary["autoencoder"]
    return float(history["steps"] * config.autoencoder_training.batch / history["seconds"])


# time to quality


def quality(given: argparse.Namespace) -> pd.DataFrame:
    """One row per dataset, method and budget; and when each method is good enough."""
    rows: Rows = []
    for name in given.datasets:
        for seed in given.seeds:
            found = quality_by_budget(name, seed, given)
            rows += [{"dataset": name, "seed": seed} | row for row in found]
            save("quality", rows[-len(found) :], given)
    table = pd.DataFrame(rows)
    methods = table[table["method"] != BASELINE].groupby(["dataset", "method"], sort=False)
    reached = [
        {"dataset": name, "method": method, "seconds": shortest_good(part)}
        for (name, method), part in methods
    ]
    print(f"seconds of fitting until C2ST is at most {GOOD}, mean over seeds, of these budgets:")
    print(f"{pd.DataFrame(reached).to_string(index=False)}\n")
    return spread(table, ["dataset", "method", "budget"]).reset_index()


def quality_by_budget(name: str, seed: int, given: argparse.Namespace) -> Rows:
    """Fitting time and C2ST of every budget; the methods take turns."""
    train, test = split_cells(name, seed, given)
    runs: Rows = []
    datasets = {}
    for method, budget, run in budgets(given):
        took, cells = run(train, test.obs[[LABEL]], seed)
        datasets[f"{method}, {budget}"] = cells
        runs.append({"method": method, "budget": budget, "seconds": took})
    c2st = scores(train, test, datasets, seed, given)["c2st"]
    rows = [row | {"c2st": c2st[f"{row['method']}, {row['budget']}"]} for row in runs]
    return [*rows, {"method": BASELINE, "budget": "", "seconds": 0.0, "c2st": c2st[BASELINE]}]


def budgets(given: argparse.Namespace) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """Method, budget, and a function that fits and samples with that budget; in turns."""
    config = settings(given)
    of_scld = [
        (SCLD, f"{share:g} of the steps", partial(run_scld, shortened(config, share)))
        for share in SHARES
    ]
    epochs = given.scvi if scvi_installed() else []
    of_scvi = [
        (SCVI, f"{number} epochs" if number else "early stopping", partial(run_scvi, number))
        for number in epochs
    ]
    turns = list(zip_longest(of_scld, of_scvi))
    for turn in turns[:1] if given.quick else turns:
        yield from filter(None, turn)


def shortened(config: scld.Config, share: float) -> scld.Config:
    """Settings with a share of the steps, epochs and validation intervals of each training."""
    changed = {}
    for name in ("autoencoder_training", "denoiser_training"):
        training = getattr(config, name)
        names = ("steps", "epochs", "intervals")
        lengths = {name: max(1, round(getattr(training, name) * share)) for name in names}
        changed[name] = replace(training, **lengths)
    return replace(config, **changed)


def run_scld(
    config: scld.Config, train: AnnData, obs: pd.DataFrame, seed: int
) -> tuple[float, AnnData]:
    """Seconds of a fit, and cells with the labels of ``obs``."""
    synth = scld.Synthesizer(LABEL, config=config, seed=seed)
    took = seconds(lambda: synth.fit(train, progress=False))
    return took, synth.sample(obs=obs, seed=seed, progress=False)


def run_scvi(epochs: int, train: AnnData, obs: pd.DataFrame, seed: int) -> tuple[float, AnnData]:
    """The same of SCVI; it stops by itself after 0 ``epochs``."""
    import scvi

    scvi.settings.seed = seed
    started = time.perf_counter()
    model = fit_scvi(train, epochs or None)
    took = time.perf_counter() - started
    return took, sample_scvi(model, train, obs, seed)


def scores(
    train: AnnData,
    test: AnnData,
    datasets: Mapping[str, AnnData],
    seed: int,
    given: argparse.Namespace,
) -> pd.DataFrame:
    """Overall scores of synthetic datasets and of the baseline, one row per dataset."""
    options = evaluation_options(given) | {"controls": False, "seed": seed}
    table = scld.evaluate(train, test, datasets, LABEL, **options).table
    rows = table[(table["group"] == OVERALL) & table["metric"].isin(METRICS)]
    return rows.pivot(index="dataset", columns="metric", values="value")


def shortest_good(part: pd.DataFrame) -> str:
    """The shortest fit that is good enough."""
    means = part.groupby("budget")[["seconds", "c2st"]].mean()
    good = means[means["c2st"] <= GOOD]["seconds"]
    return f"{good.min():.0f}" if len(good) else "not reached"


# sampling counts


def counts(given: argparse.Namespace) -> pd.DataFrame:
    """One row per dataset."""
    rows = []
    for name in given.datasets:
        synth = model_of(name, given.seeds[0], given)  # not under no_grad: this may be a fit
        train, _ = split_cells(name, given.seeds[0], given)
        mean, dispersion = nb_parameters(synth, train[:PAGE])
        rows.append({"dataset": name} | count_rates(mean, dispersion, given))
        save("counts", rows[-1:], given)
    return pd.DataFrame(rows)


@torch.no_grad()
def nb_parameters(synth: scld.Synthesizer, cells: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Means and dispersions ``[cells, genes]`` that a model gives to some real cells."""
    model = synth._fitted
    seen, codes = synth.genes["seen"].to_numpy(), synth.schema.codes(cells.obs)
    batch = Batch.of(scld.data.count_matrix(cells)[:, seen], codes, synth.device)
    networks = model.generator.autoencoder
    latent, _ = networks.encode(batch)
    parameters = networks.nb_parameters(networks.logits(latent, batch.labels), latent[:, -1:])
    mean, dispersion = (log.exp().cpu().numpy() for log in parameters)
    return mean, dispersion


def count_rates(
    mean: np.ndarray, dispersion: np.ndarray, given: argparse.Namespace
) -> dict[str, Any]:
    """Rates of both samplers, each with a pool of threads that compute one page at a time.

    And the shares of zeros that they sample, which should agree.
    """
    tensors = torch.from_numpy(mean), torch.from_numpy(dispersion)
    samplers: dict[str, Callable[[int], Any]] = {
        SCLD: lambda page: sample_counts(mean, dispersion, 0, page * len(mean)),
        TORCH: lambda page: torch_counts(*tensors),
    }
    row: dict[str, Any] = {"cells": len(mean), "genes": mean.shape[1]}
    for name, sampler in samplers.items():
        row[f"{name}, zeros"] = 1 - sampler(0).nnz / mean.size
    threads, one = torch.get_num_threads(), {"initializer": torch.set_num_threads, "initargs": (1,)}
    with ThreadPoolExecutor(threads, **one) as pool:

        def rate(sampler: Callable[[int], Any]) -> float:
            took = seconds(lambda: list(pool.map(sampler, range(given.pages))))
            return given.pages * len(mean) / took

        runs = {name: partial(rate, sampler) for name, sampler in samplers.items()}
        row |= in_turns(runs, given.repeats)
    torch.set_num_threads(threads)  # the initializer sets it for later threads too
    return row


# from noise to disk


def sampling(given: argparse.Namespace) -> pd.DataFrame:
    """One row per dataset: the median rate, and shares of time over all repetitions."""
    rows = []
    for name in given.datasets:
        synth = model_of(name, given.seeds[0], given)
        sample_to_disk(synth, 1, Counter())
        spent: Counter[str] = Counter()
        took = [sample_to_disk(synth, given.cells, spent) for _ in range(given.repeats)]
        row = {"dataset": name, "genes": len(synth.genes), "cells": given.cells}
        row["cells/s"] = given.cells / np.median(took)
        for stage in dict.fromkeys([*(stage for stage, *_ in STAGES), REST, WRITING]):
            row[f"{stage}, %"] = 100 * spent[stage] / spent.total()
        rows.append(row)
        save("sampling", [row], given)
    return pd.DataFrame(rows)


def sample_to_disk(synth: scld.Synthesizer, n: int, spent: Counter[str]) -> float:
    """Seconds from noise to a file; those of each stage, summed over threads, go to ``spent``."""
    in_stages: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for stage, owner, name in (*STAGES, ("page", generator.Generator, "generate")):
            function = timed(getattr(owner, name), stage, in_stages)
            stack.enter_context(mock.patch.object(owner, name, function))
        batches = awaited(synth.stream(n, seed=0, progress=False), waiting)
        took = seconds(lambda: write(batches, Path(folder) / "cells.h5ad"))
    page = in_stages.pop("page")
    spent.update(in_stages)
    spent.update({REST: page - in_stages.total(), WRITING: took - waiting["batches"]})
    return took


def timed(function: Callable[..., Any], name: str, spent: Counter[str]) -> Callable[..., Any]:
    """The same function, which adds its time to ``spent``."""

    def work(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[name] += time.perf_counter() - started  # type: ignore[assignment]

    return work


def awaited(batches: Iterator[AnnData], waiting: Counter[str]) -> Iterator[AnnData]:
    """The same batches; the time until each is there goes to ``waiting``."""
    following = timed(lambda: next(batches, None), "batches", waiting)
    while (batch := following()) is not None:
        yield batch


# precision of training


def precision(given: argparse.Namespace) -> pd.DataFrame:
    """One row per dataset and precision: a denoiser of the latent points of a fitted model."""
    rows = []
    for name in given.datasets:
        for seed in given.seeds:
            synth = model_of(name, seed, given)
            latents = latents_of(synth, split_cells(name, seed, given)[0])
            for kind in ("float32", "bfloat16"):
                row = {"dataset": name, "precision": kind, "seed": seed}
                rows.append(row | denoiser_training(latents, synth, kind, seed))
            save("precision", rows[-2:], given)
    return spread(rows, ["dataset", "precision"], 4).reset_index()


def latents_of(synth: scld.Synthesizer, train: AnnData) -> Latents:
    """The training cells in the latent space of a model."""
    seen_counts = scld.data.count_matrix(train)[:, synth.genes["seen"].to_numpy()]
    networks, codes = synth._fitted.generator.autoencoder, synth.schema.codes(train.obs)
    return Latents.of(networks, seen_counts, codes, synth.device)


def denoiser_training(
    latents: Latents, synth: scld.Synthesizer, kind: str, seed: int
) -> dict[str, float]:
    """Held-out loss and training rate of a denoiser in one precision."""
    config, training = synth.config.denoiser, synth.config.denoiser_training
    torch.manual_seed(seed)
    denoiser = Denoiser(len(latents.centre), synth.schema.sizes, config)

    def loss(module: nn.Module, picked: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bfloat16"):
            return latents.loss(module, picked, config.label_dropout).mean()

    split = held_out_split(latents.labels.numpy(), synth.config.held_out, seed)
    groups = [{"params": list(denoiser.parameters())}]
    history = train_network(denoiser, groups, loss, *split, training, seed)
    rate = history.steps * training.batch / history.seconds
    return {"validation loss": min(history.validation), "cells/s": rate}


# solver steps and candidates


def steps(given: argparse.Namespace) -> pd.DataFrame:
    """One row per dataset and setting; what is not named is at its default."""
    every = 3 if given.quick else 1
    variants = [("steps", value) for value in STEPS[::every]]
    variants += [("candidates", value) for value in CANDIDATES[::every]]
    tables = [
        scores_of_variants(name, seed, variants, given)
        for name in given.datasets
        for seed in given.seeds
    ]
    table, by = pd.concat(tables), ["dataset", "setting"]
    rates = spread(table[[*by, "seed", "cells/s"]], by, 0)["cells/s"]
    return spread(table, by, 4).assign(**{"cells/s": rates}).reset_index()


def scores_of_variants(
    name: str, seed: int, variants: Sequence[tuple[str, int]], given: argparse.Namespace
) -> pd.DataFrame:
    """Scores and sampling rate of each setting, and of the baseline."""
    train, test = split_cells(name, seed, given)
    synth = model_of(name, seed, given)
    synth.sample(1, seed=seed, progress=False)  # the first one is slow
    default, datasets, rates = synth.config, {}, {}
    for setting, value in variants:
        sampling = replace(default.sampling, **{setting: value})
        synth.config = replace(default, sampling=sampling)
        key, started = f"{value} {setting}", time.perf_counter()
        datasets[key] = synth.sample(obs=test.obs[synth.labels], seed=seed, progress=False)
        rates[key] = test.n_obs / (time.perf_counter() - started)
    table = scores(train, test, datasets, seed, given)[METRICS]
    table = table.assign(**{"cells/s": pd.Series(rates)}).loc[[*datasets, BASELINE]]
    table = table.rename_axis("setting").reset_index().assign(dataset=name, seed=seed)
    save("steps", table, given)
    return table


PARTS = {
    "autoencoder": autoencoder,
    "quality": quality,
    "counts": counts,
    "sampling": sampling,
    "precision": precision,
    "steps": steps,
}
KEYS = ("dataset", "seed", "method", "budget", "precision", "setting")  # columns without scores
QUICK = {"repeats": 1, "epochs": 1, "genes": 800, "pages": 2, "cells": 600, "scvi": [1]}


def save(part: str, rows: Rows | pd.DataFrame, given: argparse.Namespace) -> None:
    """Add rows of a part to the results."""
    table = pd.DataFrame(rows)
    table = table if "seed" in table else table.assign(seed=given.seeds[0])
    long = long_records(table, [key for key in KEYS if key in table]).assign(part=part)
    write_results("speed", long, given, ("part", "dataset", "seed"))


def number(value: float) -> str:
    """A rate or a score, with as many digits as it needs."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def main() -> None:
    parser = arguments(__doc__, ["teaseq_pbmc", "mouse_ens"], seeds=[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="part autoencoder: epochs timed")
    parser.add_argument("--genes", type=int, default=20_000, help="part autoencoder: more genes")
    parser.add_argument("--pages", type=int, default=20, help="part counts: pages in a repetition")
    parser.add_argument("--cells", type=int, default=10_000, help="part sampling")
    parser.add_argument(
        "--scvi",
        nargs="+",
        type=int,
        default=[5, 20, 80, 0],
        help="part quality: numbers of epochs of SCVI; 0: it stops by itself",
    )
    given = begin(parser)
    if given.quick:
        vars(given).update(QUICK)
    missing = "scvi-tools is not installed: its column is left out"
    other = f"scvi-tools {version('scvi-tools')}" if scvi_installed() else missing
    print(f"threads: {torch.get_num_threads()}; {other}\n")
    for part in given.parts:
        table = PARTS[part](given)
        print(f"{part}\n{table.to_string(index=False, float_format=number)}\n", flush=True)


if __name__ == "__main__":
    main()
