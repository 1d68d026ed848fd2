"""What is put before the judge: every set read, checked, and brought to the same genes and types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld import data, metrics
from scld.errors import DataError, RequestError, nearest
from scld.judge import Cells, whole_set_scores

if TYPE_CHECKING:
    from anndata import AnnData

FEWEST_CELLS = 50
REAL = ("train", "test")


@dataclass
class Evidence:
    """Every set, checked and on the same genes and types."""

    train: Cells
    test: Cells
    sets: dict[str, Cells]
    types: list[str]
    genes: list[str]
    notes: list[str]
    validity: dict[str, dict[str, bool]]
    whole: dict[str, dict[str, float]]  # the figures of all cells read of a set against all training cells

    @classmethod
    def of(
        cls,
        train: Any,
        test: Any,
        synthetic: dict[str, Any],
        label: str | None,
        donor: str | None,
        layer: str | None,
        log_normalised: bool | Sequence[str],
        genes: str,
        max_cells: int,
        seed: int,
    ) -> Evidence:
        notes: list[str] = []
        logs = _log_names(log_normalised, list(synthetic))
        real = {name: _read(name, source, layer) for name, source in (("train", train), ("test", test)) if source is not None}
        most = 10 * max_cells  # more than any figure uses, of any type; read at random, so that memory does not grow with the set
        made = {name: _made(name, source, None if name in logs else layer, most, seed, notes) for name, source in synthetic.items()}
        shared = _shared_genes({**real, **made}, genes, notes)
        everything = {**real, **made}
        labels = {name: _labels(name, adata, label) for name, adata in everything.items()}
        types = sorted(set(labels["train"]))
        checks = {name: _validity(adata, labels[name], real["train"], labels["train"], name in logs) for name, adata in made.items()}
        cells = {}
        for name, adata in everything.items():
            kept, kept_labels = _kept(name, adata, shared, labels[name], types, name in made, notes)
            codes = pd.Categorical(kept_labels, categories=types).codes.astype(np.int64)
            cells[name] = _cells(name, kept, codes, donor if name in real else None, name in logs, genes == "intersection")
        whole = {name: whole_set_scores(cells["train"], cells[name]) for name in made}
        rng = np.random.default_rng(seed)
        train_cells, test_cells = (cells["train"], cells["test"]) if test is not None else _split(cells["train"], rng, notes)
        _say(notes, label, types, sorted(logs), donor, real)
        train_cells, test_cells = _thin("train", train_cells, most, rng, notes), _thin("test", test_cells, most, rng, notes)
        sets = {name: cells[name] for name in made}
        _say_missing(notes, types, test_cells, sets)
        return cls(train_cells, test_cells, sets, types, shared, notes, checks, whole)


def _log_names(log_normalised: bool | Sequence[str], names: list[str]) -> set[str]:
    if isinstance(log_normalised, bool):
        return set(names) if log_normalised else set()
    asked = [log_normalised] if isinstance(log_normalised, str) else list(log_normalised)
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise RequestError(f"log_normalised: {unknown[0]!r} is not a synthetic set; sets: {', '.join(map(repr, names))}{nearest(unknown[0], names)}")
    return set(asked)


def _read(name: str, source: Any, layer: str | None, at_most: int | None = None, seed: int = 0) -> AnnData:
    try:
        return data.read(source, layer, at_most=at_most, seed=seed)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _made(name: str, source: Any, layer: str | None, most: int, seed: int, notes: list[str]) -> AnnData:
    """A synthetic set: few tools write the layers of their training data, so where the layer is missing X is taken, and said."""
    try:
        made = _read(name, source, layer, most, seed)
        if made.n_obs == most:
            notes.append(f"{name}: {most:,} cells, drawn at random where there are more, are read; every figure and check is of these.")
        return made
    except DataError as error:
        if layer is None or "; its layers: " not in str(error):
            raise
    notes.append(f"{name}: has no layer {layer!r}, so X is used.")
    return _made(name, source, None, most, seed, notes)


def _shared_genes(sets: Mapping[str, AnnData], genes: str, notes: list[str]) -> list[str]:
    """The genes of training, in their order, that every set has."""
    if genes not in ("same", "intersection"):
        raise RequestError(f"genes: got {genes!r}; allowed: 'same', 'intersection'")
    for name, adata in sets.items():
        repeated = adata.var_names[adata.var_names.duplicated()]
        if len(repeated):
            raise DataError(f"{name}: var_names: {repeated[0]!r} stands more than once; gene names must be unique: call adata.var_names_make_unique()")
    train = sets["train"].var_names
    shared = train[np.logical_and.reduce([train.isin(adata.var_names) for adata in sets.values()])]
    for name, adata in sets.items():
        missing, extra = len(train.difference(adata.var_names)), len(adata.var_names.difference(train))
        if (missing or extra) and (genes == "same" or not len(shared)):
            step = "no gene is shared: check that both use the same kind of names, symbols or Ensembl ids"
            if len(shared):
                step = f"pass genes='intersection' to score the {len(shared):,} genes that all sets share"
            raise DataError(f"{name}: lacks {missing:,} of the {len(train):,} genes of train and has {extra:,} others; {step}")
    if len(shared) < len(train):
        notes.append(f"Scored on the {len(shared):,} genes that all sets share, of {len(train):,} in the training cells.")
    return list(shared)


def _labels(name: str, adata: AnnData, label: str | None) -> np.ndarray:
    return np.repeat("all cells", adata.n_obs) if label is None else _column(name, adata, label, "cell types", "label")


def _validity(adata: AnnData, labels: np.ndarray, train: AnnData, train_labels: np.ndarray, is_log: bool) -> dict[str, bool]:
    libraries = np.asarray(sp.csr_matrix(train.X).sum(axis=1)).ravel()
    checks = metrics.validity(sp.csr_matrix(adata.X), list(adata.var_names), list(labels), libraries, list(train.var_names), list(train_labels))
    return {name: ok for name, ok in checks.items() if not (is_log and name in ("integers", "library_range"))}


def _kept(
    name: str, adata: AnnData, genes: list[str], labels: np.ndarray, types: list[str], is_synthetic: bool, notes: list[str]
) -> tuple[AnnData, np.ndarray]:
    """The cells that can be scored, on the shared genes: of a type that training has, and not empty unless that is the user's to mend."""
    known = np.isin(labels, types)
    if not known.all():
        others = ", ".join(map(repr, sorted(set(labels[~known]))[:5]))
        notes.append(f"{name}: {int((~known).sum()):,} cells of types that the training cells lack ({others}) are left out.")
    on_shared = adata if genes == list(adata.var_names) else adata[:, genes]
    empty = np.asarray(sp.csr_matrix(on_shared.X).astype(bool).sum(axis=1)).ravel() == 0
    if not empty.any() or not (is_synthetic or on_shared is not adata):
        return on_shared[known], labels[known]
    notes.append(f"{name}: {int(empty.sum()):,} cells without any count on the genes scored are left out.")
    return on_shared[known & ~empty], labels[known & ~empty]


