"""The inputs of an evaluation: every dataset read, validated, and on the same genes and types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.errors import DataError, listed
from scld.evaluation import matching
from scld.evaluation.cells import Cells
from scld.evaluation.comparison import DatasetPair
from scld.evaluation.metrics.privacy import exact_copies
from scld.evaluation.metrics.validity import validity
from scld.evaluation.options import REAL, Options
from scld.evaluation.protocol import dataset_scores
from scld.io.counts import TransformedCountsError, check_unique, count_matrix
from scld.io.read import MissingLayerError, read
from scld.preprocessing import split_rows
from scld.schema import label_column

if TYPE_CHECKING:
    from anndata import AnnData

MIN_CELLS = 50  # of a dataset
SEPARATOR = " / "  # of the categories of several labels
COUNT_CHECKS = ("integers", "library_range")  # not for log-normalised datasets


@dataclass
class Inputs:
    """Every dataset on the same genes and types.

    Parameters
    ----------
    train, test
        Real cells.
    synthetic
        Synthetic datasets by name.
    types, genes
        Types of the training cells, sorted; genes that are scored. With several labels a type is a
        combination of their categories.
    label_codes
        Label -> code of its category in each type; empty unless there are several labels.
    notes
        What was left out and why, one sentence each.
    validity
        Dataset -> check -> whether it passed.
    scores
        Dataset -> metrics of all its cells against all training cells.
    sizes
        Dataset -> cells and genes that were read.
    """

    train: Cells
    test: Cells
    synthetic: dict[str, Cells]
    types: list[str]
    genes: list[str]
    label_codes: dict[str, np.ndarray]
    notes: list[str]
    validity: dict[str, dict[str, bool]]
    scores: dict[str, dict[str, float]]
    sizes: dict[str, tuple[int, int]]

    @classmethod
    def of(
        cls, train: Any, test: Any, synthetic: Mapping[str, Any], logs: set[str], options: Options
    ) -> Inputs:
        """Read and match; ``logs``: names of the log-normalised datasets."""
        reader = _Reader(logs, options)
        datasets = reader.read(train, test, synthetic)
        genes = reader.genes(datasets)
        labels = {name: reader.labels(name, adata) for name, adata in datasets.items()}
        types = sorted(set(labels["train"]))
        label_codes = reader.label_codes(datasets["train"], labels["train"])
        checks = {
            name: _validity(datasets, labels, name, is_log=name in logs) for name in synthetic
        }
        cells = {
            name: reader.cells(name, adata, labels[name], types, genes)
            for name, adata in datasets.items()
        }
        made = {name: cells[name] for name in synthetic}
        pairs = {name: DatasetPair(cells["train"], of_set) for name, of_set in made.items()}
        scores = {name: dataset_scores(pair) for name, pair in pairs.items()}
        real = reader.real_cells(cells, datasets, types)
        if test is not None:
            _note_shared_cells(reader.notes, *real)
        _note_missing_types(reader.notes, types, {"test": real[1], **made})
        sizes = {name: adata.shape for name, adata in datasets.items()}
        return cls(*real, made, types, genes, label_codes, reader.notes, checks, scores, sizes)


@dataclass
class _Reader:
    """Reads the datasets of one evaluation, and notes what it leaves out."""

    logs: set[str]
    options: Options

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self.most = 10 * self.options.max_cells  # more than any metric uses, whatever the type

    def read(self, train: Any, test: Any, synthetic: Mapping[str, Any]) -> dict[str, AnnData]:
        """Every dataset; large synthetic ones are sampled, so that memory does not grow."""
        given = {"train": train} if test is None else {"train": train, "test": test}
        real = {name: _read(name, source, self.options.layer) for name, source in given.items()}
        made = {name: self._synthetic(name, source) for name, source in synthetic.items()}
        datasets = real | made
        for name, adata in datasets.items():
            matching.check_matrix(name, adata)
        return datasets

    def _synthetic(self, name: str, source: Any) -> AnnData:
        """Few tools write the layers of their training data: X is used where one is missing."""
        layer, seed = None if name in self.logs else self.options.layer, self.options.seed
        try:
            made = _read(name, source, layer, self.most, seed)
        except MissingLayerError:
            self.notes.append(f"{name}: has no layer {layer!r}, so X is used.")
            made = _read(name, source, None, self.most, seed)
        if made.n_obs == self.most:
            self.notes.append(
                f"{name}: {self.most:,} cells, a random sample where there are more, are read; "
                "every metric and check is computed on these."
            )
        return made

    def genes(self, datasets: Mapping[str, AnnData]) -> list[str]:
        """The genes that are scored."""
        for name, adata in datasets.items():
            check_unique(adata.var_names, name)
        return matching.shared_genes(datasets, self._intersection, self.notes)

    @property
    def _intersection(self) -> bool:
        return self.options.genes == "intersection"

    def labels(self, name: str, adata: AnnData) -> np.ndarray:
        """The type of each cell, as text; with several labels the combination of them."""
        if not self.options.labels:
            return np.repeat("all cells", adata.n_obs)
        columns = [_column(name, adata, label) for label in self.options.labels]
        return np.array([SEPARATOR.join(row) for row in zip(*columns, strict=True)], dtype=object)

    def label_codes(self, train: AnnData, types: np.ndarray) -> dict[str, np.ndarray]:
        """See `Inputs`."""
        labels = self.options.labels
        if len(labels) < 2:
            return {}
        columns = {label: _column("train", train, label) for label in labels}
        combinations = pd.DataFrame({SEPARATOR: types, **columns}).drop_duplicates()
        combinations = combinations.sort_values(SEPARATOR)
        if combinations[SEPARATOR].duplicated().any():
            seen = f"two combinations of categories are both {SEPARATOR!r} joined the same"
            raise DataError(f"label: {seen}; rename categories that contain {SEPARATOR!r}")
        return {label: pd.factorize(combinations[label], sort=True)[0] for label in labels}

    def cells(
        self, name: str, adata: AnnData, labels: np.ndarray, types: list[str], genes: list[str]
    ) -> Cells:
        """The cells of a dataset that can be scored."""
        is_real = name in REAL
        kept, kept_labels = matching.scored_cells(
            name, adata, labels, types, genes, drop_empty=not is_real, notes=self.notes
        )
        codes = pd.Categorical(kept_labels, categories=types).codes.astype(np.int64)
        if len(codes) < MIN_CELLS:
            seen = f"{len(codes)} cells that can be scored"
            raise DataError(f"{name}: {seen}; at least {MIN_CELLS} are needed: pass more")
        if name in self.logs:
            return Cells(matching.log_matrix(name, kept, self._intersection), codes)
        donor = self.options.donor if is_real else None
        donors = None if donor is None else _column(name, kept, donor)
        return Cells.of_counts(_counts(name, kept), codes, donors)

    def real_cells(
        self, cells: Mapping[str, Cells], datasets: Mapping[str, AnnData], types: list[str]
    ) -> tuple[Cells, Cells]:
        """Training and test cells; without test cells, half of the training cells each."""
        train = cells["train"]
        if "test" in cells:
            test = cells["test"]
        else:
            train, test = _split(train, self.options.seed, self.notes)
        self._note_settings(datasets, types)
        rng = np.random.default_rng(self.options.seed)
        return self._thinned("train", train, rng), self._thinned("test", test, rng)

    def _thinned(self, name: str, cells: Cells, rng: np.random.Generator) -> Cells:
        if len(cells) <= self.most:
            return cells
        used = f"{self.most:,} of {len(cells):,} cells"
        self.notes.append(f"{name}: {used}, a random sample, are used.")
        return cells[np.sort(rng.choice(len(cells), self.most, replace=False))]

    def _note_settings(self, datasets: Mapping[str, AnnData], types: list[str]) -> None:
        if not self.options.labels:
            self.notes.append("Without a label, only overall metrics are computed.")
        elif len(types) == 1:
            self.notes.append(
                f"One type only ({types[0]!r}): metrics that compare types are left out (markers, "
                "label accuracy, composition, train on synthetic)."
            )
        if self.logs:
            self.notes.append(
                f"Log-normalised: {', '.join(sorted(self.logs))}. Such cells have no library size: "
                "its metric and the checks of counts are left out for them, and the gradient "
                "boosting classifier does not use it for any dataset, so that all are comparable."
            )
        if self.options.donor is not None and "test" in datasets:
            self._note_donors(datasets, self.options.donor)

    def _note_donors(self, datasets: Mapping[str, AnnData], donor: str) -> None:
        of_train, of_test = (set(datasets[name].obs[donor].astype(str)) for name in REAL)
        unseen = len(of_test - of_train)
        if unseen < 2:
            self.notes.append(
                "Membership inference by donor is left out: it needs at least two donors "
                f"({donor!r}) that are in the test cells only, and there are {unseen}. Split train "
                "and test by donor to get it."
            )


def _read(
    name: str, source: Any, layer: str | None, at_most: int | None = None, seed: int = 0
) -> AnnData:
    try:
        return read(source, layer, at_most=at_most, seed=seed)
    except DataError as error:
        raise type(error)(f"{name}: {error}") from error


def _column(name: str, adata: AnnData, column: str) -> np.ndarray:
    values = label_column(adata.obs, column, place=name, complete=True)
    return np.asarray(values.astype(str))


def _counts(name: str, adata: AnnData) -> Any:
    try:
        return count_matrix(adata, name)
    except TransformedCountsError as error:
        if name in REAL:
            raise
        hint = "or, if these are log(1 + counts per 10,000), pass log_normalised"
        raise TransformedCountsError(f"{error}; {hint}") from error


def _validity(
    datasets: Mapping[str, AnnData], labels: Mapping[str, np.ndarray], name: str, is_log: bool
) -> dict[str, bool]:
    train, made = datasets["train"], datasets[name]
    libraries = np.asarray(matching.matrix(train).sum(axis=1)).ravel()
    checks = validity(
        matching.matrix(made),
        list(made.var_names),
        list(labels[name]),
        libraries,
        list(train.var_names),
        list(labels["train"]),
    )
    return {check: ok for check, ok in checks.items() if not (is_log and check in COUNT_CHECKS)}


def _split(train: Cells, seed: int, notes: list[str]) -> tuple[Cells, Cells]:
    """Without test cells: half of the training cells of each type are used in their place."""
    if len(train) < 2 * MIN_CELLS:
        advice = f"at least {2 * MIN_CELLS} are needed to hold half out: pass test=, or more cells"
        raise DataError(f"train: {len(train)} cells and no test cells; {advice}")
    kept, held_out = split_rows(train.codes, 0.5, seed)
    notes.append(
        f"No test cells were given: {len(held_out):,} of the {len(train):,} training cells, half "
        "of each type, are used in their place, also for the baseline. The synthetic cells were "
        "generated from these cells too, so a dataset of copies scores too well. Memorisation and "
        "membership inference cannot be measured and are left out."
    )
    return train[kept], train[held_out]


def _note_shared_cells(notes: list[str], train: Cells, test: Cells) -> None:
    """Said first: every score would be that of cells that the tools were given."""
    shared = round(exact_copies(_matrix(test), _matrix(train)) * len(test))
    if shared:
        notes.insert(
            0,
            f"{shared:,} of {len(test):,} test cells are training cells too (equal in every gene). "
            "Scores are right only for test cells that no tool was given: split the cells again, "
            "with scld split.",
        )


def _matrix(cells: Cells) -> sp.csr_matrix:
    assert cells.counts is not None  # real cells are counts
    return cells.counts


def _note_missing_types(notes: list[str], types: list[str], datasets: Mapping[str, Cells]) -> None:
    for name, cells in datasets.items():
        needed = 2 if name == "test" else 1  # test cells are split into halves
        few = [types[t] for t in np.flatnonzero(cells.sizes(len(types)) < needed)]
        if few:
            notes.append(
                f"{name}: no cells, or too few, of {listed(few)}: these types are left out of "
                "every comparison, so that all datasets are scored on the same composition."
            )
