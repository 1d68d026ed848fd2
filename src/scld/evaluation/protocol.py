"""The evaluation protocol: which cells are compared with which, so that scores are comparable.

Genes, scaler and components are fitted on the training cells. The test cells are split at random
into two halves within each type. A synthetic dataset and the second half are each scored against
the first half, in equal numbers and composition. The score of the second half is the real-vs-real
baseline: what real cells get. This is repeated for several splits (replicates). Negative controls
are scored in the first of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from scld.errors import DataError
from scld.evaluation.cells import OVERALL, Cells, Reference, View
from scld.evaluation.comparison import Arrays, Comparison, DatasetPair
from scld.evaluation.controls import BASELINE, CONTROLS, make_control
from scld.evaluation.memorisation import HeldOutSpace, Memorisation
from scld.evaluation.metrics import labels
from scld.evaluation.registry import BY_NAME, METRICS, Metric, Scope
from scld.evaluation.subsets import Sizes, common_sizes, sample_rows, split_halves

MIN_COMMON_CELLS = 20  # cells that every dataset and half of the test cells have in common
Group = int | str  # the code of a type, a label if there are several, or OVERALL
Step = Callable[[str], None]  # called with what is computed next


@dataclass(frozen=True)
class Score:
    """One number: of a dataset, on a group of cells, by a metric, in one replicate."""

    dataset: str
    group: Group
    metric: str
    replicate: int
    value: float


@dataclass(frozen=True, eq=False)
class Shown:
    """What plots show of a dataset: its cells in the first replicate."""

    view: View
    classifier_scores: dict[str, Arrays]  # of real and of synthetic cells
    nearest: Arrays | None  # distances to the nearest training and test cell


@dataclass
class Evaluation:
    """Every score, and the cells for plots and for the tables of genes.

    Parameters
    ----------
    reference
        What is fitted on the training cells.
    test, synthetic
        Every test cell, and every cell of each synthetic dataset that was read.
    sizes
        Cells of each type that every dataset is scored on.
    scores
        Every score.
    real
        The first half of the test cells, in the first replicate.
    shown
        The other datasets, the baseline among them.
    """

    reference: Reference
    test: Cells
    synthetic: Mapping[str, Cells]
    sizes: Sizes
    scores: list[Score] = field(default_factory=list)
    real: View | None = None
    shown: dict[str, Shown] = field(default_factory=dict)

    def add(self, name: str, scores: Mapping[str, float]) -> None:
        """Add scores of all cells of a dataset."""
        for metric, value in scores.items():
            self.scores.append(Score(name, OVERALL, metric, 0, value))


def run(
    train: Cells,
    test: Cells,
    synthetic: Mapping[str, Cells],
    *,
    types: int,
    label_codes: Mapping[str, np.ndarray],
    held_out: bool,
    max_cells: int,
    replicates: int,
    controls: bool,
    seed: int,
    step: Step,
) -> Evaluation:
    """Score every dataset, the baseline and the negative controls.

    Parameters
    ----------
    train, test, synthetic
        Cells on the same genes, with codes of the same types.
    types
        Number of types.
    label_codes
        Label -> code of its category in each type, if there are several labels.
    held_out
        Whether the test cells were unknown to the tools that made the synthetic cells.
    step
        Called with the name of each step: ``steps(...)`` of them.
    """
    step("fitting on the training cells")
    with_depth = all(cells.counts is not None for cells in synthetic.values())
    reference = Reference.of(train, with_depth, seed, label_codes)
    of_synthetic = [cells.sizes(types) for cells in synthetic.values()]
    available = [test.sizes(types) // 2, *of_synthetic]
    _check_common(available)
    sizes = common_sizes(available, max_cells)
    space = HeldOutSpace.of(train, test, np.random.default_rng(seed), seed) if held_out else None
    protocol = _Protocol(
        reference=reference,
        test=reference.view(test),
        space=space,
        sizes=sizes,
        teaching=common_sizes([train.sizes(types), *of_synthetic], max_cells),
        evaluation=Evaluation(reference, test, synthetic, sizes),
        step=step,
    )
    protocol.evaluation.add(BASELINE, dataset_scores(DatasetPair(train, test)))
    for replicate in range(replicates):
        protocol.run(replicate, synthetic, controls and replicate == 0)
    return protocol.evaluation


def steps(synthetic: int, replicates: int, controls: bool) -> int:
    """Number of steps of an evaluation of so many synthetic datasets."""
    return 1 + replicates * (1 + synthetic) + (len(CONTROLS) if controls else 0)


def _check_common(available: list[np.ndarray]) -> None:
    common = int(np.min(available, axis=0).sum())
    if common < MIN_COMMON_CELLS:
        seen = f"half of the test cells and every synthetic dataset have {common} cells in common"
        advice = (
            f"at least {MIN_COMMON_CELLS} of the same types are needed: "
            "check that labels are spelled alike, or pass more cells"
        )
        raise DataError(f"synthetic: {seen}; {advice}")


def dataset_scores(pair: DatasetPair) -> dict[str, float]:
    """Metrics of all cells of a dataset against all training cells."""
    metrics = [metric for metric in METRICS if metric.scope is Scope.DATASET]
    scores = {metric.name: metric.value(pair) for metric in metrics}
    return {name: value for name, value in scores.items() if value is not None}


def comparison_scores(
    comparison: Comparison, *, first_replicate: bool = True
) -> Iterator[tuple[Group, str, float]]:
    """Group, name and value of every metric that is defined for a comparison."""
    types = [int(t) for t in comparison.reference.types]
    of_types = {t: comparison.of_type(t) for t in types}
    for metric in METRICS:
        if metric.scope is Scope.DATASET or (metric.first_replicate_only and not first_replicate):
            continue
        by_type = _type_scores(metric, of_types)
        overall = _overall_score(metric, comparison, by_type, of_types)
        if overall is not None:
            yield OVERALL, metric.name, overall
        for code, value in by_type.items():
            yield code, metric.name, value


def label_scores(comparison: Comparison) -> Iterator[tuple[Group, str, float]]:
    """Label, name and value of the metrics of a single label, if there are several.

    The same metrics over all cells take a cell to be right if all of its labels are.
    """
    teaching, test, synthetic = comparison.teaching, comparison.test, comparison.synthetic
    for label, predict in comparison.reference.predict_label.items():
        codes = comparison.reference.label_codes[label]
        own = codes[synthetic.cells.codes]
        yield label, "label_accuracy", labels.accuracy(own, predict(synthetic.components))
        if teaching is None or test is None:
            continue
        taught, truth = codes[teaching.cells.codes], codes[test.cells.codes]
        predicted = labels.label_predictor(teaching.components, taught)(test.components)
        yield label, "tstr_f1", labels.macro_f1(truth, predicted, np.unique(truth))


def _type_scores(metric: Metric, of_types: Mapping[int, Comparison]) -> dict[int, float]:
    same_as_overall = metric.scope is Scope.OVERALL_AND_TYPES and len(of_types) == 1
    if metric.scope is Scope.OVERALL or same_as_overall:
        return {}
    large = {t: c for t, c in of_types.items() if len(c.real) >= metric.min_type_cells}
    values = {t: metric.value(c) for t, c in large.items()}
    return {t: value for t, value in values.items() if value is not None}


def _overall_score(
    metric: Metric,
    comparison: Comparison,
    by_type: Mapping[int, float],
    of_types: Mapping[int, Comparison],
) -> float | None:
    if metric.scope in (Scope.OVERALL, Scope.OVERALL_AND_TYPES):
        return metric.value(comparison)
    if not by_type:
        return None
    cells = [len(of_types[t].real) for t in by_type]
    weights = cells if metric.scope is Scope.TYPES_THEN_CELL_MEAN else None
    return float(np.average(list(by_type.values()), weights=weights))


@dataclass(frozen=True)
class _Protocol:
    """What is fixed over replicates, and the scores so far."""

    reference: Reference
    test: View
    space: HeldOutSpace | None
    sizes: Sizes  # cells of each type that are compared
    teaching: Sizes  # cells of each type that a label classifier is trained on
    evaluation: Evaluation
    step: Step

    def run(self, replicate: int, synthetic: Mapping[str, Cells], controls: bool) -> None:
        """Score every dataset on one split of the test cells."""
        rng = np.random.default_rng([self.reference.seed, replicate])
        first, second = split_halves(self.test.cells.codes, self.sizes, rng)
        real, train = self.test[first], self.reference.train
        self.step(f"{BASELINE}, replicate {replicate + 1}")
        teaching = self.reference.view(train[sample_rows(train.codes, self.teaching, rng)])
        self._score(BASELINE, replicate, real, self.test[second], teaching)
        for name, cells in synthetic.items():
            self.step(f"{name}, replicate {replicate + 1}")
            self._score(name, replicate, real, *self._samples(cells, rng))
        for name in CONTROLS if controls else ():
            self.step(f"negative control: {name}")
            self._score_control(name, replicate, real, rng)
        if replicate == 0:
            self.evaluation.real = real

    def _samples(self, cells: Cells, rng: np.random.Generator) -> tuple[View, View]:
        """Cells of a dataset to compare with real ones, and to train a label classifier on."""
        compared = self.reference.view(cells[sample_rows(cells.codes, self.sizes, rng)])
        teaching = self.reference.view(cells[sample_rows(cells.codes, self.teaching, rng)])
        return compared, teaching

    def _score_control(
        self, name: str, replicate: int, real: View, rng: np.random.Generator
    ) -> None:
        train, groups = self.reference.train, self.sizes | self.teaching
        sizes = {t: max(self.sizes.get(t, 0), self.teaching.get(t, 0)) for t in groups}
        cells = make_control(name, train, sizes, rng)
        self._score(name, replicate, real, *self._samples(cells, rng))
        pair = DatasetPair(train, cells, with_composition=False)
        self.evaluation.add(name, dataset_scores(pair))

    def _score(
        self, name: str, replicate: int, real: View, synthetic: View, teaching: View
    ) -> None:
        comparison = Comparison(
            reference=self.reference,
            real=real,
            synthetic=synthetic,
            seed=self.reference.seed + replicate,
            test=self.test,
            teaching=teaching,
            memorisation=self._memorisation(name, replicate, synthetic),
        )
        found = comparison_scores(comparison, first_replicate=replicate == 0)
        for group, metric, value in chain(found, label_scores(comparison)):
            known = BY_NAME[metric].known_baseline if name == BASELINE else None
            score = Score(name, group, metric, replicate, value if known is None else known)
            self.evaluation.scores.append(score)
        if replicate == 0:
            self.evaluation.shown[name] = _shown(comparison)

    def _memorisation(self, name: str, replicate: int, synthetic: View) -> Memorisation | None:
        if self.space is None:
            return None
        if name != BASELINE:
            return self.space.of_synthetic(synthetic.cells)
        rng = np.random.default_rng([self.reference.seed, replicate])
        return self.space.of_held_out(self.sizes, rng)


def _shown(comparison: Comparison) -> Shown:
    near = comparison.memorisation
    nearest = None if near is None else (near.to_training, near.to_held_out)
    return Shown(comparison.synthetic, comparison.classifier_scores, nearest)
