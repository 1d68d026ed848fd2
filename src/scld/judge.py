"""What makes a figure fair: equal numbers, equal composition, a real floor and trivial fakes beside it. Arrays in, scores out.

Genes, scaler and components are fitted on the training cells. The test cells are halved within each type: the synthetic
cells and the second half are each scored against the first half, in equal numbers and composition. The second half's score
is the floor: what real cells get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from scld import metrics as m

FLOOR = "floor"
OVERALL = "overall"
BASELINES: dict[str, m.baselines.Fake] = {"poisson": m.poisson, "shuffle": m.shuffle, "bootstrap": m.bootstrap}
CLASSIFIERS = ("forest", "linear", "boosting")

FEWEST = {"c2st": 50, "correlation": 20, "type": 10}  # cells of a type in each half: below it the figure is noise


@dataclass(frozen=True)
class Cells:
    """Some cells as the scores need them. ``counts`` is None for a set that came log-normalised."""

    log: sp.csr_matrix
    codes: np.ndarray
    counts: sp.csr_matrix | None = None
    donors: np.ndarray | None = None

    @classmethod
    def of_counts(cls, counts: sp.csr_matrix, codes: np.ndarray, donors: np.ndarray | None = None) -> Cells:
        return cls(m.log_normalise(counts), codes, counts, donors)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: np.ndarray) -> Cells:
        counts = None if self.counts is None else self.counts[rows]
        return Cells(self.log[rows], self.codes[rows], counts, None if self.donors is None else self.donors[rows])

    @cached_property
    def library(self) -> np.ndarray | None:
        return None if self.counts is None else np.asarray(self.counts.sum(axis=1)).ravel()

    @cached_property
    def detected(self) -> np.ndarray:
        return np.asarray((self.log > 0).sum(axis=1)).ravel()


@dataclass(frozen=True)
class View:
    """Cells seen in a `Space`: variable genes, components, and what the boosting classifier is shown."""

    cells: Cells
    dense: np.ndarray
    components: np.ndarray
    with_depth: bool

    @classmethod
    def of(cls, cells: Cells, space: m.Space, with_depth: bool) -> View:
        dense = space.dense(cells.log)
        return cls(cells, dense, space.project(dense), with_depth)

    def __getitem__(self, rows: np.ndarray) -> View:
        return View(self.cells[rows], self.dense[rows], self.components[rows], self.with_depth)

    def features(self, classifier: str, space: m.Space) -> np.ndarray:
        """What each classifier of the C2ST is shown ``[cells, features]``."""
        if classifier == "forest":
            return self.dense
        if classifier == "linear":
            return space.standardise(self.dense)
        extra = [np.log1p(self.cells.detected)]
        if self.with_depth and self.cells.library is not None:
            extra.append(np.log(self.cells.library))
        return np.column_stack([self.components, *extra])


@dataclass(frozen=True)
class Reference:
    """All that is fixed before a synthetic cell is seen: it comes from the training cells."""

    train: Cells
    space: m.Space
    types: np.ndarray  # codes with training cells
    markers: np.ndarray | None  # [types, 50]; None with one type
    together: dict[int, np.ndarray]  # type -> the 50 variable genes whose correlations are compared
    predict: Callable[[np.ndarray], np.ndarray] | None
    with_depth: bool
    seed: int

    @classmethod
    def of(cls, train: Cells, with_depth: bool, seed: int) -> Reference:
        space = m.Space.fit(train.log, seed=seed)
        types = np.unique(train.codes)
        several = len(types) > 1
        dense = space.dense(train.log)
        return cls(
            train,
            space,
            types,
            m.top_markers(m.t_statistics(train.log, train.codes, types)) if several else None,
            {int(t): np.argsort(-dense[train.codes == t].var(axis=0), kind="stable")[:50] for t in types},
            m.label_predictor(space.project(dense), train.codes) if several else None,
            with_depth,
            seed,
        )

    def view(self, cells: Cells) -> View:
        return View.of(cells, self.space, self.with_depth)


@dataclass
class Record:
    """One score: which set, over which cells, which figure, at which halving."""

    set: str
    scope: int | str  # "overall" or the code of a type
    figure: str
    halving: int
    value: float


Curves = dict[str, tuple[np.ndarray, np.ndarray]]  # classifier -> out-of-fold scores of real and of synthetic cells


@dataclass
class Judgement:
    """All scores, and the cells of the first halving for pictures."""

    reference: Reference
    records: list[Record] = field(default_factory=list)
    shown: dict[str, View] = field(default_factory=dict)  # "real", "floor" and every set
    curves: dict[str, Curves] = field(default_factory=dict)
    distances: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # to training, to held-out cells
    sizes: dict[int, int] = field(default_factory=dict)  # cells of each type that every set was scored on


def told_apart(real: View, fake: View, space: m.Space, seed: int) -> Curves:
    """Out-of-fold scores of the three classifiers."""
    make = {"forest": m.forest, "linear": m.linear, "boosting": m.boosting}
    return {name: m.out_of_fold(real.features(name, space), fake.features(name, space), make[name], seed) for name in CLASSIFIERS}


def c2st_scores(curves: Curves) -> dict[str, float]:
    """AUC of each classifier, and the largest of them."""
    aucs = {f"c2st_{name}": m.auc(of_fake, of_real) for name, (of_real, of_fake) in curves.items()}
    return {"c2st": max(aucs.values()), **aucs}


def cloud_scores(real: View, fake: View) -> dict[str, float]:
    """Distances between the clouds, in components."""
    x, y = real.components, fake.components
    return {"w1": m.wasserstein(x, y, 1), "w2": m.wasserstein(x, y, 2), "mmd2": m.mmd2(x, y), "energy_distance": m.energy_distance(x, y)}


def gene_scores(real: Cells, fake: Cells) -> dict[str, float]:
    """Moments of each gene, library size and genes per cell."""
    x, y = m.gene_moments(real.log), m.gene_moments(fake.log)
    scores = {
        "gene_mean": m.rmse(x["mean"], y["mean"]),
        "gene_variance": m.rmse(x["variance"], y["variance"]),
        "gene_zeros": m.rmse(x["detection"], y["detection"]),
        "detection_gap": m.detection_gap(x["detection"], y["detection"]),
        "detected_ks": m.ks(real.detected, fake.detected),
    }
    if real.library is not None and fake.library is not None:
        scores["library_ks"] = m.ks(real.library, fake.library)
    return scores


def overall_scores(real: View, fake: View) -> dict[str, float]:
    """The figures that need no label and are cheap."""
    x, y = real.components, fake.components
    return {
        **cloud_scores(real, fake),
        "ilisi": m.ilisi(x, y),
        **m.precision_recall(x, y),
        **gene_scores(real.cells, fake.cells),
    }


def type_scores(real: View, fake: View, reference: Reference, seed: int) -> dict[str, float]:
    """The figures of the cells of one type."""
    n = len(real.cells)
    scores: dict[str, float] = {}
    if n >= FEWEST["type"]:
        scores |= cloud_scores(real, fake) | gene_scores(real.cells, fake.cells)
    if n >= FEWEST["c2st"]:
        scores |= c2st_scores(told_apart(real, fake, reference.space, seed))
    return scores


def correlation_scores(real: View, fake: View, reference: Reference) -> Iterator[tuple[int | str, str, float]]:
    """Gene-gene correlations within each type, and their mean over cells."""
    agreement, weight = [], []
    for t, genes in reference.together.items():
        a, b = real.dense[np.ix_(real.cells.codes == t, genes)], fake.dense[np.ix_(fake.cells.codes == t, genes)]
        if len(a) >= FEWEST["correlation"]:
            agreement.append(m.correlation_agreement(a, b))
            weight.append(len(a))
            yield t, "correlation", agreement[-1]
    if weight:
        yield OVERALL, "correlation", float(np.average(agreement, weights=weight))


def marker_scores(real: Cells, fake: Cells, reference: Reference) -> Iterator[tuple[int | str, str, float]]:
    """Log-fold changes and markers, overall and by type."""
    counts = np.array([(real.codes == t).sum() for t in reference.types])
    kept = np.flatnonzero(counts >= FEWEST["type"])
    if reference.markers is None or len(kept) < 2:
        return
    types, markers = reference.types[kept], reference.markers[kept]
    x, y = (m.log_fold_changes(cells.log, cells.codes, types) for cells in (real, fake))
    found = m.de_recall(m.t_statistics(real.log, real.codes, types), m.t_statistics(fake.log, fake.codes, types))
    scopes: list[tuple[int | str, slice]] = [(OVERALL, slice(None)), *((int(t), slice(i, i + 1)) for i, t in enumerate(types))]
    for scope, rows in scopes:
        agreement = m.marker_agreement(x[rows], y[rows], markers[rows])
        yield scope, "marker_slope", agreement["slope"]
        yield scope, "marker_correlation", agreement["correlation"]
        yield scope, "de_recall", float(found[rows].mean())


def peer_scores(real: View, fake: View, types: np.ndarray, seed: int) -> Iterator[tuple[int | str, str, float]]:
    """scDiffusion's figure, CFGen's two by type, and their means."""
    yield OVERALL, "scdiffusion_mmd", m.scdiffusion_mmd(real.dense, fake.dense, seed)
    x, y = m.cfgen_space(real.cells.log, fake.cells.log, seed)
    by_type = []
    for t in (t for t in types if (real.cells.codes == t).sum() >= 20):  # their own threshold
        pair = x[real.cells.codes == t], y[fake.cells.codes == t]
        by_type.append((m.cfgen_w2(*pair), m.cfgen_mmd(*pair)))
        yield int(t), "cfgen_w2", by_type[-1][0]
        yield int(t), "cfgen_mmd", by_type[-1][1]
    if by_type:
        yield OVERALL, "cfgen_w2", float(np.mean([w2 for w2, _ in by_type]))
        yield OVERALL, "cfgen_mmd", float(np.mean([mmd for _, mmd in by_type]))


def learning_scores(teaching: View, asked: View, test: View, reference: Reference) -> Iterator[tuple[int | str, str, float]]:
    """Train on ``teaching``, test on real test cells; and how many of ``asked`` a classifier of real cells calls by their label."""
    from sklearn.metrics import f1_score

    if reference.predict is None:
        return
    present = np.unique(test.cells.codes)
    answers = m.label_predictor(teaching.components, teaching.cells.codes)(test.components)
    f1 = f1_score(test.cells.codes, answers, labels=present, average=None, zero_division=0)
    right = reference.predict(asked.components) == asked.cells.codes
    yield OVERALL, "tstr_f1", float(f1.mean())
    yield OVERALL, "label_accuracy", float(right.mean())
    for t, value in zip(present, f1, strict=True):
        yield int(t), "tstr_f1", float(value)
    for t in np.unique(asked.cells.codes):
        yield int(t), "label_accuracy", float(right[asked.cells.codes == t].mean())


@dataclass(frozen=True)
class Neighbourhood:
    """Training and held-out cells on an equal footing: components fitted on equally many of both."""

    space: m.Space
    train: Cells
    test: Cells
    train_components: np.ndarray
    test_components: np.ndarray

    @classmethod
    def of(cls, train: Cells, test: Cells, rng: np.random.Generator, seed: int) -> Neighbourhood:
        sizes = {int(t): min((train.codes == t).sum(), (test.codes == t).sum()) for t in np.unique(test.codes)}
        a, b = train[draw(train.codes, sizes, rng)], test[draw(test.codes, sizes, rng)]
        space = m.Space.fit(sp.vstack([a.log, b.log], format="csr"), seed=seed)
        return cls(space, a, b, space.project(space.dense(a.log)), space.project(space.dense(b.log)))


def halve(codes: np.ndarray, sizes: Mapping[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two disjoint halves, each with ``sizes`` cells of each type."""
    both = [rng.choice(np.flatnonzero(codes == t), 2 * n, replace=False) for t, n in sizes.items()]
    return np.concatenate([rows[: len(rows) // 2] for rows in both]), np.concatenate([rows[len(rows) // 2 :] for rows in both])


def draw(codes: np.ndarray, sizes: Mapping[int, int], rng: np.random.Generator) -> np.ndarray:
    """Rows with ``sizes`` cells of each type, without replacement."""
    return np.concatenate([rng.choice(np.flatnonzero(codes == t), n, replace=False) for t, n in sizes.items()])


def common_sizes(available: list[np.ndarray], most: int) -> dict[int, int]:
    """Cells of each type that every set can give, at most ``most`` in all, in proportion; types that some set lacks are left out."""
    least = np.min(available, axis=0)
    share = min(1.0, most / max(least.sum(), 1))
    return {int(t): max(1, int(least[t] * share)) for t in np.flatnonzero(least)}


def make_baseline(name: str, train: Cells, sizes: Mapping[int, int], rng: np.random.Generator) -> Cells:
    """A trivial fake of the given composition, made from training cells."""
    assert train.counts is not None
    made = [BASELINES[name](train.counts[train.codes == t], n, rng) for t, n in sizes.items()]
    return Cells.of_counts(sp.vstack(made, format="csr"), np.repeat(list(sizes), list(sizes.values())))


def privacy_scores(asked: Cells, near: Neighbourhood) -> tuple[dict[str, float], tuple[np.ndarray, np.ndarray]]:
    """Memorisation and membership of a set, and its distances: to the nearest training cell and to the nearest held-out one."""
    x = near.space.project(near.space.dense(asked.log))
    to_train, to_test = m.nearest_distance(x, near.train_components), m.nearest_distance(x, near.test_components)
    membership = m.membership_auc(x, near.train_components, near.test_components)
    return {"nearer_training": m.nearer_training(to_train, to_test), "membership_auc": membership}, (to_train, to_test)


def privacy_floor(rows: np.ndarray, near: Neighbourhood) -> tuple[dict[str, float], tuple[np.ndarray, np.ndarray]]:
    """The same of held-out cells (``rows`` of ``near.test``) in the place of synthetic ones: none is its own neighbour or among those attacked."""
    x = near.test_components[rows]
    to_train, to_test = m.nearest_distance(x, near.train_components), m.nearest_distance(x, near.test_components, rank=1)
    membership = m.membership_auc(x, near.train_components, np.delete(near.test_components, rows, axis=0))
    return {"nearer_training": m.nearer_training(to_train, to_test), "membership_auc": membership}, (to_train, to_test)


def donor_score(asked: Cells, near: Neighbourhood) -> float | None:
    """Membership by donor; None unless two donors at least are in training and two in the test cells alone."""
    if near.train.donors is None or near.test.donors is None:
        return None
    unseen = ~np.isin(near.test.donors, near.train.donors)
    if len(np.unique(near.train.donors)) < 2 or len(np.unique(near.test.donors[unseen])) < 2:
        return None
    x = near.space.project(near.space.dense(asked.log))
    components = np.concatenate([near.train_components, near.test_components[unseen]])
    codes, donors = (np.concatenate([a, b[unseen]]) for a, b in [(near.train.codes, near.test.codes), (near.train.donors, near.test.donors)])
    return m.donor_membership_auc(m.nearest_distance(components, x), codes, donors, np.arange(len(codes)) < len(near.train))


def judge(
    train: Cells,
    test: Cells,
    synthetic: Mapping[str, Cells],
    *,
    max_cells: int,
    baselines: bool,
    halvings: int,
    held_out: bool,
    seed: int,
    tick: Callable[[str], None],
) -> Judgement:
    """Score every set beside the floor and the trivial fakes; ``held_out``: whether the makers of the synthetic cells were without the test cells."""
    with_depth = all(cells.counts is not None for cells in synthetic.values())
    tick("fitting the space on training cells")
    reference = Reference.of(train, with_depth, seed)
    counts = [np.bincount(cells.codes, minlength=int(train.codes.max()) + 1) for cells in (train, test, *synthetic.values())]
    sizes = common_sizes([counts[1] // 2, *counts[2:]], max_cells)
    teaching = common_sizes([counts[0], *counts[2:]], max_cells)
    near = Neighbourhood.of(train, test, np.random.default_rng(seed), seed) if held_out else None
    court = _Court(reference, reference.view(test), near, sizes, teaching, Judgement(reference, sizes=sizes))
    court.add(FLOOR, OVERALL, 0, whole_set_scores(train, test))
    for halving in range(halvings):
        court.sit(halving, synthetic, baselines and halving == 0, tick)
    return court.judgement


def whole_set_scores(train: Cells, cells: Cells) -> dict[str, float]:
    """The figures that compare all cells of a set with all training cells."""
    size = int(max(train.codes.max(), cells.codes.max())) + 1
    a, b = (_rounded(train.log), _rounded(cells.log)) if train.counts is None or cells.counts is None else (train.counts, cells.counts)
    copies = {"exact_copies": m.exact_copies(b, a), "repeated_cells": m.repeated_cells(b)}
    if size == 1:
        return copies
    return copies | {"composition": m.composition_distance(np.bincount(train.codes, minlength=size), np.bincount(cells.codes, minlength=size))}


def _rounded(log: sp.csr_matrix) -> sp.csr_matrix:
    """Log-normalised values to three decimals: another program's rounding must not hide a copy."""
    return sp.csr_matrix((np.round(log.data, 3), log.indices, log.indptr), shape=log.shape)


@dataclass
class _Court:
    """The scoring of every set against one first half, then against the next."""

    reference: Reference
    test: View
    near: Neighbourhood | None
    sizes: dict[int, int]
    teaching: dict[int, int]
    judgement: Judgement

    def sit(self, halving: int, synthetic: Mapping[str, Cells], baselines: bool, tick: Callable[[str], None]) -> None:
        rng = np.random.default_rng([self.reference.seed, halving])
        first, second = halve(self.test.cells.codes, self.sizes, rng)
        train, real = self.reference.train, self.test[first]
        tick(f"real cells, halving {halving + 1}")
        teachers = self.reference.view(train[draw(train.codes, self.teaching, rng)])
        self._score(FLOOR, halving, real, self.test[second], teachers)
        for name, cells in synthetic.items():
            tick(f"{name}, halving {halving + 1}")
            asked, teachers = (self.reference.view(cells[draw(cells.codes, sizes, rng)]) for sizes in (self.sizes, self.teaching))
            self._score(name, halving, real, asked, teachers)
        for name in BASELINES if baselines else ():
            tick(f"trivial fake: {name}")
            wanted = {t: max(self.sizes.get(t, 0), self.teaching.get(t, 0)) for t in self.sizes | self.teaching}
            cells = make_baseline(name, train, wanted, rng)
            asked, teachers = (self.reference.view(cells[draw(cells.codes, sizes, rng)]) for sizes in (self.sizes, self.teaching))
            self._score(name, halving, real, asked, teachers)
            copies = whole_set_scores(train, cells)
            copies.pop("composition", None)  # the fakes are given theirs
            self.add(name, OVERALL, halving, copies)
        if halving == 0:
            self.judgement.shown["real"] = real

    def _score(self, name: str, halving: int, real: View, asked: View, teachers: View) -> None:
        reference, seed = self.reference, self.reference.seed + halving
        curves = told_apart(real, asked, reference.space, seed)
        self.add(name, OVERALL, halving, c2st_scores(curves) | overall_scores(real, asked))
        for code in self.sizes:
            pair = real[real.cells.codes == code], asked[asked.cells.codes == code]
            self.add(name, code, halving, type_scores(*pair, reference, seed) if len(reference.types) > 1 else {})
        self._add_rows(name, halving, correlation_scores(real, asked, reference))
        self._add_rows(name, halving, marker_scores(real.cells, asked.cells, reference))
        if halving == 0:
            self._add_rows(name, halving, peer_scores(real, asked, reference.types, seed))
        self._add_rows(name, halving, learning_scores(teachers, asked, self.test, reference))
        if self.near is not None:
            self._add_privacy(name, halving, asked.cells, self.near)
        if halving == 0:
            self.judgement.shown[name], self.judgement.curves[name] = asked, curves

    def _add_privacy(self, name: str, halving: int, asked: Cells, near: Neighbourhood) -> None:
        if name == FLOOR:
            rng = np.random.default_rng([self.reference.seed, halving])
            rows = draw(near.test.codes, {t: min(n, int((near.test.codes == t).sum()) // 2) for t, n in self.sizes.items()}, rng)
            scores, distances = privacy_floor(rows, near)
        else:
            scores, distances = privacy_scores(asked, near)
        by_donor = donor_score(asked, near)
        if by_donor is not None:  # real test cells are the held-out donors' own, so the floor by donor is known, not measured
            scores["donor_membership_auc"] = 0.5 if name == FLOOR else by_donor
        self.add(name, OVERALL, halving, scores)
        if halving == 0:
            self.judgement.distances[name] = distances

    def add(self, name: str, scope: int | str, halving: int, scores: Mapping[str, float]) -> None:
        self.judgement.records += [Record(name, scope, figure, halving, value) for figure, value in scores.items()]

    def _add_rows(self, name: str, halving: int, rows: Iterator[tuple[int | str, str, float]]) -> None:
        self.judgement.records += [Record(name, scope, figure, halving, value) for scope, figure, value in rows]
