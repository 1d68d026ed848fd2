"""Does a path between two populations follow the continuum? `Synthesizer.interpolate` on a differentiation, beside straight lines.

    python benchmarks/continuum.py --data-dir DIR [--sets mouse_endocrinogenesis] [--pairs Ductal:Beta ...] [--seeds 0 1 2]

For each seed the set is split 70/30 within type, and SCLD is fitted on the training part. Two trivial ways lead from one end to the other, with the
same positions: `means`, Poisson cells of the interpolated mean profiles and depths of both ends; `pairs`, a random training cell of each end, of
whose counts the shares (1 - position) and (position) are kept, as in a doublet. Mean ± sd over seeds of:

    order        rank correlation of a cell's position with the stage (in the order of differentiation, see STAGES) of the type that a classifier
                 taught on real training cells sees; 1 is a path through all stages in turn
    between      share of the cells at positions .2 to .8 that it sees as a stage between the two ends; astray: as a type that is on no way between them
    certain      the mean probability that it gives to the type it sees; real test cells beside it
    distance     mean and 95 % quantile of the distance to the nearest of half of the test cells, 30 components fitted on training cells; the
                 other half is the floor. Below the floor is not better: cells without noise lie near others

Then the types seen along the way, in tenths of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from common import LABEL, arguments, begin, fitted, log_counts, spread

import scld
from scld import metrics

STAGES = {"Ductal": 0, "Ngn3 low EP": 1, "Ngn3 high EP": 2, "Pre-endocrine": 3, "Alpha": 4, "Beta": 4, "Delta": 4, "Epsilon": 4}  # Bastidas-Ponce 2019
PAIRS = ("Ductal:Beta", "Ductal:Alpha", "Ngn3 high EP:Alpha")
CELLS = 500  # on a path


@dataclass(frozen=True)
class Judge:
    """What real cells say of others: a classifier taught on training cells, and where half of the test cells lie."""

    space: metrics.Space
    classifier: Any
    places: np.ndarray  # [cells, 30]

    @classmethod
    def of(cls, train: AnnData, real: AnnData, seed: int) -> Judge:
        from sklearn.linear_model import LogisticRegression

        log = log_counts(train)
        space = metrics.Space.fit(log, seed=seed)
        classifier = LogisticRegression(max_iter=1000, tol=1e-3).fit(space.project(space.dense(log)), train.obs[LABEL].astype(str))
        return cls(space, classifier, space.project(space.dense(log_counts(real))))

    def see(self, cells: AnnData) -> tuple[np.ndarray, dict[str, float]]:
        """The types seen, and the figures that need no path."""
        x = self.space.project(self.space.dense(log_counts(cells)))
        chances, distance = self.classifier.predict_proba(x), metrics.nearest_distance(x, self.places)
        figures = {"certain": chances.max(axis=1).mean(), "distance": distance.mean(), "distance, 95 %": np.quantile(distance, 0.95)}
        return self.classifier.classes_[chances.argmax(axis=1)], figures


def means(train: AnnData, ends: tuple[str, str], position: np.ndarray, rng: np.random.Generator) -> AnnData:
    """Poisson cells of interpolated mean profiles, at interpolated log depths of random cells of both ends."""
    parts = [sp.csr_matrix(train[train.obs[LABEL] == end].X) for end in ends]
    totals = [np.asarray(part.sum(axis=1)).ravel() for part in parts]
    profiles = [np.asarray(part.multiply(1 / total[:, None]).mean(axis=0)).ravel() for part, total in zip(parts, totals, strict=True)]
    depth = np.exp(_between(np.log(rng.choice(totals[0], len(position))), np.log(rng.choice(totals[1], len(position))), position))
    profile = _between(profiles[0], profiles[1], position[:, None])
    return AnnData(sp.csr_matrix(rng.poisson(profile * depth[:, None]), dtype=np.float32), var=train.var)


def pairs(train: AnnData, ends: tuple[str, str], position: np.ndarray, rng: np.random.Generator) -> AnnData:
    """Counts of a random cell of each end, each thinned by its share."""
    counts = np.zeros((len(position), train.n_vars))
    for end, share in zip(ends, (1 - position, position), strict=True):
        part = sp.csr_matrix(train[train.obs[LABEL] == end].X)
        counts += rng.binomial(part[rng.integers(part.shape[0], size=len(position))].toarray().astype(int), share[:, None])
    return AnnData(sp.csr_matrix(counts, dtype=np.float32), var=train.var)


def _between(a: np.ndarray, b: np.ndarray, position: np.ndarray) -> np.ndarray:
    return np.asarray((1 - position) * a + position * b)


def along(position: np.ndarray, seen: np.ndarray, ends: tuple[str, str]) -> dict[str, float]:
    """How the types seen follow the path."""
    from scipy.stats import spearmanr

    first, last = (STAGES[end] for end in ends)
    stage = np.array([STAGES[kind] for kind in seen])
    inside = (stage > min(first, last)) & (stage < max(first, last))
    middle = (position >= 0.2) & (position <= 0.8)
    order = spearmanr(position, np.sign(last - first) * stage).statistic
    return {"order": float(order), "between": float(inside[middle].mean()), "astray": float((~inside & ~np.isin(seen, ends))[middle].mean())}


def walk(synth: scld.Synthesizer, train: AnnData, judge: Judge, ends: tuple[str, str], seed: int) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """A row of figures a way, and the types seen along it."""
    path = synth.interpolate({LABEL: ends[0]}, {LABEL: ends[1]}, CELLS, seed=seed, progress=False)
    position, rng = path.obs["position"].to_numpy(float), np.random.default_rng(seed)
    ways = {"interpolate": path, "means": means(train, ends, position, rng), "pairs": pairs(train, ends, position, rng)}
    for way, cells in ways.items():
        seen, figures = judge.see(cells)
        key: dict[str, Any] = {"seed": seed, "path": " to ".join(ends), "way": way}
        tenths = np.minimum((position * 10).astype(int), 9) / 10
        shares = pd.crosstab(tenths, seen, normalize="index").rename_axis(index="from", columns=None).reset_index()
        yield key | along(position, seen, ends) | figures, shares.assign(**key)


def benchmark(name: str, seed: int, given: argparse.Namespace) -> Iterator[tuple[dict[str, Any], pd.DataFrame | None]]:
    """The rows of all paths, and of the floor."""
    train, test = scld.data.split(scld.data.read(given.data_dir / f"{name}.h5ad"), LABEL, seed=seed)
    other, real = scld.data.split(test, LABEL, test_share=0.5, seed=seed)
    judge = Judge.of(train, real, seed)
    yield {"seed": seed, "path": "real floor", "way": "", **judge.see(other)[1]}, None
    synth = fitted(train, [LABEL], seed, given, name)
    for pair in given.pairs:
        first, last = pair.split(":")
        yield from walk(synth, train, judge, (first, last), seed)


def main() -> None:
    parser = arguments(__doc__, ["mouse_endocrinogenesis"])
    parser.add_argument("--pairs", nargs="+", default=PAIRS, help="ends of paths, TYPE:TYPE")
    given = begin(parser)
    for name in given.sets:
        rows, shares = zip(*(found for seed in given.seeds for found in benchmark(name, seed, given)), strict=True)
        columns = ["seed", "path", "way", "order", "between", "astray", "certain", "distance", "distance, 95 %"]
        table = spread(pd.DataFrame(rows)[columns], ["path", "way"])
        print(f"\n{name}, {CELLS} cells a path, seeds {given.seeds}\n{table.to_string()}\n\nmean share of the types seen along the way", flush=True)
        seen = pd.concat([part for part in shares if part is not None]).fillna(0).drop(columns="seed")
        order = sorted(set(seen) & set(STAGES), key=lambda kind: STAGES[kind])
        print(seen.groupby(["path", "way", "from"], sort=False)[order].mean().round(2).to_string(), flush=True)


if __name__ == "__main__":
    main()
