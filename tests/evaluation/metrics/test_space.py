"""The space: scikit-learn's PCA, centred on the cells that it was fitted to."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from scld.evaluation.metrics import Space, wasserstein
from scld.preprocessing import log_normalise


def test_log_normalise_is_scanpys(rng):
    import anndata as ad
    import scanpy as sc

    dense = rng.poisson(1.0, (30, 20)) + np.eye(30, 20)
    counts = sp.csr_matrix(dense.astype(np.float32))
    adata = ad.AnnData(counts.copy())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    np.testing.assert_allclose(log_normalise(counts).toarray(), adata.X.toarray(), rtol=1e-5)
    assert counts.data.max() == np.rint(counts.data.max())  # the counts themselves are left alone


def test_space_is_sklearns_pca_of_the_most_variable_genes(rng):
    from sklearn.decomposition import PCA

    signal = rng.normal(size=(200, 3)) * [9, 6, 3] @ rng.normal(size=(3, 50))
    cells = sp.csr_matrix(signal + rng.normal(size=(200, 50)) / 9 + 5)
    space = Space.fit(cells, n_genes=20, n_components=3)
    dense = cells.toarray()
    assert set(space.genes) == set(np.argsort(-dense.var(axis=0))[:20])
    expected = PCA(3, svd_solver="full").fit_transform(dense[:, space.genes])
    projected = space.project(space.dense(cells))
    np.testing.assert_allclose(np.abs(projected), np.abs(expected), atol=1e-2)


def test_projection_is_centred_on_the_fitted_cells(rng):
    """Without centring, the offset of the mean is far larger than the differences between cells."""
    train, a, b = (sp.csr_matrix(rng.normal(size=(100, 30)) + 5) for _ in range(3))
    space = Space.fit(train, n_components=5)
    centred = [space.project(space.dense(cells)) for cells in (a, b)]
    uncentred = [space.dense(cells) @ space.components.T for cells in (a, b)]
    offset = np.linalg.norm(centred[0].mean(axis=0))
    assert offset < np.linalg.norm(uncentred[0].mean(axis=0)) / 3
    half_centred = wasserstein(centred[0], uncentred[1].astype(float))
    assert half_centred > 3 * wasserstein(*centred)
