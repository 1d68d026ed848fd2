"""What do pre-guidance and post-guidance do? Every weight with every kind of post-guidance, beside real cells and the trivial fakes.

    python benchmarks/guidance.py --data-dir DIR [--sets teaseq_pbmc mouse_ens] [--seeds 0] [--draws 3]

For each seed a set is split 70/30 within type and SCLD is fitted once on the training part. Each draw is a sampling of its own, with the test
part's labels, scored on a halving of the test cells of its own. Figures are overall, mean ± sd over seeds and draws; with one seed they do not hold
the spread between fits. The classifiers and the cells that score were seen by no critic.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from common import LABEL, LABELS, arguments, begin, fitted, judged, spread

import scld
from scld import metrics
from scld.judge import BASELINES, OVERALL, Cells, Reference, View, c2st_scores, common_sizes, draw, halve, learning_scores, make_baseline, told_apart

WEIGHTS = (1.0, 1.5, 2.0, 3.0)
POSTS = ("off", "correct", "select", "both")
FIGURES = ["precision", "coverage", "tstr_f1", "label_accuracy", "c2st", "c2st_forest", "c2st_linear", "c2st_boosting"]
MOST_CELLS = 2000


@dataclass(frozen=True)
class Bar:
    """What a draw is scored against: one half of the test cells, with the other half as the floor."""

    reference: Reference
    test: View
    halves: tuple[View, View]
    sizes: dict[int, int]  # cells of each type in a half
    teaching: dict[int, int]  # in the set that a classifier is taught on
    seed: int

    @classmethod
    def of(cls, reference: Reference, test: View, seed: int) -> Bar:
        counts, known = np.bincount(test.cells.codes), np.bincount(reference.train.codes)
        sizes = common_sizes([counts // 2], MOST_CELLS)
        first, second = halve(test.cells.codes, sizes, np.random.default_rng(seed))
        return cls(reference, test, (test[first], test[second]), sizes, common_sizes([known, counts], MOST_CELLS), seed)

    def floor(self) -> dict[str, float]:
        train = self.reference.train
        return self._score(self.halves[1], self.reference.view(train[draw(train.codes, self.teaching, np.random.default_rng(self.seed))]))

    def score(self, cells: Cells) -> dict[str, float]:
        rng = np.random.default_rng(self.seed)
        asked, teachers = (self.reference.view(cells[draw(cells.codes, sizes, rng)]) for sizes in (self.sizes, self.teaching))
        return self._score(asked, teachers)

    def fake(self, name: str) -> dict[str, float]:
        rng, wanted = np.random.default_rng(self.seed), {t: max(n, self.sizes.get(t, 0)) for t, n in self.teaching.items()}
        return self.score(make_baseline(name, self.reference.train, wanted, rng))

    def _score(self, asked: View, teachers: View) -> dict[str, float]:
        real = self.halves[0]
        scores = c2st_scores(told_apart(real, asked, self.reference.space, self.seed)) | metrics.precision_recall(real.components, asked.components)
        scores |= {figure: value for scope, figure, value in learning_scores(teachers, asked, self.test, self.reference) if scope == OVERALL}
        return {figure: scores[figure] for figure in FIGURES}


def ablation(name: str, seed: int, given: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a draw of every variant, of the floor and of the trivial fakes."""
    train, test = scld.data.split(scld.data.read(given.data_dir / f"{name}.h5ad"), LABEL, seed=seed)
    labels, types = LABELS.get(name, [LABEL]), sorted(set(train.obs[LABEL]))
    synth = fitted(train, labels, seed, given, name)
    reference = Reference.of(judged(train, types), True, seed)
    view = reference.view(judged(test, types))
    rows = []
    for number in range(given.draws):
        bar = Bar.of(reference, view, 1000 * seed + number)
        rows.append({"weight": "real floor", "post": "", **bar.floor()})
        rows += [{"weight": fake, "post": "", **bar.fake(fake)} for fake in BASELINES]
        for weight in given.weights:
            for post in given.posts:
                cells = synth.sample(obs=test.obs[labels], guidance=weight, post=post, seed=bar.seed, progress=False)
                rows.append({"weight": f"{weight:g}", "post": post, **bar.score(judged(cells, types))})
    return [{"seed": seed, **row} for row in rows]


def main() -> None:
    parser = arguments(__doc__, ["teaseq_pbmc", "mouse_ens"], seeds=[0])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--weights", nargs="+", type=float, default=list(WEIGHTS))
    parser.add_argument("--posts", nargs="+", choices=POSTS, default=list(POSTS))
    given = begin(parser)
    for name in given.sets:
        rows = pd.DataFrame([row for seed in given.seeds for row in ablation(name, seed, given)])
        print(f"\n{name}, seeds {given.seeds}, {given.draws} draws each\n{spread(rows, ['weight', 'post']).to_string()}\n", flush=True)


if __name__ == "__main__":
    main()