def _cells(name: str, adata: AnnData, codes: np.ndarray, donor: str | None, is_log: bool, rescale: bool) -> Cells:
    if len(codes) < FEWEST_CELLS:
        raise DataError(f"{name}: {len(codes)} cells that can be scored; at least {FEWEST_CELLS} are needed for a figure that means anything: pass more")
    donors = None if donor is None else _column(name, adata, donor, "donors", "donor")
    if is_log:
        return Cells(_log_matrix(name, adata, rescale), codes, None, donors)
    try:
        return Cells.of_counts(data.count_matrix(adata, name), codes, donors)
    except DataError as error:
        hint = "; or, if these are log(1 + counts per 10,000), say so with log_normalised" if "whole numbers" in str(error) and name not in REAL else ""
        raise DataError(f"{error}{hint}") from error


def _column(name: str, adata: AnnData, column: str, what: str, option: str) -> np.ndarray:
    columns = list(map(str, adata.obs.columns))
    if column not in adata.obs:
        known = ", ".join(map(repr, columns)) or "none"
        near = nearest(column, columns)
        raise DataError(f"{name}: no obs column {column!r}; columns: {known}; name the column of {what} with {option}=, the same in every set{near}")
    missing = int(adata.obs[column].isna().sum())
    if missing:
        raise DataError(f"{name}: obs[{column!r}] is missing for {missing:,} of {adata.n_obs:,} cells; every cell needs one: fill it in, or drop these cells")
    return np.asarray(adata.obs[column].astype(str))


