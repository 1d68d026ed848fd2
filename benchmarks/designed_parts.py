"""The parts of designed.py: each yields rows of one dataset and seed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from common import LABEL
from designed_cells import (
    CONDITION,
    CONTROL,
    CONTROLS,
    DONOR,
    GROUP,
    LABELS,
    TREATED,
    Folds,
    Study,
    common_types,
    fitted_on,
    group_splits,
    halves,
    new_donor_studies,
    planting,
    study_of,
    thinned,
)

import scld
from scld.errors import listed
from scld.evaluation.cells import OVERALL
from scld.power_analysis import detection

REAL, SCLD = "real", "SCLD"
WILCOXON, PSEUDOBULK = "Wilcoxon, cells", "PyDESeq2, pseudobulk"
ALPHA = 0.05
EXPRESSED = 0.1  # share of the cells of a type that has counts of a gene that is tested
MOST_GENES, MOST_EFFECT_GENES = 600, 1250  # PyDESeq2 takes up to 20 ms for each
PSEUDOCOUNT = 0.1  # counts per 10,000, in fold changes
TOP = 100
QUANTILES = (0.5, 0.75, 0.9)
GROUP_CELLS = 20  # of a type in each condition of each half
DONOR_CELLS = 20  # of a type in each donor
EFFECT_TYPES, MOST_TYPES, SHUFFLED_SPLITS = 5, 3, 2
REPLICATES = 10  # sets of new donors
SHARE_DONORS, SHARE_CELLS = 200, 2000  # new donors whose composition is drawn, and cells of each
SIZES = (-0.5, -1.0)  # log2 fold changes of the part power
CHANGED = 30  # genes of each size
DOUBLETS = 0.08
VARIABLE_GENES, COMPONENTS = 1000, 30  # of the doublet score
MEDIAN_CHI2 = 0.4549364  # of one degree of freedom
Rows = Iterator[dict[str, Any]]
Split = tuple[list[str], list[str]]  # names of the donors of both groups


def expressed_genes(counts: sp.csr_matrix) -> np.ndarray:
    """Columns of the genes that enough of the cells have."""
    having = np.bincount(counts.indices, minlength=counts.shape[1])
    return np.flatnonzero(having >= EXPRESSED * counts.shape[0])


def genes_to_try(counts: sp.csr_matrix, most: int = MOST_GENES) -> np.ndarray:
    """Columns of the expressed genes, or of so many of them, evenly picked."""
    genes = expressed_genes(counts)
    picked = np.linspace(0, len(genes) - 1, min(most, len(genes))).astype(int)
    return genes[picked]


def totals_of(counts: sp.csr_matrix) -> np.ndarray:
    """Total counts ``[cells]``."""
    return np.asarray(counts.sum(axis=1)).ravel()


def log_values(counts: sp.csr_matrix) -> sp.csr_matrix:
    """log(1 + counts per 10,000)."""
    return detection.log_normalised(counts, totals_of(counts))


def wilcoxon_p(study: Study, genes: np.ndarray) -> np.ndarray:
    """p-values ``[genes]`` of the rank-sum test over cells."""
    return detection.rank_sum(log_values(study.counts)[:, genes], study.treated[study.donor])


def pseudobulk_p(study: Study, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p-values ``[genes]`` of PyDESeq2 on sums over the cells of each donor, and adjusted ones."""
    bulk = detection.pseudobulk(study.counts, study.donor, len(study.treated))[:, genes]
    p, q = np.full((2, len(genes)), np.nan)
    seen = bulk.sum(axis=0) > 0
    p[seen], q[seen] = detection.deseq2(bulk[:, seen], study.treated, ALPHA)
    return p, q


# effects


