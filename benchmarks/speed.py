"""How fast is it? Ours beside others', taking turns in one run, on the same cells, with the same number of threads.

    OMP_NUM_THREADS=1 python benchmarks/speed.py --data-dir DIR [--parts autoencoder counts ...] [--sets teaseq_pbmc mouse_ens] [--models MODELS]

Parts, each a table (all of them if none is named):

    autoencoder  training, cells/s, all genes: ours as `Synthesizer.fit` trains it; scvi-tools' SCVI, as its own `train` does (epochs after the first);
                 and an autoencoder written the plain way in dense PyTorch. The same latent size, widths, batch and number of epochs. The sets, and the
                 first of them with more genes
    quality      seconds of fitting until the worst of the three C2ST classifiers is at most .60: ours at shares of its training steps, each a fit of its
                 own, beside SCVI at numbers of epochs and with its own early stopping (a training cell of each wanted type, drawn from its posterior)
    counts       drawing counts, cells/s: `scld.counts.draw` beside torch's NegativeBinomial and a conversion to CSR; at the means of a fitted model if
                 --models is given, else at gene means of the set with a log-normal spread
    sampling     from noise to an .h5ad on disk at default settings, cells/s, and the share of each stage in the time that the threads spent
    precision    the denoiser trained in single precision and in bfloat16: loss on held-out cells, and training, cells/s
    steps        solver steps, and candidates of selection, against quality and cells/s; mean ± sd over seeds

Rates are medians over repetitions. Ratios are medians over repetitions of ours to the other's in the same one, so that a busy machine slows both.
SCVI needs scvi-tools (`pip install -c constraints.txt '.[bench]'`); without it its column is left out.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from common import LABEL, LABELS, arguments, begin, fitted, resized, spread
from torch import Tensor, nn

import scld
from scld import counts, generator, output
from scld import train as training
from scld.autoencoder import Autoencoder
from scld.denoiser import Denoiser
from scld.fitting import split
from scld.judge import FLOOR, OVERALL
from scld.latents import Latents
from scld.request import plan_of
from scld.selector import Selector

OURS, SCVI, DENSE, TORCH = "ours", "SCVI", "dense PyTorch", "torch + CSR"
SHARES = (0.125, 0.25, 0.5, 1.0)  # of our steps: budgets of part quality
GOOD = 0.6  # worst C2ST
STEPS, CANDIDATES = (4, 6, 8, 10, 15, 20, 40), (1, 2, 3, 4, 6)
FIGURES = ["c2st", "w2", "mmd2", "label_accuracy"]
STAGES = (  # name, whose function, which
    ("latent diffusion", generator.Generator, "latents"),
    ("decoding", Autoencoder, "scores"),
    ("decoding", Autoencoder, "laws"),
    ("drawing", generator, "draw"),
    ("selection", Selector, "log_odds"),
)


def side_by_side(ways: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, str]:
    """The rate of every way, ours first, and ours relative to each other one; the ways take turns."""
    turns = pd.DataFrame([{name: way() for name, way in ways.items()} for _ in range(repeats)])
    ratios = {f"ours / {name}": f"{(turns[OURS] / turns[name]).median():.2f}" for name in turns if name != OURS}
    return {f"{name}, cells/s": f"{rate:,.0f}" for name, rate in turns.median().items()} | ratios


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def cells_of(name: str, given: argparse.Namespace) -> AnnData:
    return scld.data.read(given.data_dir / f"{name}.h5ad")


# training of the autoencoder


def autoencoder(given: argparse.Namespace) -> pd.DataFrame:
    """One row a set, one column a maker."""
    sets = {name: cells_of(name, given) for name in given.sets}
    sets[f"{given.sets[0]}, widened"] = resized(sets[given.sets[0]], given.genes)
    return pd.DataFrame([{"set": name, "cells": cells.n_obs, "genes": cells.n_vars} | trainings(cells, given) for name, cells in sets.items()])


def trainings(cells: AnnData, given: argparse.Namespace) -> dict[str, str]:
    """The makers side by side on one set."""
    makers = {OURS: ours_trained, DENSE: dense_trained} | ({SCVI: scvi_trained} if scvi_here() else {})
    return side_by_side({name: partial(maker, cells, given.epochs) for name, maker in makers.items()}, given.repeats)


def ours_trained(cells: AnnData, epochs: int) -> float:
    """Cells/s of the first part of a fit, whose others are cut short; one cell is held out, so that looking at it costs nothing."""
    short = {"rounds": 1, "steps": 1, "epochs": 1}
    parts = {"autoencoder_training": short | {"epochs": epochs}, "denoiser_training": short, "critic_training": short}
    rest = {"held_out": 1e-9, "sampling": {"steps": 1}, "selector": {"most_cells": 200, "generated": 1, "trees": 1}}
    config = scld.Config.from_dict(parts | rest)
    course = scld.Synthesizer(LABEL, config=config).fit(cells, progress=False).summary["autoencoder"]
    return float(course["steps"] * config.autoencoder_training.batch / course["seconds"])


class Dense(nn.Module):
    """An autoencoder of counts as one would write it: dense input, a ReLU network each way, the whole likelihood at every gene."""

    def __init__(self, genes: int, width: int, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(genes, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, latent))
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, genes))
        self.log_dispersion = nn.Parameter(torch.zeros(genes))

    def loss(self, x: Tensor) -> Tensor:
        mean, r = torch.softmax(self.decoder(self.encoder(torch.log1p(x))), dim=1) * x.sum(1, keepdim=True) + 1e-8, self.log_dispersion.exp()
        likelihood = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1) + r * torch.log(r / (r + mean)) + x * torch.log(mean / (r + mean))
        return -likelihood.sum(1).mean()


def dense_trained(cells: AnnData, epochs: int) -> float:
    """Cells/s of a plain loop."""
    config, matrix = scld.Config(), sp.csr_matrix(cells.X)
    batch = config.autoencoder_training.batch
    module = Dense(cells.n_vars, config.autoencoder.width, config.autoencoder.latent)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)

    def epoch() -> None:
        order = np.random.default_rng(0).permutation(cells.n_obs)
        for start in range(0, cells.n_obs, batch):
            optimizer.zero_grad()
            module.loss(torch.from_numpy(matrix[order[start : start + batch]].toarray())).backward()
            optimizer.step()

    return epochs * cells.n_obs / seconds(lambda: [epoch() for _ in range(epochs)])


def scvi_here() -> bool:
    return find_spec("scvi") is not None


def scvi_trained(cells: AnnData, epochs: int) -> float:
    """Cells/s of SCVI's own training, from the end of its first epoch on."""
    from lightning.pytorch.callbacks import LambdaCallback

    ends: list[float] = []
    clock = LambdaCallback(on_train_epoch_end=lambda *_: ends.append(time.perf_counter()))
    scvi_fitted(cells, epochs + 1, train_size=1.0, callbacks=[clock])
    return epochs * cells.n_obs / (ends[-1] - ends[0])


