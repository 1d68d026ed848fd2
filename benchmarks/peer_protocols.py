"""Published evaluation protocols beside that of `scld.evaluate`, for peers.py.

Those of CFGen and scDiffusion are metrics of `scld.evaluate` itself.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from scld.evaluation.metrics import Space

CELLS = 1000  # of each dataset, in a comparison
GENES, COMPONENTS, TREES = 1000, 50, 1000  # of GRouNdGAN
TEST_SHARE = 0.3  # of the cells that its forest is tested on
GROUNDGAN = "groundgan_forest"
GGE = ("gge_w1", "gge_w2", "gge_energy")
REAL, GENE_SHUFFLE = "real cells", "real cells, genes shuffled"


def published(
    train: sp.csr_matrix, test: sp.csr_matrix, synthetic: sp.csr_matrix, seed: int
) -> dict[str, float]:
    """Scores of synthetic cells by each protocol.

    Parameters
    ----------
    train, test, synthetic
        ``[cells, genes]`` log-normalised.
    seed
        Same seed, same scores.
    """
    n = min(CELLS, test.shape[0], synthetic.shape[0])
    return _scores(train, _sampled(test, n, seed), _sampled(synthetic, n, seed), seed)


def references(train: sp.csr_matrix, test: sp.csr_matrix, seed: int) -> dict[str, dict[str, float]]:
    """The same scores of training cells, and of these with each gene shuffled over all cells.

    A protocol that gives both the same value cannot see whether genes are expressed together.
    """
    n = min(CELLS, test.shape[0], train.shape[0])
    real, known = _sampled(test, n, seed), _sampled(train, n, seed)
    shuffled = np.random.default_rng(seed).permuted(known.toarray(), axis=0)
    compared = {REAL: known, GENE_SHUFFLE: sp.csr_matrix(shuffled)}
    return {name: _scores(train, real, cells, seed) for name, cells in compared.items()}


def _sampled(cells: sp.csr_matrix, n: int, seed: int) -> sp.csr_matrix:
    rows = np.random.default_rng(seed).permutation(cells.shape[0])[:n]
    return sp.csr_matrix(cells[rows])


def _scores(
    train: sp.csr_matrix, real: sp.csr_matrix, made: sp.csr_matrix, seed: int
) -> dict[str, float]:
    return {GROUNDGAN: groundgan(train, real, made, seed), **gge(real, made)}


def groundgan(
    train: sp.csr_matrix, real: sp.csr_matrix, synthetic: sp.csr_matrix, seed: int
) -> float:
    """AUC of a forest of 1,000 trees on 50 components, as in table 1 of GRouNdGAN.

    1,000 variable genes, here of the training cells, normalised to equal total counts, without a
    logarithm; 70 % of the cells train components and forest, 30 % test it. (Zinati et al., Nat.
    Commun. 15:4055, 2024.)
    """
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import train_test_split

    genes = Space.fit(train, GENES, seed=seed).genes
    values = np.concatenate([_proportions(cells[:, genes]) for cells in (real, synthetic)])
    is_real = np.arange(len(values)) < real.shape[0]
    options = {"test_size": TEST_SHARE, "random_state": seed}
    known, unknown, truth, answer = train_test_split(values, is_real, **options)
    pca = PCA(min(COMPONENTS, *known.shape), random_state=seed).fit(known)
    forest = RandomForestClassifier(TREES, random_state=seed).fit(pca.transform(known), truth)
    return float(roc_auc_score(answer, forest.predict_proba(pca.transform(unknown))[:, 1]))


def _proportions(log: sp.csr_matrix) -> np.ndarray:
    """Log-normalised values -> expression per 10,000 of these genes."""
    values = np.expm1(log.toarray().astype(float)).clip(0)
    return np.asarray(values / values.sum(axis=1, keepdims=True).clip(1e-12) * 1e4)


def gge(real: sp.csr_matrix, synthetic: sp.csr_matrix) -> dict[str, float]:
    """W1, W2 and energy distance gene by gene, averaged: defaults of gge-eval 1.0.1.

    As it computes them without geomloss. They depend on each gene alone, so they cannot see a gene
    shuffle.

    Parameters
    ----------
    real, synthetic
        ``[cells, genes]``, equally many cells.
    """
    from scipy.stats import energy_distance

    pairs = [np.sort(cells.toarray().astype(float), axis=0) for cells in (real, synthetic)]
    gap = np.abs(pairs[0] - pairs[1])
    energy = [energy_distance(a, b) ** 2 for a, b in zip(pairs[0].T, pairs[1].T, strict=True)]
    distances = (gap.mean(axis=0), np.sqrt((gap**2).mean(axis=0)), energy)
    return {name: float(np.mean(d)) for name, d in zip(GGE, distances, strict=True)}