def effects(name: str, cells: AnnData, seed: int, given: argparse.Namespace) -> Rows:
    """Effects of a real condition, planted in synthetic controls, beside the real ones."""
    is_control = cells.obs[CONDITION].isin(CONTROLS).to_numpy()
    cells.obs[GROUP] = np.where(is_control, CONTROL, TREATED)
    least, most = (10, 2) if given.quick else (2 * GROUP_CELLS, EFFECT_TYPES)
    kinds = common_types(cells.obs, [GROUP], least, most)
    cells = cells[cells.obs[LABEL].isin(kinds)].copy()
    second = halves(cells.obs, [LABEL, DONOR, GROUP], seed)
    a, b = cells[~second].copy(), cells[second].copy()
    controls = b[(b.obs[GROUP] == CONTROL).to_numpy()].copy()
    synth = fitted_on(controls, "control", name, seed, given)
    found = {kind: planted_effect(two_groups(a).of_type(kind), a.var_names) for kind in kinds}
    every = with_seen_genes({kind: table["log2fc"] for kind, table in found.items()}, synth)
    folds = {
        kind: values[found[kind].loc[values.index, "significant"]] for kind, values in every.items()
    }
    table = with_fitted_donors(b.obs, controls.obs)
    options: dict[str, Any] = {"obs": table, "seed": seed, "progress": False}
    changed, all_changed = (
        synth.sample(**planting(each), fixed_depth=True, **options) for each in (folds, every)
    )
    datasets = {
        f"{REAL}, half B": b,
        f"{REAL}, half A": a,
        f"{SCLD}, significant effects of half A": changed,
        f"{SCLD}, all effects of half A": all_changed,
        f"{SCLD}, no effects": synth.sample(**options),
    }
    yield from compared_effects(datasets, a, kinds)


def two_groups(cells: AnnData) -> Study:
    """Control and treated cells; a donor in both conditions counts as two samples."""
    column = "sample_of" if "sample_of" in cells.obs else DONOR
    names = cells.obs[column].astype(str) + "|" + cells.obs[GROUP].astype(str)
    samples = sorted(names.unique())
    treated = np.array([each.endswith(f"|{TREATED}") for each in samples])
    number = pd.Index(samples).get_indexer(names)
    return Study(sp.csr_matrix(cells.X), cells.obs[LABEL].to_numpy(str), number, treated)


def with_fitted_donors(obs: pd.DataFrame, fitted: pd.DataFrame) -> pd.DataFrame:
    """The table with a donor that the model knows in place of each other one.

    The true one stays in ``sample_of``, for pseudobulk.
    """
    known, donors = sorted(fitted[DONOR].unique()), sorted(obs[DONOR].unique())
    other = [each for each in donors if each not in known]
    place = {each: known[i % len(known)] for i, each in enumerate(other)}
    table = obs[[*LABELS, GROUP]].assign(sample_of=obs[DONOR])
    return table.assign(**{DONOR: obs[DONOR].replace(place)})


def planted_effect(study: Study, genes: pd.Index) -> pd.DataFrame:
    """Columns ``log2fc``, shrunk, and ``significant``, of the expressed genes of a type.

    A normal prior is fitted to the fold changes of all expressed genes, of which sampling errors
    are known (`fold_change_errors`); each is shrunk to its expectation given the data.
    """
    tested = expressed_genes(study.counts)
    treated = study.treated[study.donor]
    fold, error = fold_change_errors(study.counts, treated)
    fold, error = fold[tested], error[tested]
    prior = max(float(np.mean(fold**2 - error**2)), 0.0)
    shrunk = fold * prior / (prior + error**2)
    significant = detection.adjusted(wilcoxon_p(study, tested)) < ALPHA
    values = {"log2fc": shrunk, "significant": significant}
    return pd.DataFrame(values, index=genes[tested])


def with_seen_genes(folds: Folds, synth: scld.Synthesizer) -> Folds:
    """Without the genes that the training cells have no count of: a model never expresses them."""
    seen = set(synth.genes["gene"][synth.genes["seen"]])
    kept = {kind: values[values.index.isin(seen)] for kind, values in folds.items()}
    lost = {gene for values in folds.values() for gene in values.index if gene not in seen}
    if lost:
        print(f"no count in control cells, so not planted: {listed(sorted(lost))}", flush=True)
    return kept