def scvi_fitted(cells: AnnData, epochs: int | None, **how: Any) -> Any:
    """SCVI with the latent size, widths, batch and likelihood of ours; it stops by itself if no number of epochs is given."""
    from scvi.model import SCVI as Model

    config, adata = scld.Config(), cells.copy()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Model.setup_anndata(adata)
        shape = {"n_hidden": config.autoencoder.width, "n_latent": config.autoencoder.latent, "n_layers": 2}
        model = Model(adata, **shape, gene_likelihood="nb", dispersion="gene")
        quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "logger": False, "enable_model_summary": False}
        batch = config.autoencoder_training.batch
        model.train(max_epochs=epochs, early_stopping=epochs is None, accelerator="cpu", devices=1, batch_size=batch, **quiet, **how)
    return model


# time to quality


def quality(given: argparse.Namespace) -> pd.DataFrame:
    """One row a set, maker and budget; and when each maker is good enough."""
    rows = []
    for name in given.sets:
        for seed in given.seeds:
            rows += [{"set": name, "seed": seed} | row for row in curve(name, seed, given)]
    table = pd.DataFrame(rows)
    makers = table[table["maker"] != FLOOR].groupby(["set", "maker"], sort=False)
    reached = [{"set": name, "maker": maker, "seconds": soonest(part)} for (name, maker), part in makers]
    print(f"seconds of fitting until the worst C2ST is at most {GOOD}, of the budgets below (mean over seeds)")
    print(f"{pd.DataFrame(reached).to_string(index=False)}\n")
    return spread(table, ["set", "maker", "budget"]).reset_index()


