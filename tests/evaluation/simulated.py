"""Simulated cells of three types, where it is known what is right and what is wrong."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.preprocessing import log_normalise

TYPES = ["B cell", "T cell", "monocyte"]
QUICK = {  # 49 cells of a type: one less than a two-sample test by type needs
    "label": "cell_type",
    "replicates": 1,
    "progress": False,
    "max_cells": 147,
}
NO_CONTROLS = {**QUICK, "controls": False}


def population(n, seed, genes=150, donors=None):
    """Cells with varying depth, programmes that correlate genes, and noise."""
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed)
    level = fixed.gamma(0.6, 1.5, genes)
    markers = np.exp(1.2 * fixed.normal(size=(3, genes)) * (fixed.random((3, genes)) < 0.25))
    programmes = fixed.normal(size=(3, 4, genes)) * (fixed.random((3, 4, genes)) < 0.2)
    codes = rng.permutation(np.arange(n) % 3)
    activity = np.einsum("np,npg->ng", rng.normal(size=(n, 4)), programmes[codes])
    depth = rng.lognormal(0, 0.35, (n, 1))
    mean = depth * level * markers[codes] * np.exp(0.5 * activity)
    counts = rng.poisson(mean).astype(np.float32)
    counts[:, 0] += 1  # no empty cell
    names = [f"c{i}" for i in range(n)]
    obs = pd.DataFrame({"cell_type": np.array(TYPES)[codes]}, index=names)
    if donors is not None:
        obs["donor"] = rng.choice(donors, n)
    var = pd.DataFrame(index=[f"g{i}" for i in range(genes)])
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=var)


def rebuilt(adata, control, seed=0):
    """A dataset made type by type by a negative control."""
    rng, types = np.random.default_rng(seed), adata.obs["cell_type"].to_numpy()
    parts = [control(adata.X[types == t], int((types == t).sum()), rng) for t in TYPES]
    labels = np.repeat(TYPES, [part.shape[0] for part in parts])
    obs = pd.DataFrame({"cell_type": labels}, index=np.arange(adata.n_obs).astype(str))
    return ad.AnnData(sp.vstack(parts, format="csr"), obs=obs, var=adata.var)


def noise_free(adata):
    """Every cell the rounded mean of its type, times its depth."""
    dense, types = adata.X.toarray(), adata.obs["cell_type"].to_numpy()
    mean = np.stack([dense[types == t].mean(axis=0) for t in types])
    depth = dense.sum(axis=1, keepdims=True) / mean.sum(axis=1, keepdims=True)
    return with_counts(adata, np.rint(mean * depth))


def mixed(a, b, share, seed=0):
    """``a`` with a share of its cells replaced by cells of ``b`` of the same types."""
    rows = np.random.default_rng(seed).random(a.n_obs) < share
    replaced = a.obs["cell_type"][rows].value_counts()
    taken = [
        row for t, n in replaced.items() for row in np.flatnonzero(b.obs["cell_type"] == t)[:n]
    ]
    return ad.concat([a[~rows], b[taken]], index_unique="-")


def with_counts(adata, dense):
    """The same cells with other counts."""
    copy = adata.copy()
    copy.X = sp.csr_matrix(np.asarray(dense, dtype=np.float32))
    return copy


def log_normalised(adata, target=1e4):
    """The same cells as log(1 + counts per ``target``)."""
    copy = adata.copy()
    copy.X = log_normalise(copy.X)
    copy.X.data = np.log1p(np.expm1(copy.X.data) * target / 1e4)
    return copy