def fold_change_errors(counts: sp.csr_matrix, treated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log2 ratios ``[genes]`` of mean counts per 10,000, and their standard errors over cells."""
    scaled = sp.csr_matrix(sp.diags(1e4 / totals_of(counts)) @ counts)
    means, variances = [], []
    for group in (~treated, treated):
        own = scaled[group]
        mean = np.asarray(own.mean(axis=0)).ravel()
        square = np.asarray(own.multiply(own).mean(axis=0)).ravel()
        means.append(mean + PSEUDOCOUNT)
        variances.append((square - mean**2) / max(group.sum() - 1, 1) / means[-1] ** 2)
    return np.log2(means[1] / means[0]), np.sqrt(sum(variances)) / np.log(2)


def compared_effects(datasets: dict[str, AnnData], chosen_in: AnnData, kinds: list[str]) -> Rows:
    """One row per test, type and dataset, each compared with the first dataset."""
    studies = {method: two_groups(cells) for method, cells in datasets.items()}
    for kind in kinds:
        tested = genes_to_try(cells_of(chosen_in, kind), MOST_EFFECT_GENES)
        first: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for method, study in studies.items():
            of_type = study.of_type(kind)
            fold = fold_change_errors(of_type.counts, of_type.treated[of_type.donor])[0][tested]
            for test, p in both_tests(of_type, tested):
                signed = -np.log10(np.maximum(p, 1e-300)) * np.sign(fold)
                reference = first.setdefault(test, (fold, signed))
                row = {"group": kind, "test": test, "method": method, "genes": len(tested)}
                yield row | described(p) | agreement(fold, signed, reference, method)


def both_tests(study: Study, genes: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names and p-values of the tests that a study has enough samples for; missing ones are 1."""
    yield WILCOXON, wilcoxon_p(study, genes)
    samples = np.unique(study.donor)
    if min((~study.treated[samples]).sum(), study.treated[samples].sum()) >= 2:
        number = np.searchsorted(samples, study.donor)
        own = Study(study.counts, study.types, number, study.treated[samples])
        yield PSEUDOBULK, np.nan_to_num(pseudobulk_p(own, genes)[0], nan=1.0)


def described(p: np.ndarray) -> dict[str, float]:
    """Number of significant genes, and quantiles of the p-values, on the scale of -log10."""
    values = -np.log10(np.maximum(p, 1e-300))
    quantiles = {f"-log10 p, {q:.0%} quantile": float(np.quantile(values, q)) for q in QUANTILES}
    return {"significant genes": int((detection.adjusted(p) < ALPHA).sum()), **quantiles}


def agreement(
    fold: np.ndarray, signed: np.ndarray, reference: tuple[np.ndarray, np.ndarray], method: str
) -> dict[str, float]:
    """How fold changes and p-values agree with those of the real half B."""
    if method == f"{REAL}, half B":
        return {}
    top = min(TOP, len(fold))
    leading = [set(np.argsort(-np.abs(each))[:top]) for each in (signed, reference[1])]
    return {
        "correlation, log2fc": rank_correlation(fold, reference[0]),
        "correlation, signed log p": rank_correlation(signed, reference[1]),
        f"share of top {TOP}": len(leading[0] & leading[1]) / top,
    }


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic)


# null


def donor_splits(cells: AnnData, n: int, seed: int, given: argparse.Namespace) -> list[Split]:
    """Groups of n against n donors."""
    donors = sorted(cells.obs[DONOR].unique())
    found = group_splits(len(donors), n, 1 if given.quick else given.splits, seed)
    return [([donors[i] for i in a], [donors[i] for i in b]) for a, b in found]