def _log_matrix(name: str, adata: AnnData, rescale: bool) -> sp.csr_matrix:
    """A log-normalised matrix, checked to be on the scale of log(1 + counts per 10,000)."""
    log = sp.csr_matrix(adata.X, dtype=np.float32, copy=True)
    if not np.isfinite(log.data).all():
        bad = int((~np.isfinite(log.data)).sum())
        raise DataError(f"{name}: {bad:,} values are not finite; allowed are values of log(1 + counts per 10,000): mend or drop these cells")
    log.sum_duplicates()
    log.eliminate_zeros()
    linear = log.copy()
    linear.data = np.expm1(np.minimum(linear.data, 50))
    totals = np.asarray(linear.sum(axis=1)).ravel()
    if not rescale:
        _check_scale(name, float(np.median(totals)))
        return log
    linear.data *= np.repeat(metrics.space.TARGET / np.maximum(totals, 1e-9), np.diff(linear.indptr))
    return sp.csr_matrix((np.log1p(linear.data), linear.indices, linear.indptr), shape=linear.shape)


def _check_scale(name: str, total: float) -> None:
    if not metrics.space.TARGET / 2 <= total <= metrics.space.TARGET * 2:
        raise DataError(
            f"{name}: exp(values) - 1 sums to {total:.4g} in the median cell, so it is normalised otherwise; allowed is log(1 + counts per 10,000), "
            "a sum near 10,000: use scanpy.pp.normalize_total(target_sum=1e4) and log1p (natural logarithm), or pass raw counts"
        )


def _split(train: Cells, rng: np.random.Generator, notes: list[str]) -> tuple[Cells, Cells]:
    """Without test cells: half of the training cells of each type stand in for them."""
    if len(train) < 2 * FEWEST_CELLS:
        raise DataError(f"train: {len(train)} cells and no test set; at least {2 * FEWEST_CELLS} are needed to set half aside: pass test=, or more cells")
    rows = [rng.permutation(np.flatnonzero(train.codes == t)) for t in np.unique(train.codes)]
    kept = np.sort(np.concatenate([of_type[: (len(of_type) + 1) // 2] for of_type in rows]))
    aside = np.sort(np.concatenate([of_type[(len(of_type) + 1) // 2 :] for of_type in rows]))
    notes.append(
        f"No test set was given: {len(aside):,} of the {len(train):,} training cells, half of each type, stand in for it, and the floors come from them. "
        "The makers of the synthetic cells saw them, so the figures flatter a set that copies; memorisation and membership cannot be measured and are left out."
    )
    return train[kept], train[aside]


def _thin(name: str, cells: Cells, most: int, rng: np.random.Generator, notes: list[str]) -> Cells:
    if len(cells) <= most:
        return cells
    notes.append(f"{name}: {most:,} of {len(cells):,} cells, drawn at random, are used.")
    return cells[np.sort(rng.choice(len(cells), most, replace=False))]


def _say(notes: list[str], label: str | None, types: list[str], logs: list[str], donor: str | None, real: Mapping[str, AnnData]) -> None:
    if label is None:
        notes.append("No label was given: overall figures only.")
    elif len(types) == 1:
        notes.append(f"One type only ({types[0]!r}): markers, label accuracy, composition and train on synthetic, which compare types, are left out.")
    if logs:
        notes.append(
            f"Log-normalised: {', '.join(logs)}. Such cells carry no library size, so it is left out for them, with the pass/fail checks on counts, "
            "and log depth is left out of the boosting classifier for every set, so that all stay comparable."
        )
    if donor is not None and "test" in real and donor in real["train"].obs and donor in real["test"].obs:
        unseen = set(real["test"].obs[donor].astype(str)) - set(real["train"].obs[donor].astype(str))
        if len(unseen) < 2:
            notes.append(
                f"Membership by donor is left out: it needs at least two donors ({donor!r}) in the test cells alone, and there are {len(unseen)}. "
                "Split train and test by donor to have it."
            )


def _say_missing(notes: list[str], types: list[str], test: Cells, sets: Mapping[str, Cells]) -> None:
    for name, cells in {"test": test, **sets}.items():
        counts = np.bincount(cells.codes, minlength=len(types))
        few = [types[t] for t in np.flatnonzero(counts < (2 if name == "test" else 1))]
        if few:
            which = ", ".join(map(repr, few))
            notes.append(f"{name}: no cells, or too few, of {which}: left out of every comparison, for every set, so that all are scored on the same mix.")
