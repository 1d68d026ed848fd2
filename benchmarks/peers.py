"""SCLD beside its peers: the same splits, the same evaluation, the same tables.

    python benchmarks/peers.py [--data-dir DIR] [--datasets NAME ...] [--seeds 0 1 2]
        [--methods NAME ...] [--cache FOLDER] [--results FOLDER]
        [--cfgen CHECKOUT --cfgen-python PYTHON]
        [--scdiffusion CHECKOUT --scdiffusion-python PYTHON] [--scdesigner-python PYTHON]
    python benchmarks/peers.py --print [--results FOLDER]
    python benchmarks/peers.py --rare PEER ... [--left 10 25 50] [--to 200]

For each seed a dataset is split 70/30 within type. Each peer is fitted on the training part, at its
documented defaults and tuned, and generates cells with the types of the test part; where a peer
takes total counts, these are of random training cells of the type. `scld.evaluate` scores the cells
with three replicates. Beside it, published protocols are computed: the forest of GRouNdGAN and the
distances of gge-eval. Tables are mean ± sd over seeds.

Each peer runs in a process of its own, with the Python of its own environment: seconds, CPU seconds
and peak memory are those of that process. CFGen and scDiffusion are run from a checkout of their
repositories, which is copied and left as it is; the commit and every change are printed. A peer
that fails has a row that says so. Peers whose checkout or environment is not given are left out.

Cells, costs and scores are kept in --cache, so that each peer is run once for each dataset, seed
and settings. With --results, scores are added to peers.json, from which --print prints the tables.
With --rare, the cells of these peers oversample rare types, as in rare.py. docs/peers.md says what
was run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from common import (
    LABEL,
    RESULTS,
    arguments,
    begin,
    evaluation_options,
    log_counts,
    read_results,
    split_cells,
    spread,
    write_results,
)
from peer_protocols import GGE, GROUNDGAN, published, references
from peer_rare import benchmark as rare_benchmark
from peer_rare import print_rare
from peer_runs import (
    FAMILIES,
    ORDER,
    VARIANTS,
    Environment,
    Made,
    Peer,
    Work,
    environments,
    peers,
)
from quality import METRICS

import scld
from scld.errors import DataError
from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE

DATASETS = ["teaseq_pbmc", "baron_human1", "mouse_endocrinogenesis"]
FILE = "peers"
UNIT = ("dataset", "seed", "method")
TYPE_METRICS = ("c2st", "label_accuracy", "effect_slope")  # of each type, in the results
COSTS = ("seconds", "cpu_seconds", "peak_memory_mb", "model_mb")
PUBLISHED = ("cfgen_w2", "cfgen_mmd", "scdiffusion_mmd", GROUNDGAN, *GGE)
ABOUT, NOTE, FAILED = "about", "note", "failed"
SCORED = "synthetic cells"  # the name of a peer while it is scored: poisson is taken
Records = list[dict[str, Any]]


def scored(
    peer: Peer, made: Made, train: AnnData, test: AnnData, seed: int, given: argparse.Namespace
) -> Records:
    """All scores of a peer, from the cache if it has them."""
    path = made.folder / f"scores{'-quick' if given.quick else ''}.json"
    if given.rescore or not path.exists():
        table = evaluated(peer, made.cells(), train, test, seed, given)
        path.write_text(table.to_json(orient="records"))
    found: Records = json.loads(path.read_text())
    return found


def evaluated(
    peer: Peer, cells: AnnData, train: AnnData, test: AnnData, seed: int, given: argparse.Namespace
) -> pd.DataFrame:
    """Scores of cells by `scld.evaluate` and by published protocols, one row per group."""
    options = evaluation_options(given) | {"controls": False, "seed": seed}
    options["log_normalised"] = peer.log_normalised
    table = scld.evaluate(train, test, {SCORED: cells}, LABEL, **options).table
    table = table[(table["dataset"] == SCORED) & table["value"].notna()]
    logs = sp.csr_matrix(cells.X) if peer.log_normalised else log_counts(cells)
    others = published(log_counts(train), log_counts(test), logs, seed)
    rows = [{"group": OVERALL, "metric": k, "value": v} for k, v in others.items()]
    return pd.concat([table[["group", "metric", "value", "baseline"]], pd.DataFrame(rows)])


def records(
    peer: Peer, made: Made, train: AnnData, test: AnnData, seed: int, given: argparse.Namespace
) -> Records:
    """The scores that the docs need, costs, and what is to be said about a peer."""
    wanted = {"group": OVERALL, "method": peer.name}
    found = [{**wanted, "metric": name, "value": made.costs.get(name)} for name in COSTS]
    found += [{**wanted, "metric": ABOUT, "note": text} for text in made.about]
    found += [{**wanted, "metric": NOTE, "note": text} for text in made.notes]
    if made.error:
        return [*found, {**wanted, "metric": FAILED, "note": made.error}]
    try:
        scores = scored(peer, made, train, test, seed, given)
    except DataError as error:
        return [*found, {**wanted, "metric": FAILED, "note": f"its cells: {error}"}]
    kept = [s for s in scores if s["group"] == OVERALL or s["metric"] in TYPE_METRICS]
    return [*found, *({"method": peer.name, **score} for score in kept)]


def reference_records(
    train: AnnData, test: AnnData, work: Work, given: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Published protocols on real cells, and on real cells with genes shuffled."""
    path = work.folder / "references.json"
    if given.rescore or not path.exists():
        path.write_text(json.dumps(references(log_counts(train), log_counts(test), work.seed)))
    for name, scores in json.loads(path.read_text()).items():
        for metric, value in scores.items():
            yield {"method": name, "group": OVERALL, "metric": metric, "value": value}


