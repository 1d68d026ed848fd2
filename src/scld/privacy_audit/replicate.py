"""One replicate of an audit: a split of the donors, a fit, its controls, all attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scld.config import Config
from scld.evaluation.controls import BASELINE
from scld.evaluation.report import evaluate
from scld.preprocessing import split_rows
from scld.privacy_audit import results
from scld.privacy_audit.attacks import scores_of_cells
from scld.privacy_audit.donors import Cells, RealCells, split_donors
from scld.privacy_audit.likelihood import model_scores
from scld.privacy_audit.success import scores_of_donors, success
from scld.synthesizer import Synthesizer

if TYPE_CHECKING:
    from anndata import AnnData

Generate = Callable[["AnnData"], "AnnData"]  # cells of the training donors -> synthetic cells
_MOST_COMPARED = 1000  # cells on each side of the two-sample test


class Attacked(NamedTuple):
    """What an attacker gets, and the cells that are attacked."""

    released: Cells
    auxiliary: Cells
    training: Cells
    held_out: Cells


@dataclass(frozen=True, eq=False)
class Replicate:
    """Everything random in it follows from ``seed`` and ``number``.

    Parameters
    ----------
    real
        The cells of all donors.
    generate
        The audited generator; None: a `Synthesizer` with ``config``.
    config
        Its settings.
    cells_per_donor
        Numbers of cells that an attacker has of a donor.
    seed, number
        Of the audit, and of this replicate.
    """

    real: RealCells
    generate: Generate | None
    config: Config | None
    cells_per_donor: tuple[int, ...]
    seed: int
    number: int

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per kind of released cells, attack, number of cells and metric."""
        rng = np.random.default_rng([self.seed, self.number])
        donors = split_donors(self.real.donors, rng)
        given = self.real.adata_of(donors.training)
        model, adata = self._generated(given)
        adata, synthetic = self.real.generated(adata)
        training, held_out, auxiliary = (self.real.cells.of(names) for names in donors)
        attacked = Attacked(synthetic, auxiliary, training, held_out)
        yield from self._success(results.SYNTHETIC, attacked, model, rng)
        for name, control in self._controls(attacked, rng):
            yield from self._success(name, control, None, rng)
        yield from self._fidelity(given, adata)

    def _generated(self, given: AnnData) -> tuple[Synthesizer | None, AnnData]:
        """The fitted model, if it is the default one, and its cells."""
        if self.generate is not None:
            return None, self.generate(given)
        seed = self.seed + self.number
        synth = Synthesizer([self.real.label], config=self.config, seed=seed)
        synth.fit(given, progress=False)
        return synth, synth.sample(given.n_obs, seed=seed, progress=False)

    def _controls(
        self, attacked: Attacked, rng: np.random.Generator
    ) -> Iterator[tuple[str, Attacked]]:
        """Real cells in the place of the released ones: see `results.RELEASED`."""
        training = attacked.training
        copies = training[rng.integers(len(training), size=len(training))]
        yield results.COPIES, attacked._replace(released=copies)
        donors = np.unique(training.donors, return_inverse=True)[1]
        attacked_half, released = split_rows(donors, 0.5, int(rng.integers(2**31)))
        halves = {"released": training[released], "training": training[attacked_half]}
        yield results.SAME, attacked._replace(**halves)
        others = self._half_of(attacked.auxiliary, rng)
        kept = attacked.auxiliary[~others]
        yield results.OTHER, attacked._replace(released=attacked.auxiliary[others], auxiliary=kept)

    @staticmethod
    def _half_of(cells: Cells, rng: np.random.Generator) -> np.ndarray:
        """Which cells are those of half of the donors; of one donor, half of its cells."""
        names = rng.permutation(np.unique(cells.donors))
        if len(names) == 1:
            return np.asarray(rng.permutation(len(cells)) < len(cells) // 2)
        return np.isin(cells.donors, names[: len(names) // 2])

    def _success(
        self, name: str, attacked: Attacked, model: Synthesizer | None, rng: np.random.Generator
    ) -> Iterator[dict[str, Any]]:
        cells = _joined(attacked.training, attacked.held_out)
        scores = scores_of_cells(attacked.released, attacked.auxiliary, cells)
        if model is not None:
            scores[results.LIKELIHOOD] = model_scores(model._fitted, attacked.auxiliary, cells)
        sides = [np.unique(part.donors) for part in (attacked.training, attacked.held_out)]
        for attack, values in scores.items():
            for number in self.cells_per_donor:
                of_sides = [scores_of_donors(values, cells.donors, s, number, rng) for s in sides]
                for metric, value in success(*of_sides).items():
                    yield _row(name, attack, number, metric, value)

    def _fidelity(self, given: AnnData, adata: AnnData) -> Iterator[dict[str, Any]]:
        """Two-sample test between synthetic and training cells, and between training cells."""
        options: dict[str, Any] = {"controls": False, "replicates": 1, "progress": False}
        options |= {"max_cells": _MOST_COMPARED, "seed": self.seed + self.number}
        report = evaluate(given, None, {results.SYNTHETIC: adata}, self.real.label, **options)
        for name, shown in ((results.SYNTHETIC, results.SYNTHETIC), (BASELINE, results.BASELINE)):
            yield _row(shown, "", 0, results.C2ST, report.value(name, "c2st"))


def _joined(first: Cells, second: Cells) -> Cells:
    import scipy.sparse as sp

    counts = sp.csr_matrix(sp.vstack([first.counts, second.counts], format="csr"))
    arrays = zip((first.types, first.donors), (second.types, second.donors), strict=True)
    return Cells(counts, *(np.concatenate(pair) for pair in arrays))


def _row(released: str, attack: str, cells: int, metric: str, value: float) -> dict[str, Any]:
    return dict(zip(results.KEYS, (released, attack, cells, metric), strict=True), value=value)