def curve(name: str, seed: int, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Every budget's fitting time and C2ST; the makers take turns."""
    train, test = scld.data.split(cells_of(name, given), LABEL, seed=seed)
    makers: dict[str, Callable[..., Any]] = {OURS: ours_at} | ({SCVI: scvi_at} if scvi_here() else {})
    budgets = {OURS: SHARES, SCVI: [epochs or None for epochs in given.scvi]}
    turns = [
        (maker, budgets[maker][turn]) for turn in range(1 if given.quick else max(map(len, budgets.values()))) for maker in makers if turn < len(budgets[maker])
    ]
    took, made = {}, {}
    for maker, budget in turns:
        key = (maker, "its own" if budget is None else f"{budget:g} {'of the steps' if maker == OURS else 'epochs'}")
        took[key], made[", ".join(key)] = makers[maker](train, test.obs[[LABEL]], budget, seed)
    c2st = scores(train, test, made, seed, given)["c2st"]
    rows = [{"maker": maker, "budget": budget, "seconds": took[maker, budget], "c2st": c2st[f"{maker}, {budget}"]} for maker, budget in took]
    return [*rows, {"maker": FLOOR, "budget": "", "seconds": 0.0, "c2st": c2st[FLOOR]}]


def ours_at(train: AnnData, obs: pd.DataFrame, share: float, seed: int) -> tuple[float, AnnData]:
    """Seconds of a fit with this share of the steps of each training, and what it makes."""
    config = scld.Config()
    trainings = {name: fewer(getattr(config, name), share) for name in ("autoencoder_training", "denoiser_training", "critic_training")}
    synth = scld.Synthesizer(LABEL, config=replace(config, **trainings), seed=seed)
    took = seconds(lambda: synth.fit(train, progress=False))
    return took, synth.sample(obs=obs, seed=seed, progress=False)


def fewer(training: Any, share: float) -> Any:
    """So much of a training: fewer steps, and fewer looks at the held-out cells in proportion."""
    return replace(training, **{name: max(1, round(getattr(training, name) * share)) for name in ("steps", "epochs", "rounds")})


def scvi_at(train: AnnData, obs: pd.DataFrame, epochs: int | None, seed: int) -> tuple[float, AnnData]:
    """Seconds of a fit of so many epochs, and posterior predictive cells of random training cells of the types wanted."""
    import scvi

    scvi.settings.seed, models = seed, []
    took = seconds(lambda: models.append(scvi_fitted(train, epochs)))
    known, rng = train.obs[LABEL].to_numpy(), np.random.default_rng(seed)
    rows = [int(rng.choice(np.flatnonzero(known == kind))) for kind in obs[LABEL]]
    made = models[0].posterior_predictive_sample(indices=rows).to_scipy_sparse().tocsr().astype(np.float32)
    return took, AnnData(made, obs=obs.copy(), var=pd.DataFrame(index=train.var_names))


def scores(train: AnnData, test: AnnData, made: Mapping[str, AnnData], seed: int, given: argparse.Namespace) -> pd.DataFrame:
    """Overall figures of sets of cells and of the real floor, one row a set."""
    report = scld.evaluate(train, test, made, LABEL, baselines=False, halvings=1 if given.quick else 3, seed=seed, progress=False)
    rows = report.table[(report.table["scope"] == OVERALL) & report.table["figure"].isin(FIGURES)]
    return rows.pivot(index="set", columns="figure", values="value")


def soonest(part: pd.DataFrame) -> str:
    """The shortest fit that is good enough."""
    means = part.groupby("budget")[["seconds", "c2st"]].mean()
    good = means[means["c2st"] <= GOOD]["seconds"]
    return f"{good.min():.0f}" if len(good) else "not reached"


# drawing counts


def drawing(given: argparse.Namespace) -> pd.DataFrame:
    """One row a set."""
    return pd.DataFrame([{"set": name} | drawings(*rates(name, given), given) for name in given.sets])


def drawings(mean: np.ndarray, dispersion: np.ndarray, given: argparse.Namespace) -> dict[str, Any]:
    """Both ways side by side, each with a pool of threads that compute a page at a time; and the zeros they draw, which should agree."""
    tensors, pages = (torch.from_numpy(mean), torch.from_numpy(np.broadcast_to(dispersion, mean.shape).copy())), range(given.pages)
    draw = {OURS: lambda page: counts.draw(mean, dispersion, 0, page * len(mean)), TORCH: lambda page: torch_drawn(*tensors)}
    about = {"cells": len(mean), "genes": mean.shape[1]} | {f"{way}, zeros": f"{1 - draw[way](0).nnz / mean.size:.4f}" for way in draw}
    with ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)) as pool:

        def rate(way: str) -> float:
            return len(pages) * len(mean) / seconds(lambda: list(pool.map(draw[way], pages)))

        return about | side_by_side({way: partial(rate, way) for way in draw}, given.repeats)