def benchmark(
    name: str, seed: int, known: dict[str, Environment], given: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Every record of a dataset and seed; each peer is written when it is done."""
    train, test = split_cells(name, seed, given)
    work = Work.of(train, test.obs[LABEL], given.cache / f"{name}-{seed}", seed)
    about = {"dataset": name, "seed": seed}
    of_real = [about | row for row in reference_records(train, test, work, given)]
    write_results(FILE, of_real, given, UNIT)
    yield from of_real
    for peer in chosen(peers(given, train.n_obs), known, given):
        made = work.make(peer, known)
        found = [about | row for row in records(peer, made, train, test, seed, given)]
        say(name, seed, peer, made)
        write_results(FILE, found, given, UNIT)
        yield from found


def chosen(
    known: Sequence[Peer], there: dict[str, Environment], given: argparse.Namespace
) -> list[Peer]:
    """The peers that are asked for and can be run."""
    families = given.methods or {peer.family for peer in known}
    return [
        peer
        for peer in known
        if peer.family in families and all(step.environment in there for step in peer.steps)
    ]


def say(name: str, seed: int, peer: Peer, made: Made) -> None:
    """One line about a peer that was run."""
    costs = ", ".join(f"{key} {value:,.0f}" for key, value in made.costs.items())
    outcome = f"FAILED: {made.error}; see {made.folder}/log.txt" if made.error else costs
    print(f"{name}, seed {seed}: {peer.name}: {outcome}", flush=True)


def print_tables(found: pd.DataFrame) -> None:
    """For each dataset: scores, published protocols and costs; then what is to be said."""
    for name, of_dataset in found.groupby("dataset"):
        seeds = sorted(set(of_dataset["seed"].tolist()))
        for title, metrics in (("", METRICS), ("published protocols", PUBLISHED), ("costs", COSTS)):
            heading = ", ".join(part for part in (str(name), title, f"seeds {seeds}") if part)
            digits = 1 if title == "costs" else 4
            print(f"\n{heading}\n{one_table(of_dataset, metrics, digits).to_string()}")
    print_notes(found[found["metric"].isin([ABOUT, NOTE, FAILED])])


def print_notes(found: pd.DataFrame) -> None:
    """Versions and changes of each method once; what came out, for each dataset and seed."""
    for method, rows in in_order(found).groupby("method", sort=False):
        print(f"\n{method}")
        for text in rows.loc[rows["metric"] == ABOUT, "note"].unique():
            print(f"  {text}")
        of_runs = rows[rows["metric"] != ABOUT]
        for kind, dataset, seed, text in of_runs[["metric", "dataset", "seed", "note"]].to_numpy():
            print(f"  {dataset}, seed {seed}: {'FAILED: ' if kind == FAILED else ''}{text}")


def one_table(found: pd.DataFrame, metrics: Sequence[str], digits: int) -> pd.DataFrame:
    """One row per method, one column per metric, overall; mean ± sd over seeds."""
    rows = found[(found["group"] == OVERALL) & found["metric"].isin(metrics)]
    baseline = rows[rows["baseline"].notna()].drop_duplicates(["seed", "metric"])
    baseline = baseline.assign(method=BASELINE, value=baseline["baseline"])
    failed = found[found["metric"] == FAILED].assign(metric=metrics[0], value=np.nan)
    rows = pd.concat([baseline, rows, failed]).drop_duplicates(["method", "seed", "metric"])
    wide = rows.pivot(index=["method", "seed"], columns="metric", values="value")
    wide = wide.reindex(columns=list(metrics)).dropna(axis=1, how="all").reset_index()
    wide = in_order(wide)
    wide = wide.astype({column: float for column in wide if column in metrics})
    table = spread(wide, ["method"], digits)
    runs = failed["method"].value_counts()
    return table.assign(failed=runs.reindex(table.index).fillna("")) if len(runs) else table


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows sorted by method: real cells, controls, statistical and deep models, SCLD."""

    def place(method: str) -> tuple[int, int]:
        name, _, variant = method.partition(", ")
        return ORDER.index(name), VARIANTS.index(variant)

    return rows.sort_values("method", key=lambda names: names.map(place), kind="stable")


def parsed() -> argparse.Namespace:
    """The arguments, after the versions are printed."""
    parser = arguments(__doc__, DATASETS)
    parser.add_argument("--methods", nargs="+", choices=FAMILIES, help="default: all")
    parser.add_argument("--cache", type=Path, help="folder of generated cells, costs and scores")
    parser.add_argument("--rescore", action="store_true", help="score the cells in --cache again")
    parser.add_argument("--print", action="store_true", help="print the tables, run nothing")
    parser.add_argument("--cfgen", type=Path, help="a checkout of CFGen")
    parser.add_argument("--cfgen-python", help="the Python of its environment")
    parser.add_argument("--cfgen-epochs", nargs=2, type=int, default=(300, 1500))
    parser.add_argument("--scdiffusion", type=Path, help="a checkout of scDiffusion")
    parser.add_argument("--scdiffusion-python", help="the Python of its environment")
    steps = "training steps of autoencoder, backbone and classifier"
    parser.add_argument(
        "--scdiffusion-steps", nargs=3, type=int, default=(21_000, 60_000, 20_000), help=steps
    )
    parser.add_argument("--scdesigner-python", help="the Python of an environment with scdesigner")
    parser.add_argument("--rare", nargs="+", help="peers that oversample rare types, by name")
    parser.add_argument("--left", nargs="+", type=int, default=[10, 25, 50])
    parser.add_argument("--to", type=int, default=200)
    given = begin(parser)
    if given.quick:
        given.methods = given.methods or ["controls", "copula", "scvi"]
    return given


def main() -> None:
    given = parsed()
    if given.print:
        print_tables(read_results((given.results or RESULTS) / f"{FILE}.json"))
        return
    known = environments(given)
    with tempfile.TemporaryDirectory() as temporary:
        given.cache = given.cache or Path(temporary)
        if given.rare:
            print_rare(rare_benchmark(known, given), given)
            return
        work = [(name, seed) for name in given.datasets for seed in given.seeds]
        found = [row for name, seed in work for row in benchmark(name, seed, known, given)]
    print_tables(pd.DataFrame(found))


if __name__ == "__main__":
    main()
