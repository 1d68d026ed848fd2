"""Real blood cells with one flaw that a perfect generator would not make, and none otherwise."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

import scld
from scld.evaluation.metrics import identity_genes, type_moments
from scld.preprocessing import log_normalise

LABEL = "cell_type"


def three_sets():
    """Training cells, test cells, and cells of a third split in the place of a generator's."""
    cells = scld.datasets.pbmc()
    order = np.random.default_rng(0).permutation(cells.n_obs)
    return tuple(cells[np.sort(rows)].copy() for rows in np.array_split(order, 3))


def identity_of(train, cell_type):
    """Columns of the identity genes of a type."""
    types = np.unique(train.obs[LABEL].astype(str))
    codes = np.searchsorted(types, train.obs[LABEL].astype(str))
    every = np.arange(len(types))
    found = identity_genes(type_moments(log_normalise(sp.csr_matrix(train.X)), codes, every), every)
    return found[int(np.searchsorted(types, cell_type))]


def _changed(cells, dense):
    copy = cells.copy()
    copy.X = sp.csr_matrix(dense.astype(np.float32))
    return copy


def halved(cells, cell_type, gene, seed=0):
    """One gene of one type halved by binomial thinning: each molecule is kept or not."""
    dense, rows = cells.X.toarray(), (cells.obs[LABEL] == cell_type).to_numpy()
    rng = np.random.default_rng(seed)
    dense[rows, gene] = rng.binomial(dense[rows, gene].astype(int), 0.5)
    return _changed(cells, dense)


def overdispersed(cells, cell_type, gene, seed=0):
    """One gene of one type redrawn at its mean rate, with gamma factors of variance 3."""
    dense, rows = cells.X.toarray(), (cells.obs[LABEL] == cell_type).to_numpy()
    rng, library = np.random.default_rng(seed), dense.sum(axis=1)[rows]
    rate = (dense[rows, gene] / library).mean()
    factors = rng.gamma(1 / 3, 3, len(library))
    factors /= factors.mean()  # the mean of these cells stays what it was
    dense[rows, gene] = rng.poisson(library * rate * factors)
    return _changed(cells, dense)


def leaked(cells, cell_type, genes, share=0.1, seed=0):
    """A share of the counts of some genes of a type moved, one by one, into other cells."""
    dense, inside = cells.X.toarray(), (cells.obs[LABEL] == cell_type).to_numpy()
    rng, others = np.random.default_rng(seed), np.flatnonzero(~inside)
    for gene in genes:
        moved = rng.binomial(dense[inside, gene].astype(int), share)
        dense[inside, gene] -= moved
        np.add.at(dense[:, gene], rng.choice(others, int(moved.sum())), 1)
    return _changed(cells, dense)
