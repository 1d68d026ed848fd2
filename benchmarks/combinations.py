"""Unseen combinations: cells of a type under a condition that training has of other types only.

    python benchmarks/combinations.py [--data-dir DIR] [--datasets NAME ...] [--types TYPE ...]
        [--seeds 0 1 2]

PBMC with and without interferon beta, labels cell_type and condition. The stimulated cells of one
type are left out. SCLD is fitted on all others and generates the missing ones: by
`sample(..., unseen=True)`, and by `transfer` of the type's control cells. Stimulated and control
cells of the type are split into halves. The true change is the log-fold change between the first
halves; each prediction gives its own, against the second half of the controls:

    correlation, slope    of the predicted change with the true one, over all genes
    top 50                share of the 50 genes that truly change most among the 50 predicted ones
    W2                    between equally many predicted cells and cells of the first half of the
                          stimulated ones, on 30 components fitted on training cells
    own controls          the correlation of the change against control cells that the same method
                          generated with the same seed. The second half of the real controls is so
                          small that its noise alone lowers the correlation; a mean shift does not
                          depend on it

Beside them: the second half of the stimulated cells (the baseline), control cells unchanged, and
control cells plus the mean shift of the other types. Mean ± sd over seeds; each seed has its own
halves and its own fit. Without --data-dir the condition is made up at random: the results then mean
nothing, and only show that the script runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData, concat
from common import (
    LABEL,
    SHIPPED,
    arguments,
    begin,
    fitted,
    load_cells,
    log_counts,
    long_records,
    spread,
    write_results,
)

import scld
from scld.evaluation import metrics
from scld.evaluation.controls import BASELINE

CONDITION, BEFORE, AFTER = "condition", "ctrl", "stim"
LEFT_OUT = {  # dataset -> types whose stimulated cells are left out, one after another
    "kang_ifnb_small": ["B cells", "CD14+ Monocytes", "CD8 T cells"],
    SHIPPED: ["naive B cell"],
}
STRENGTHS = (0.1, 0.3, 0.6, 1.0)
SAMPLED = 1000  # cells of a sample
REPEATED = 10  # transfers of the same cells, so that their own noise hardly counts


def mean(log: sp.csr_matrix) -> np.ndarray:
    """Mean of each gene."""
    return metrics.column_moments(log)[0]


@dataclass(frozen=True)
class Truth:
    """The cells that are left out.

    Parameters
    ----------
    change
        Log-fold changes ``[genes]``.
    components
        ``[cells, 30]`` of the stimulated cells.
    space
        Fitted on the training cells.
    controls
        Log-normalised control cells that predictions are compared with.
    """

    change: np.ndarray
    components: np.ndarray
    space: metrics.Space
    controls: sp.csr_matrix

    def score_cells(
        self, log: sp.csr_matrix, own_controls: sp.csr_matrix | None = None
    ) -> dict[str, float]:
        """Scores of predicted stimulated cells."""
        dense = self.space.dense(log)
        scores = self.score(mean(log) - mean(self.controls), dense)
        if own_controls is not None:
            own_change = mean(log) - mean(own_controls)
            scores["own controls"] = self.score(own_change, dense)["correlation"]
        return scores

    def score(self, change: np.ndarray, dense: np.ndarray) -> dict[str, float]:
        """Scores of a predicted change, and of predicted values of variable genes."""
        real, predicted = self.change[None], change[None]
        all_genes = np.arange(len(change))[None]
        correlation = metrics.effect_correlation(real, predicted, all_genes)
        top = metrics.de_recall(abs(real), abs(predicted)) if change.any() else np.nan
        n = min(len(self.components), len(dense))
        return {
            "correlation": correlation,
            "slope": metrics.effect_slope(real, predicted, all_genes),
            "top 50": top,
            "W2": metrics.wasserstein(self.components[:n], self.space.project(dense)[:n]),
            "own controls": correlation,
        }


def halves(cells: AnnData, rng: np.random.Generator) -> tuple[AnnData, AnnData]:
    """Two random halves."""
    order = rng.permutation(cells.n_obs)
    middle = cells.n_obs // 2
    return cells[order[:middle]].copy(), cells[order[middle:]].copy()


def mean_shift(train: AnnData, left_out: str) -> np.ndarray:
    """The change of the other types, the mean over types."""
    log = log_counts(train)
    types, conditions = train.obs[LABEL].to_numpy(str), train.obs[CONDITION].to_numpy(str)
    changes = []
    for kind in np.setdiff1d(types, [left_out]):
        after, before = ((types == kind) & (conditions == value) for value in (AFTER, BEFORE))
        changes.append(mean(log[after]) - mean(log[before]))
    return np.asarray(np.mean(changes, axis=0))


def benchmark(
    name: str, left_out: str, seed: int, given: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """One row per prediction."""
    cells = load_cells(name, given, [CONDITION])
    of_type = (cells.obs[LABEL] == left_out).to_numpy()
    after = (cells.obs[CONDITION] == AFTER).to_numpy()
    train, rng = cells[~(of_type & after)].copy(), np.random.default_rng(seed)
    stimulated = halves(cells[of_type & after], rng)
    controls = halves(cells[of_type & ~after], rng)
    truth = true_change(train, stimulated[0], controls, seed)
    about = {"seed": seed, "type": left_out}
    for method, scores in simple_predictions(truth, stimulated[1], mean_shift(train, left_out)):
        yield about | {"method": method, **scores}
    file = f"{name}-without-{left_out.replace(' ', '-')}"
    synth = fitted(train, [LABEL, CONDITION], seed, given, file)
    for method, predicted, own in synthetic_cells(synth, left_out, controls[1], seed, given):
        scores = truth.score_cells(log_counts(predicted), log_counts(own))
        yield about | {"method": method, **scores}


def true_change(
    train: AnnData, stimulated: AnnData, controls: tuple[AnnData, AnnData], seed: int
) -> Truth:
    """What the first halves show; predictions are compared with the second half of the controls."""
    space, log = metrics.Space.fit(log_counts(train), seed=seed), log_counts(stimulated)
    change = mean(log) - mean(log_counts(controls[0]))
    return Truth(change, space.project(space.dense(log)), space, log_counts(controls[1]))


def simple_predictions(
    truth: Truth, stimulated: AnnData, shift: np.ndarray
) -> Iterator[tuple[str, dict[str, float]]]:
    """The baseline, and the two predictions without a model."""
    yield BASELINE, truth.score_cells(log_counts(stimulated))
    unchanged = truth.space.dense(truth.controls)
    yield "control", truth.score(np.zeros_like(shift), unchanged)
    shifted = unchanged + shift[truth.space.genes]
    yield "control + mean shift", truth.score(shift, shifted)


def synthetic_cells(
    synth: scld.Synthesizer,
    kind: str,
    controls: AnnData,
    seed: int,
    given: argparse.Namespace,
) -> Iterator[tuple[str, AnnData, AnnData]]:
    """Stimulated cells, and control cells generated in the same way."""

    def sampled(condition: str) -> AnnData:
        where = {LABEL: kind, CONDITION: condition}
        return synth.sample(SAMPLED, where=where, unseen=True, seed=seed, progress=False)

    def transferred(condition: str, strength: float) -> AnnData:
        to, options = {CONDITION: condition}, {"strength": strength, "progress": False}
        seeds = [REPEATED * seed + i for i in range(given.repeated)]
        several = [synth.transfer(controls, to, seed=each, **options) for each in seeds]
        return concat(several, index_unique="-")

    yield "sample", sampled(AFTER), sampled(BEFORE)
    for strength in given.strengths:
        after, before = (transferred(condition, strength) for condition in (AFTER, BEFORE))
        yield f"transfer {strength:g}", after, before


def main() -> None:
    parser = arguments(__doc__, ["kang_ifnb_small"])
    parser.add_argument("--types", nargs="+", help="left out one after another")
    given = begin(parser)
    given.strengths, given.repeated = STRENGTHS, REPEATED
    if given.quick:
        given.strengths, given.repeated = STRENGTHS[1:2], 2
    for name in given.datasets:
        types = given.types or LEFT_OUT.get(name)
        if not types:
            parser.error(f"--types: name the types of {name} to leave out")
        rows: list[dict[str, Any]] = []
        for left_out in types:
            for seed in given.seeds:
                found = list(benchmark(name, left_out, seed, given))
                rows += found
                records = long_records(found, ["type", "seed", "method"])
                records = records.rename(columns={"type": "group"}).assign(dataset=name)
                write_results("combinations", records, given, ("dataset", "group", "seed"))
        print(f"\n{name}, stimulated cells of one type left out, seeds {given.seeds}")
        print(f"{spread(rows, ['type', 'method']).to_string()}\n", flush=True)


if __name__ == "__main__":
    main()