def torch_drawn(mean: Tensor, dispersion: Tensor) -> sp.csr_matrix:
    return sp.csr_matrix(torch.distributions.NegativeBinomial(dispersion, logits=(mean / dispersion).log()).sample().numpy())


@torch.no_grad()
def rates(name: str, given: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Means ``[page, genes]`` and dispersions of one page of cells."""
    if given.models:
        synth = model_of(name, given.seeds[0], given)
        parts = synth._require_fit()
        codes = synth.schema.draw(generator.PAGE, None, np.random.default_rng(0))
        latent = parts.latents(0, codes, plan_of(None, None, 0, synth.labels, synth.config.sampling)) * parts.scale + parts.centre
        log_mean, log_dispersion = parts.autoencoder.laws(parts.autoencoder.scores(latent, torch.from_numpy(codes).to(latent.device)), latent[:, -1:])
        return log_mean.exp().cpu().numpy(), log_dispersion.exp().cpu().numpy()
    usual, rng = np.asarray(sp.csr_matrix(cells_of(name, given).X).mean(axis=0)).ravel() + 1e-6, np.random.default_rng(0)
    mean = usual * np.exp(rng.normal(0, 0.5, (generator.PAGE, 1)) + rng.normal(0, 0.5, (generator.PAGE, len(usual))))
    return mean.astype(np.float32), np.exp(rng.normal(np.log(2), 1, len(usual))).astype(np.float32)


def model_of(name: str, seed: int, given: argparse.Namespace) -> scld.Synthesizer:
    train = scld.data.split(cells_of(name, given), LABEL, seed=seed)[0]
    return fitted(train, LABELS.get(name, [LABEL]), seed, given, name)


# from noise to disk


def sampling(given: argparse.Namespace) -> pd.DataFrame:
    """One row a set: the median rate, and the shares over all repetitions."""
    rows = []
    for name in given.sets:
        synth, n = model_of(name, given.seeds[0], given), given.cells
        to_disk(synth, 1, Counter())
        spent: Counter[str] = Counter()
        speeds = [n / to_disk(synth, n, spent) for _ in range(given.repeats)]
        shares = {
            f"{stage}, %": f"{100 * spent[stage] / spent.total():.0f}"
            for stage in dict.fromkeys([*(stage for stage, *_ in STAGES), "the rest of a page", "writing"])
        }
        rows.append({"set": name, "genes": len(synth.genes), "cells": n, "cells/s": f"{np.median(speeds):,.0f}"} | shares)
    return pd.DataFrame(rows)


def to_disk(synth: scld.Synthesizer, n: int, spent: Counter[str]) -> float:
    """Seconds from noise to a file; those of each stage are added to ``spent``, summed over threads."""
    clocked: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for stage, owner, name in (*STAGES, ("page", generator.Generator, "page")):
            stack.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name), stage, clocked)))
        waiting: Counter[str] = Counter()
        pieces = awaited(synth.stream(n, progress=False), waiting)
        whole = seconds(lambda: output.write(pieces, Path(folder) / "cells.h5ad"))
    page = clocked.pop("page")
    spent.update(clocked | {"the rest of a page": page - clocked.total(), "writing": whole - waiting["pieces"]})
    return whole


def timed(function: Callable[..., Any], name: str, clocked: Counter[str]) -> Callable[..., Any]:
    """The same function, whose time is kept."""

    def work(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            clocked[name] += time.perf_counter() - started  # type: ignore[assignment]

    return work


def awaited(pieces: Iterator[AnnData], waiting: Counter[str]) -> Iterator[AnnData]:
    """The same pieces; the time until each is there is kept."""
    ready = timed(lambda: next(pieces, None), "pieces", waiting)
    while (piece := ready()) is not None:
        yield piece


# precision of training


def precision(given: argparse.Namespace) -> pd.DataFrame:
    """One row a set and precision: the same denoiser, trained anew on the latent points of a fitted model."""
    rows = []
    for name, seed in ((name, seed) for name in given.sets for seed in given.seeds):
        synth, train = model_of(name, seed, given), scld.data.split(cells_of(name, given), LABEL, seed=seed)[0]
        counts = scld.data.count_matrix(train)[:, synth.genes["seen"].to_numpy()]
        points = Latents.of(synth._require_fit().autoencoder, counts, synth.schema.codes(train.obs), torch.device("cpu"))
        for kind in ("float32", "bfloat16"):
            rows.append({"set": name, "precision": kind, "seed": seed} | denoised(points, synth, kind, seed))
    return spread(rows, ["set", "precision"], 4).reset_index()


def denoised(points: Latents, synth: scld.Synthesizer, kind: str, seed: int) -> dict[str, float]:
    config, settings = synth.config.denoiser, synth.config.denoiser_training
    torch.manual_seed(seed)
    module = Denoiser(len(points.centre), synth.schema.sizes, config)

    def loss(module: nn.Module, picked: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bfloat16"):
            return points.loss(module, picked, config.label_dropout).mean()

    cells, held_out = split(points.labels.numpy(), synth.config.held_out, seed)
    course = training.train(module, [{"params": list(module.parameters())}], loss, cells, held_out, settings, seed)
    return {"held-out loss": min(course.validation), "cells/s": course.steps * settings.batch / course.seconds}


# solver steps and candidates


def steps(given: argparse.Namespace) -> pd.DataFrame:
    """One row a set and setting; whatever is not in the row is at its default."""
    values = {"steps": STEPS[::3] if given.quick else STEPS, "candidates": CANDIDATES[::3] if given.quick else CANDIDATES}
    rows = []
    for name in given.sets:
        for seed in given.seeds:
            train, test = scld.data.split(cells_of(name, given), LABEL, seed=seed)
            synth = model_of(name, seed, given)
            synth.sample(1, progress=False)  # the first is slow
            default, made, speed = synth.config, {}, {}
            for setting, value in ((setting, value) for setting, several in values.items() for value in several):
                synth.config = replace(default, sampling=replace(default.sampling, **{setting: value}))
                started, key = time.perf_counter(), f"{value} {setting}"
                made[key] = synth.sample(obs=test.obs[synth.labels], seed=seed, progress=False)
                speed[key] = test.n_obs / (time.perf_counter() - started)
            table = scores(train, test, made, seed, given)[FIGURES].assign(**{"cells/s": pd.Series(speed)})
            rows.append(table.loc[[*made, FLOOR]].rename_axis("setting").reset_index().assign(set=name, seed=seed))
    table, by = pd.concat(rows), ["set", "setting"]
    return spread(table, by, 4).assign(**{"cells/s": spread(table[[*by, "seed", "cells/s"]], by, 0)["cells/s"]}).reset_index()


PARTS = {"autoencoder": autoencoder, "quality": quality, "counts": drawing, "sampling": sampling, "precision": precision, "steps": steps}


def main() -> None:
    parser = arguments(__doc__, ["teaseq_pbmc", "mouse_ens"], seeds=[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="part autoencoder: epochs that are timed")
    parser.add_argument("--genes", type=int, default=20_000, help="part autoencoder: genes of the widened set")
    parser.add_argument("--pages", type=int, default=20, help="part counts: pages of 256 cells in a repetition")
    parser.add_argument("--cells", type=int, default=10_000, help="part sampling")
    parser.add_argument("--scvi", nargs="+", type=int, default=[5, 20, 80, 0], help="part quality: numbers of epochs of SCVI; 0: it stops by itself")
    given = begin(parser)
    other = f"scvi-tools {version('scvi-tools')}" if scvi_here() else "scvi-tools cannot be imported here: its column is left out"
    print(f"threads: {torch.get_num_threads()}; {other}\n")
    for part in given.parts:
        print(f"{part}\n{PARTS[part](given).to_string(index=False)}\n", flush=True)


if __name__ == "__main__":
    main()
