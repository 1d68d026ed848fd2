"""Rare types oversampled by the cells of peers: the protocol of rare.py, for peers.py."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from common import LABEL, log_counts, long_records, split_cells, write_results
from peer_runs import Environment, Peer, Work, peers
from rare import (
    CLASS_WEIGHTS,
    TYPES,
    Features,
    Training,
    forest,
    logistic,
    oversampled,
    print_tables,
    reduced,
    scores,
)

from scld.evaluation.metrics import Space

FILE = "peers-rare"
Rows = list[dict[str, Any]]


def benchmark(known: Mapping[str, Environment], given: argparse.Namespace) -> pd.DataFrame:
    """One row per dataset, cells left, seed, classifier, method and type."""
    found: Rows = []
    for name in given.datasets:
        for number in given.left:
            for seed in given.seeds:
                rows = list(_benchmark(name, number, seed, known, given))
                about = ["dataset", "left", "seed", "classifier", "method", "group"]
                table = pd.DataFrame(rows).rename(columns={"type": "group"})
                write_results(FILE, long_records(table, about), given, about[:3])
                found += rows
    return pd.DataFrame(found)


def _benchmark(
    name: str, number: int, seed: int, known: Mapping[str, Environment], given: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """One row per classifier, method and type."""
    train, test = split_cells(name, seed, given)
    types = TYPES[name]
    left = reduced(train, types, number, seed)
    added = _made(name, number, seed, left, known, given)
    space, truth = Space.fit(log_counts(left), seed=seed), test.obs[LABEL].to_numpy(str)

    def genes(cells: AnnData) -> np.ndarray:
        return space.standardise(space.dense(log_counts(cells)))

    def components(cells: AnnData) -> np.ndarray:
        return space.project(space.dense(log_counts(cells)))

    for classifier, features in ((logistic, genes), (forest, components)):
        of_test = features(test)
        for method, training in _training_sets(left, added, train, features, given.to, seed):
            model = classifier(seed, "balanced" if method == CLASS_WEIGHTS else None)
            predicted = model.fit(*training).predict(of_test)
            about = {"dataset": name, "left": number, "seed": seed, "method": method}
            for row in scores(truth, predicted, types):
                yield about | {"classifier": classifier.__name__, **row}


def _made(
    name: str,
    number: int,
    seed: int,
    left: AnnData,
    known: Mapping[str, Environment],
    given: argparse.Namespace,
) -> dict[str, AnnData]:
    """What is left, with the cells that each peer adds."""
    sizes = left.obs[LABEL].astype(str).value_counts()
    missing = (given.to - sizes).clip(lower=0)
    types = pd.Series(np.repeat(missing.index, missing.to_numpy()))
    types.index = types.index.map("added {}".format)
    work = Work.of(left, types, given.cache / f"{name}-{number}-left-{seed}", seed)
    found = {}
    for peer in _named(peers(given, left.n_obs), given):
        made = work.make(peer, known)
        print(f"{name}, {number} left, seed {seed}: {peer.name} {made.error}", flush=True)
        if not made.error:
            found[peer.name] = _joined(left, made.cells())
    return found


def _named(known: list[Peer], given: argparse.Namespace) -> list[Peer]:
    """The peers that ``--rare`` names."""
    counts = {peer.name: peer for peer in known if not peer.log_normalised}
    unknown = sorted(set(given.rare) - set(counts))
    if unknown:
        raise SystemExit(f"--rare: {', '.join(unknown)}: not among {'; '.join(counts)}")
    return [counts[name] for name in given.rare]


def _joined(left: AnnData, made: AnnData) -> AnnData:
    matrix = sp.vstack([sp.csr_matrix(left.X), sp.csr_matrix(made.X)], format="csr")
    obs = pd.concat([cells.obs[[LABEL]].astype(str) for cells in (left, made)])
    return AnnData(matrix, obs=obs, var=pd.DataFrame(index=left.var_names))


def _training_sets(
    left: AnnData,
    added: Mapping[str, AnnData],
    train: AnnData,
    features: Features,
    to: int,
    seed: int,
) -> Iterator[tuple[str, Training]]:
    """What the classifiers are trained on, by method."""
    real = Training.of(left, features)
    yield "real only", real
    yield CLASS_WEIGHTS, real
    yield from oversampled(real, left, features, to, seed)
    for name, cells in added.items():
        yield name, Training.of(cells, features)
    yield "all real cells", Training.of(train, features)


def print_rare(found: pd.DataFrame, given: argparse.Namespace) -> None:
    """One table per dataset and score."""
    for name, rows in found.groupby("dataset", sort=False):
        print_tables(str(name), rows.drop(columns="dataset"), given)
