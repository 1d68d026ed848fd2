"""Can cells be made that training never saw: a type under a condition known from other types only?

    python benchmarks/combinations.py --data-dir DIR [--sets kang_ifnb_small] [--types "B cells" ...] [--seeds 0 1 2]

PBMC with and without interferon beta, labels cell_type and condition. The stimulated cells of one type are left out, SCLD is fitted on all others,
and asked for the missing ones: by `sample(..., unseen=True)`, and by `transfer` of the type's control cells. Stimulated and control cells of the
type are halved. The truth is the log-fold change between the first halves; each answer gives its own, against the second half of the controls:

    correlation, slope    of the change with the true one, over all genes
    top 50                share of the 50 genes that truly change most among the 50 that change most here
    W2                    from as many of the made cells to the first half of the stimulated ones, 30 components fitted on training cells
    own controls          the correlation once more, of the change against the answer's own control cells, made in the same way with the same seed:
                          the second half of the real ones is so small a sample that its noise alone lowers the figure, and a mean shift,
                          which never sees it, is spared that

Beside them: the second half of the stimulated cells (the floor), control cells unchanged, control cells plus the mean shift of the other types.
Mean ± sd over seeds, each a halving and a fit of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData, concat
from common import LABEL, arguments, begin, fitted, log_counts, spread

import scld
from scld import metrics
from scld.metrics.space import column_moments

CONDITION, BEFORE, AFTER = "condition", "ctrl", "stim"
STRENGTHS = (0.1, 0.3, 0.6, 1.0)
SAMPLED, DRAWS = 1000, 10  # cells of a sample, and transfers of the same cells: so many that their own noise hardly counts


def mean(log: sp.csr_matrix) -> np.ndarray:
    """Of each gene."""
    return column_moments(log)[0]


@dataclass(frozen=True)
class Truth:
    """How the left-out cells really are."""

    change: np.ndarray  # [genes]
    components: np.ndarray  # [cells, 30] of the stimulated ones
    space: metrics.Space
    base: sp.csr_matrix  # the controls that answers are compared with

    def of_cells(self, log: sp.csr_matrix, base: sp.csr_matrix | None = None) -> dict[str, float]:
        """The figures of some stimulated cells."""
        change = mean(log) - mean(self.base if base is None else base)
        return self.score(change, self.space.dense(log))

    def score(self, change: np.ndarray, dense: np.ndarray) -> dict[str, float]:
        real, made = self.change[None], change[None]
        agreement = metrics.marker_agreement(real, made, np.arange(len(change))[None])
        overlap = float(metrics.de_recall(abs(real), abs(made))[0]) if change.any() else float("nan")
        n = min(len(self.components), len(dense))
        w2 = metrics.wasserstein(self.components[:n], self.space.project(dense)[:n])
        return {"correlation": agreement["correlation"], "slope": agreement["slope"], "top 50": overlap, "W2": w2, "own controls": agreement["correlation"]}


def halves(cells: AnnData, rng: np.random.Generator) -> tuple[AnnData, AnnData]:
    order = rng.permutation(cells.n_obs)
    return cells[order[: cells.n_obs // 2]].copy(), cells[order[cells.n_obs // 2 :]].copy()


def mean_shift(train: AnnData, kind: str) -> np.ndarray:
    """The change of the other types, each counting as much."""
    log, types, conditions = log_counts(train), train.obs[LABEL].to_numpy(), train.obs[CONDITION].to_numpy()
    others = [other for other in np.unique(types.astype(str)) if other != kind]
    return np.asarray(
        np.mean([mean(log[(types == other) & (conditions == AFTER)]) - mean(log[(types == other) & (conditions == BEFORE)]) for other in others], axis=0)
    )


def benchmark(name: str, kind: str, seed: int, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row an answer."""
    cells = scld.data.read(given.data_dir / f"{name}.h5ad")
    of_type, after = (cells.obs[LABEL] == kind).to_numpy(), (cells.obs[CONDITION] == AFTER).to_numpy()
    train = cells[~(of_type & after)].copy()
    rng = np.random.default_rng(seed)
    stimulated, controls = halves(cells[of_type & after], rng), halves(cells[of_type & ~after], rng)
    space, base = metrics.Space.fit(log_counts(train), seed=seed), log_counts(controls[1])
    real = log_counts(stimulated[0])
    truth = Truth(mean(real) - mean(log_counts(controls[0])), space.project(space.dense(real)), space, base)
    for answer, figures in answers(truth, stimulated[1], controls[1], mean_shift(train, kind)):
        yield {"seed": seed, "type": kind, "answer": answer, **figures}
    synth = fitted(train, [LABEL, CONDITION], seed, given, f"{name}-without-{kind.replace(' ', '-')}")
    for answer, made, own in synthesised(synth, kind, controls[1], seed):
        log = log_counts(made)
        against_own = truth.of_cells(log, log_counts(own))["correlation"]
        yield {"seed": seed, "type": kind, "answer": answer, **truth.of_cells(log), "own controls": against_own}


def answers(truth: Truth, floor: AnnData, controls: AnnData, shift: np.ndarray) -> Iterator[tuple[str, dict[str, float]]]:
    """The floor and the two baselines."""
    yield "real floor", truth.of_cells(log_counts(floor))
    unchanged = truth.space.dense(truth.base)
    yield "control", truth.score(np.zeros_like(shift), unchanged)
    yield "control + mean shift", truth.score(shift, unchanged + shift[truth.space.genes])


def synthesised(synth: scld.Synthesizer, kind: str, controls: AnnData, seed: int) -> Iterator[tuple[str, AnnData, AnnData]]:
    """Stimulated cells, and control cells made in the same way."""

    def sampled(condition: str) -> AnnData:
        return synth.sample(SAMPLED, where={LABEL: kind, CONDITION: condition}, unseen=True, seed=seed, progress=False)

    def transferred(condition: str, strength: float) -> AnnData:
        draws = (synth.transfer(controls, {CONDITION: condition}, strength=strength, seed=DRAWS * seed + i, progress=False) for i in range(DRAWS))
        return concat(list(draws), index_unique="-")

    yield "sample", sampled(AFTER), sampled(BEFORE)
    for strength in STRENGTHS:
        yield f"transfer {strength:g}", transferred(AFTER, strength), transferred(BEFORE, strength)


def main() -> None:
    parser = arguments(__doc__, ["kang_ifnb_small"])
    parser.add_argument("--types", nargs="+", default=["B cells", "CD14+ Monocytes", "CD8 T cells"], help="left out one after another")
    given = begin(parser)
    for name in given.sets:
        rows = pd.DataFrame([row for kind in given.types for seed in given.seeds for row in benchmark(name, kind, seed, given)])
        print(f"\n{name}, stimulated cells of one type left out, seeds {given.seeds}\n{spread(rows, ['type', 'answer']).to_string()}\n", flush=True)


if __name__ == "__main__":
    main()