def types_of_all(cells: AnnData, given: argparse.Namespace) -> list[str]:
    """The types of which each donor has enough cells."""
    least, most = (2, 1) if given.quick else (DONOR_CELLS, MOST_TYPES)
    return common_types(cells.obs, [DONOR], least, most)


def study_of_split(cells: AnnData, split: Split) -> Study:
    """The cells of the donors of a split."""
    control, treated = split
    return study_of(cells, [*control, *treated], [False] * len(control) + [True] * len(treated))


def null(name: str, cells: AnnData, seed: int, given: argparse.Namespace) -> Rows:
    """p-values where nothing differs between two groups of donors but the donors."""
    synth = fitted_on(cells, "donors", name, seed, given)
    kinds = types_of_all(cells, given)
    cells = cells[cells.obs[LABEL].isin(kinds)].copy()
    genes = {kind: genes_to_try(cells_of(cells, kind)) for kind in kinds}
    splits = donor_splits(cells, cells.obs[DONOR].nunique() // 2, seed, given)
    synthetic = synth.sample(obs=cells.obs[LABELS], seed=seed, progress=False)
    shuffled = with_shuffled_donors(cells, seed)
    studies: dict[str, Iterable[Study]] = {
        f"{REAL}, donors in two groups": [study_of_split(cells, each) for each in splits],
        f"{REAL}, cells without donors": [
            study_of_split(shuffled, each) for each in splits[:SHUFFLED_SPLITS]
        ],
        f"{SCLD}, fitted donors": [study_of_split(synthetic, each) for each in splits],
        f"{SCLD}, new donors": new_donor_studies(synth, cells.obs, splits, seed),
    }
    for method, of_method in studies.items():
        for number, study in enumerate(of_method):
            for kind in kinds:
                row = {"method": method, "group": kind, "replicate": number}
                yield row | uniformity(study.of_type(kind), genes[kind])


def cells_of(cells: AnnData, kind: str) -> sp.csr_matrix:
    """Counts of the cells of a type."""
    return sp.csr_matrix(cells.X)[(cells.obs[LABEL] == kind).to_numpy()]


def with_shuffled_donors(cells: AnnData, seed: int) -> AnnData:
    """The cells with the donors permuted within types: no donor differs from another."""
    rng, shuffled = np.random.default_rng([seed, 6]), cells.copy()
    donor = cells.obs[DONOR].to_numpy(str)
    for rows in cells.obs.reset_index().groupby(LABEL).indices.values():
        donor[rows] = donor[rng.permutation(rows)]
    shuffled.obs[DONOR] = donor
    return shuffled


def uniformity(study: Study, genes: np.ndarray) -> dict[str, float]:
    """How far p-values are from uniform ones: KS distance, share below .05, inflation factor."""
    from scipy.stats import chi2, kstest

    bulk = pseudobulk_p(study, genes)[0]
    bulk, cell = bulk[~np.isnan(bulk)], wilcoxon_p(study, genes)
    statistic = chi2.isf(np.clip(cell, 1e-300, 1), 1)
    return {
        "genes": len(genes),
        "pseudobulk, p < .05": float((bulk < ALPHA).mean()),
        "pseudobulk, KS": float(kstest(bulk, "uniform").statistic),
        "Wilcoxon, p < .05": float((cell < ALPHA).mean()),
        "Wilcoxon, inflation": float(np.median(statistic) / MEDIAN_CHI2),
    }


# donors


def donors(name: str, cells: AnnData, seed: int, given: argparse.Namespace) -> Rows:
    """Variance of expression between donors, of each type."""
    synth = fitted_on(cells, "donors", name, seed, given)
    kinds, names = types_of_all(cells, given), sorted(cells.obs[DONOR].unique())
    cells = cells[cells.obs[LABEL].isin(kinds)].copy()
    whole: Split = (names, [])
    second = halves(cells.obs, LABELS, seed)
    replicates = range(2 if given.quick else REPLICATES)
    new = list(new_donor_studies(synth, cells.obs, [whole for _ in replicates], seed))
    options: dict[str, Any] = {"obs": cells.obs[LABELS], "progress": False}
    again = [synth.sample(seed=seed + i, **options) for i in replicates[:2]]
    real_halves = [study_of_split(cells[half].copy(), whole) for half in (~second, second)]
    for kind in kinds:
        genes = expressed_genes(cells_of(cells, kind))
        of_real = between_donors(study_of_split(cells, whole).of_type(kind), genes)
        parts = [between_donors(study.of_type(kind), genes) for study in real_halves]
        row = {"group": kind, "genes": len(genes)}
        yield row | {"method": f"{REAL}, half of the cells"} | same_variance(parts[:1], parts[1])
        datasets = {
            f"{SCLD}, fitted donors": [study_of_split(each, whole) for each in again],
            f"{SCLD}, new donors": new,
        }
        for method, studies in datasets.items():
            found = [between_donors(study.of_type(kind), genes) for study in studies]
            yield row | {"method": method} | same_variance(found, of_real)


def between_donors(study: Study, genes: np.ndarray) -> np.ndarray:
    """Variance ``[genes]`` of the means of donors of log-normalised values, less that of cells."""
    values = log_values(study.counts)[:, genes].toarray()
    means, errors = [], []
    for donor in np.unique(study.donor):
        own = values[study.donor == donor]
        means.append(own.mean(axis=0))
        errors.append(own.var(axis=0, ddof=1) / len(own))
    variance: np.ndarray = np.var(means, axis=0, ddof=1) - np.mean(errors, axis=0)
    return variance


def same_variance(found: list[np.ndarray], real: np.ndarray) -> dict[str, float]:
    """The mean of some estimates beside the real ones; ratios are of synthetic over real."""
    mean = np.mean(found, axis=0)
    varying = real > 0
    one = [rank_correlation(each, real) for each in found]
    return {
        "ratio of medians": float(np.median(mean) / np.median(real)),
        "ratio of means": float(mean.mean() / real.mean()),
        "median ratio where real > 0": float(np.median(mean[varying] / real[varying])),
        "correlation, one set": float(np.mean(one)),
        "correlation, mean of sets": rank_correlation(mean, real),
    }


def composition(name: str, cells: AnnData, seed: int, given: argparse.Namespace) -> Rows:
    """Standard deviation of the log share of each type between donors, without sampling error."""
    synth = fitted_on(cells, "donors", name, seed, given)
    number, each = (20, 200) if given.quick else (SHARE_DONORS, SHARE_CELLS)
    table = synth.donor_table(number, each, label=DONOR, seed=seed)
    for method, obs in ((REAL, cells.obs), (f"{SCLD}, new donors", table)):
        sizes = pd.crosstab(obs[DONOR].astype(str), obs[LABEL].astype(str))
        shares = (sizes + 0.5).div(sizes.sum(axis=1), axis=0)
        variance = np.log(shares).var(ddof=1) - (1 / (sizes + 0.5)).mean()
        for kind, value in variance.items():
            row = {"group": kind, "method": method, "donors": len(sizes)}
            yield row | {
                "sd of log share": float(np.sqrt(max(value, 0))),
                "mean share": float(shares[kind].mean()),
            }


# power


def power(name: str, cells: AnnData, seed: int, given: argparse.Namespace) -> Rows:
    """Power and false discoveries: fold changes thinned into real cells, or planted."""
    synth = fitted_on(cells, "donors", name, seed, given)
    kinds = types_of_all(cells, given)
    cells = cells[cells.obs[LABEL].isin(kinds)].copy()
    genes = {kind: genes_to_try(cells_of(cells, kind)) for kind in kinds}
    folds = random_folds(cells.var_names, genes, seed)
    for n in range(2, cells.obs[DONOR].nunique() // 2 + 1):
        splits = donor_splits(cells, n, seed, given)
        studies = {
            f"{REAL}, thinned": thinned_studies(cells, splits, folds, seed),
            f"{SCLD}, new donors": new_donor_studies(synth, cells.obs, splits, seed, folds),
        }
        for method, of_method in studies.items():
            for number, study in enumerate(of_method):
                for kind in kinds:
                    row = {"method": method, "donors": n, "group": kind, "replicate": number}
                    found = detected(study.of_type(kind), genes[kind], cells.var_names, folds[kind])
                    yield from (row | {"test": test} | values for test, values in found)


def random_folds(names: pd.Index, genes: dict[str, np.ndarray], seed: int) -> Folds:
    """Random expressed genes of each type, some for each size."""
    rng, found = np.random.default_rng([seed, 8]), {}
    for kind, columns in genes.items():
        number = min(CHANGED, len(columns) // (3 * len(SIZES)))
        chosen = rng.choice(columns, number * len(SIZES), replace=False)
        found[kind] = pd.Series(np.resize(SIZES, len(chosen)), index=names[chosen])
    return found


def thinned_studies(
    cells: AnnData, splits: list[Split], folds: Folds, seed: int
) -> Iterator[Study]:
    """One study per split: the genes are thinned in the real cells of the treated donors."""
    for number, split in enumerate(splits):
        study, rng = study_of_split(cells, split), np.random.default_rng([seed, 9, number])
        changed = study.treated[study.donor]
        counts = thinned(study.counts, study.types, changed, cells.var_names, folds, rng)
        yield study._replace(counts=counts)


def detected(
    study: Study, genes: np.ndarray, names: pd.Index, folds: pd.Series
) -> Iterator[tuple[str, dict[str, float]]]:
    """Power at each size and share of false discoveries, of both tests."""
    size = folds.reindex(names[genes]).fillna(0.0).to_numpy()
    adjusted = {
        PSEUDOBULK: pseudobulk_p(study, genes)[1],
        WILCOXON: detection.adjusted(wilcoxon_p(study, genes)),
    }
    for test, q in adjusted.items():
        found = q < ALPHA
        of_sizes = {f"power, log2fc {each:g}": float(found[size == each].mean()) for each in SIZES}
        false = float(found[size == 0].sum() / max(found.sum(), 1))
        yield test, {**of_sizes, "false discoveries": false, "significant genes": int(found.sum())}


# doublets


def doublets(name: str, cells: AnnData, seed: int, given: argparse.Namespace) -> Rows:
    """How well a score like Scrublet's finds real and synthetic doublets."""
    from sklearn.metrics import roc_auc_score

    synth = fitted_on(cells, "donors", name, seed, given)
    for partners, between in (("other type", [LABEL]), ("any", [])):
        real = with_real_doublets(cells, bool(between), seed)
        artefacts = scld.Artefacts(doublets=DOUBLETS, doublets_between=between)
        synthetic = synth.sample(
            obs=real.obs[LABELS], artefacts=artefacts, seed=seed, progress=False
        )
        for method, found in ((REAL, real), (SCLD, synthetic)):
            is_doublet = found.obs["is_doublet"].to_numpy(bool)
            scores = {
                "AUC, simulated doublets nearby": doublet_score(found, seed),
                "AUC, total counts": totals_of(sp.csr_matrix(found.X)),
            }
            values = {key: roc_auc_score(is_doublet, score) for key, score in scores.items()}
            row = {"group": partners, "method": method, "doublet cells": int(is_doublet.sum())}
            yield row | {key: float(value) for key, value in values.items()}


def with_real_doublets(cells: AnnData, between: bool, seed: int) -> AnnData:
    """Cells of which some have the counts of another cell added; that one is not used otherwise."""
    rng, kinds = np.random.default_rng([seed, 10]), cells.obs[LABEL].to_numpy(str)
    order = rng.permutation(cells.n_obs)
    number = round(cells.n_obs * DOUBLETS / (1 + DOUBLETS))
    partners, kept = order[:number], order[number:]
    first = kept[:number].copy()
    if between:
        first = np.array(differing(kinds, partners, kept, rng))
        partners, first = partners[first >= 0], first[first >= 0]
    counts = sp.csr_matrix(cells.X)
    row = pd.Series(np.arange(len(kept)), index=kept)
    shape = (len(kept), len(partners))
    places = sp.csr_matrix((np.ones(len(partners)), (row[first], np.arange(len(partners)))), shape)
    summed = sp.csr_matrix(counts[kept] + places @ counts[partners]).astype(np.float32)
    obs = cells.obs.iloc[kept].assign(is_doublet=np.isin(kept, first))
    return AnnData(summed, obs=obs, var=pd.DataFrame(index=cells.var_names))


def differing(
    kinds: np.ndarray, partners: np.ndarray, kept: np.ndarray, rng: np.random.Generator
) -> list[int]:
    """A random cell of another type for each partner, each once; -1 where none is left."""
    waiting, found = list(rng.permutation(kept)), []
    for partner in partners:
        place = next((i for i, cell in enumerate(waiting) if kinds[cell] != kinds[partner]), None)
        found.append(-1 if place is None else int(waiting.pop(place)))
    return found


def doublet_score(cells: AnnData, seed: int) -> np.ndarray:
    """The share of simulated doublets among the nearest neighbours of each cell, as in Scrublet.

    Twice as many doublets as cells, sums of two random cells; nearest neighbours on components of
    the log-normalised values of the most variable genes, fitted to the cells alone.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.neighbors import NearestNeighbors

    rng, counts = np.random.default_rng([seed, 11]), sp.csr_matrix(cells.X)
    first, second = rng.integers(0, cells.n_obs, (2, 2 * cells.n_obs))
    values = log_values(sp.csr_matrix(sp.vstack([counts, counts[first] + counts[second]])))
    own = values[: cells.n_obs]
    mean = np.asarray(own.mean(axis=0)).ravel()
    variance = np.asarray(own.multiply(own).mean(axis=0)).ravel() - mean**2
    genes = np.argsort(-variance)[:VARIABLE_GENES]
    number = min(COMPONENTS, len(genes) - 1, cells.n_obs - 1)
    svd = TruncatedSVD(number, random_state=seed).fit(own[:, genes])
    points = svd.transform(values[:, genes])
    k = round(1.5 * np.sqrt(cells.n_obs))  # that is half of the root, for cells and doublets
    near = NearestNeighbors(n_neighbors=k + 1).fit(points)
    found = near.kneighbors(points[: cells.n_obs], return_distance=False)[:, 1:]
    score: np.ndarray = (found >= cells.n_obs).mean(axis=1)
    return score


PARTS: dict[str, Callable[..., Rows]] = {
    "effects": effects,
    "null": null,
    "donors": donors,
    "composition": composition,
    "doublets": doublets,
    "power": power,
}
KEYS = {  # part -> what names a row, besides dataset and seed
    "effects": ["test", "group", "method"],
    "null": ["group", "method"],
    "donors": ["group", "method"],
    "composition": ["group", "method"],
    "doublets": ["group", "method"],
    "power": ["donors", "test", "group", "method"],
}


def averaged(part: str, rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Means over replicates by type, and over types; the shares of types keep to themselves."""
    table = pd.DataFrame(rows).drop(columns="replicate", errors="ignore")
    by_type = table.groupby(KEYS[part], sort=False).mean(numeric_only=True).reset_index()
    if part in ("composition", "doublets"):
        return by_type
    others = [key for key in KEYS[part] if key != "group"]
    overall = by_type.drop(columns="group").groupby(others, sort=False).mean().reset_index()
    return pd.concat([overall.assign(group=OVERALL), by_type])[list(by_type)]
