"""One simulated study: new donors, planted effects, tests."""

from __future__ import annotations

import hashlib
import math
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.errors import RequestError
from scld.generation.effects import Effect
from scld.power_analysis import detection
from scld.power_analysis.design import Expression, Point, PowerDesign

if TYPE_CHECKING:
    from anndata import AnnData

    from scld.synthesizer import Synthesizer

GROUP, CONTROL, TREATED = "group", "control", "treated"
MEAN = "mean"  # layer of expected counts
REFERENCE = 200  # cells of each type, whose expected counts show which genes are expressed
SPARE = 1.2  # cells drawn for each cell that thinning is expected to leave
MISSING = -1  # code of a cell without a type


class Planted(NamedTuple):
    """The changed genes of one type: their columns, and +1 or -1."""

    genes: np.ndarray
    signs: np.ndarray


class Simulator:
    """Simulated studies of one model and design.

    Donors are numbered; the odd ones are treated. A study with more donors has those of a smaller
    one and others, as long as its replicate is the same, and all effects and depths have the same
    cells: so differences between points of the grid are not differences between their cells.

    Parameters
    ----------
    synth
        The model.
    design
        A design for this model: `PowerDesign.for_model`.
    seed
        Same seed, same studies.
    """

    def __init__(self, synth: Synthesizer, design: PowerDesign, seed: int) -> None:
        self.synth, self.design, self.seed = synth, design, seed
        self.shares = design.shares(synth.schema)
        self.types = tuple(self.shares)
        self.group = GROUP
        while self.group in synth.schema.names:
            self.group += "_"
        # composition: all types and fold changes of a replicate thin the same cells
        self.codes = lru_cache(maxsize=32)(self._codes)

    def table(self, donors: int, cells: int, seed: int) -> pd.DataFrame:
        """Labels of the cells of both groups, donor after donor, and their group."""
        if self.design.donor is None:
            table = self._without_donors(2 * donors * cells, seed)
        else:
            of = self.design
            options: dict[str, Any] = {"label": of.donor, "where": of.where, "seed": seed}
            table = self.synth.donor_table(2 * donors, cells, **options)
        groups = np.array([CONTROL, TREATED])[_donor_of(donors, cells) % 2]
        return table.assign(**{self.group: groups})

    def _without_donors(self, n: int, seed: int) -> pd.DataFrame:
        """Labels as in training; no donor differs from another."""
        schema = self.synth.schema
        uniforms = np.random.default_rng([seed, 1]).random((n, 1 + len(schema.labels)))
        table = schema.frame(schema.draw(uniforms, self.design.where, unseen=True))
        return table.set_axis([f"cell_{i}" for i in range(n)])

    def _sample(self, table: pd.DataFrame, seed: int, **keywords: Any) -> AnnData:
        if self.design.donor is not None:
            keywords["new_donors"] = self.design.donor
        return self.synth.sample(obs=table, seed=seed, progress=False, **keywords)

    @cached_property
    def counts_per_cell(self) -> float:
        """Mean total counts of cells as they come, at depth 1."""
        cells = self._reference(None)
        return float(np.asarray(cells.layers[MEAN]).sum(axis=1).mean())

    @cached_property
    def expression(self) -> dict[str, np.ndarray]:
        """Expected counts per 10,000 ``[genes]`` of each type of the design."""
        found = {}
        for name in self.design.types or ():
            mean = np.asarray(self._reference(name).layers[MEAN])
            found[name] = 1e4 * mean.mean(axis=0) / mean.sum(axis=1).mean()
        return found

    def _reference(self, name: str | None) -> AnnData:
        """Cells of fitted donors with their expected counts; of all types if none is named."""
        schema = self.synth.schema
        where = (
            self.design.where if name is None else {**self.design.where, self.design.label: name}
        )
        random = np.random.default_rng([self.seed, 2])
        uniforms = random.random((REFERENCE, 1 + len(schema.labels)))
        table = schema.frame(schema.draw(uniforms, where, unseen=True))
        return self.synth.sample(obs=table, seed=self.seed, mean=True, progress=False)

    def planted(self, name: str, replicate: int) -> Planted:
        """Random genes of a type, half of them up; `RequestError` if too few are expressed."""
        settings = self._settings
        expressed = np.flatnonzero(self.expression[name] >= max(settings.min_expression, 1e-12))
        if len(expressed) < 2 * settings.genes:
            seen = f"{len(expressed):,} genes of type {name!r} have min_expression"
            seen += f" {settings.min_expression:g} (counts per 10,000)"
            allowed = f"genes: {settings.genes} needs twice as many, so that most do not change"
            raise RequestError(f"design: expression: {seen}; {allowed}; lower one of them")
        random = np.random.default_rng([self.seed, replicate, *name.encode()])
        genes = random.choice(expressed, settings.genes, replace=False)
        signs = np.resize([1.0, -1.0], settings.genes)
        return Planted(genes, signs)

    @property
    def _settings(self) -> Expression:
        return self.design.expression or Expression()

    def expression_study(self, point: Point, replicate: int) -> dict[str, dict[str, Any]]:
        """What each test finds in each type: see `_outcome`."""
        seed, types = study_seed(self.seed, replicate), self.design.types or ()
        planted = {name: self.planted(name, replicate) for name in types}
        table = self.table(point.donors, point.cells, seed)
        of = table[self.design.label].astype(str)
        tested = of.isin(types).to_numpy()  # other cells are not generated
        found = {name: self._untested() for name in types}
        if not tested.any():
            return found
        donor = _donor_of(point.donors, point.cells)[tested]
        cells = self._cells(table[tested], planted, point, seed)
        counts, type_of = sp.csr_matrix(cells.X), of[tested].to_numpy()
        for name in types:
            mask = type_of == name
            kept, treated = self._kept(donor[mask], point.donors)
            if treated.sum() >= 2 and (~treated).sum() >= 2:
                rows = np.flatnonzero(mask)[np.isin(donor[mask], kept)]
                truth = planted[name].genes if point.log2fc else planted[name].genes[:0]
                of_donor = np.searchsorted(kept, donor[rows])
                found[name] = self._tested(counts[rows], of_donor, treated, truth)
        return found

    def _cells(
        self, table: pd.DataFrame, planted: dict[str, Planted], point: Point, seed: int
    ) -> AnnData:
        """The cells of the study, with the planted effects in the treated ones."""
        genes, effects = self.synth.genes["gene"].to_numpy(), []
        treated = table[self.design.label].astype(str)[table[self.group] == TREATED]
        for name in (name for name in planted if (treated == name).any()):
            folds = point.log2fc * planted[name].signs
            where = {self.design.label: name, self.group: TREATED}
            changed = dict(zip(genes[planted[name].genes], folds.tolist(), strict=True))
            effects.append(Effect(changed, where))
        options: dict[str, Any] = {"effects": effects} if effects and point.log2fc else {}
        if point.depth != 1:
            options["depth"] = point.depth
        return self._sample(table, seed, **options)

    def _kept(self, donor: np.ndarray, donors: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the donors with enough cells of a type, and which are treated."""
        number = np.bincount(donor, minlength=2 * donors)
        kept = np.flatnonzero(number >= self._settings.min_cells)
        return kept, kept % 2 == 1

    def _untested(self) -> dict[str, Any]:
        return {test: None for test in self._settings.tests}

    def _tested(
        self, counts: sp.csr_matrix, donor: np.ndarray, treated: np.ndarray, truth: np.ndarray
    ) -> dict[str, Any]:
        """The outcome of each test in the cells of one type; None without a gene to test."""
        totals = np.asarray(counts.sum(axis=1)).ravel()
        bulk = detection.pseudobulk(counts, donor, len(treated))
        genes = np.flatnonzero(bulk.sum(axis=0) >= self._settings.min_counts)
        found = self._untested()
        if not len(genes):
            return found
        changed = np.isin(genes, truth)
        for test in found:
            if test == "pseudobulk":
                p, q = detection.deseq2(bulk[:, genes], treated, self.design.alpha)
            else:
                values = detection.log_normalised(counts, totals)[:, genes]
                p = detection.rank_sum(values, treated[donor])
                q = detection.adjusted(p)
            found[test] = _outcome(p, q, changed, len(truth), self.design.alpha)
        return found

    def _codes(self, donors: int, cells: int, replicate: int) -> np.ndarray:
        """Type of each cell ``[donors of both groups, cells]``, a position in ``types``."""
        table = self.table(donors, cells, study_seed(self.seed, replicate))
        names = pd.Index(table[self.design.label].astype(str))
        codes = pd.Index(self.types).get_indexer(names)
        return codes.reshape(2 * donors, cells).astype(np.int16)

    def type_cells(self, donors: int, cells: int, replicate: int) -> dict[str, list[int]]:
        """Number of cells of each type in each donor of a study."""
        codes = self.codes(donors, cells, replicate)
        return {name: (codes == i).sum(axis=1).tolist() for i, name in enumerate(self.types)}

    def composition_p(
        self, donors: int, cells: int, name: str, fold: float, replicate: int
    ) -> float:
        """p-value of a change of the share of one type by a factor, in treated donors.

        The odds of the type are multiplied by the same factor in each donor: that which multiplies
        the share by ``fold`` at its mean. More cells than needed are drawn of each donor, and
        cells of the type, or all others, are left out at random until the odds are right.
        """
        keep_type, keep_other = self._thinning(name, fold)
        expected = self.shares[name] * keep_type + (1 - self.shares[name]) * keep_other
        drawn = cells if fold == 1 else math.ceil(SPARE / expected) * cells
        of_type = self.codes(donors, drawn, replicate) == self.types.index(name)
        random = np.random.default_rng([study_seed(self.seed, replicate), 3])
        treated = np.arange(2 * donors) % 2 == 1
        keep = random.random(of_type.shape) < np.where(of_type, keep_type, keep_other)
        kept = keep | ~treated[:, None]
        kept &= kept.cumsum(axis=1) <= cells
        return detection.share_test((of_type & kept).sum(axis=1), kept.sum(axis=1), treated)

    def _thinning(self, name: str, fold: float) -> tuple[float, float]:
        """Probabilities to keep a cell of the type, and another one."""
        share = self.shares[name]
        odds = fold * (1 - share) / (1 - fold * share)
        return min(odds, 1.0), min(1 / odds, 1.0)


def study_seed(seed: int, replicate: int) -> int:
    """The seed of one study, the same at all points of the grid."""
    digest = hashlib.sha256(f"power/{seed}/{replicate}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _donor_of(donors: int, cells: int) -> np.ndarray:
    """The number of the donor of each cell; the odd ones are treated."""
    return np.repeat(np.arange(2 * donors), cells)


def _outcome(
    p: np.ndarray, q: np.ndarray, changed: np.ndarray, planted: int, alpha: float
) -> dict[str, int]:
    """Numbers of genes.

    ``planted``, and of these ``found``; ``discoveries`` at the adjusted level, and of these
    ``false``; ``unchanged`` genes with a p-value, and of these ``below`` the level.
    """
    discovered, known = q <= alpha, ~np.isnan(p) & ~changed
    values = {
        "planted": planted,
        "found": (discovered & changed).sum(),
        "discoveries": discovered.sum(),
        "false": (discovered & ~changed).sum(),
        "unchanged": known.sum(),
        "below": (known & (p <= alpha)).sum(),
    }
    return {name: int(value) for name, value in values.items()}
