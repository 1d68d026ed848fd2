import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA
from small import make_cells

from scld.components import log_normalised, principal_components

COUNTS = sp.csr_matrix(make_cells(60, 12).X)


def test_counts_are_scaled_to_the_library_size_and_logged():
    dense = COUNTS.toarray().astype(float)
    np.testing.assert_allclose(log_normalised(COUNTS, 50.0).toarray(), np.log1p(50 * dense / dense.sum(axis=1, keepdims=True)), rtol=1e-6)


def test_the_components_are_those_of_the_dense_matrix():
    matrix = log_normalised(COUNTS, 50.0)
    loadings, mean, variance = principal_components(matrix, 5)
    dense = PCA(5, svd_solver="full").fit(matrix.toarray().astype(float))
    np.testing.assert_allclose(mean, dense.mean_, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(variance, dense.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(np.abs(loadings.T @ dense.components_.T), np.eye(5), atol=1e-3)


@pytest.mark.parametrize(
    ("matrix", "count"),
    [(COUNTS, 11), (COUNTS[:3], 2), (COUNTS[:1], 0), (COUNTS[:, :1], 0), (sp.csr_matrix(np.ones((9, 4))), 0), (sp.csr_matrix((9, 4)), 0)],
    ids=["fewer genes", "few cells", "one cell", "one gene", "all the same", "nothing"],
)
def test_there_are_as_many_as_can_be(matrix, count):
    loadings, mean, variance = principal_components(sp.csr_matrix(matrix, dtype=np.float32), 20)
    assert (loadings.shape, len(mean), len(variance)) == ((matrix.shape[1], count), matrix.shape[1], count)
    assert np.isfinite(loadings).all()


@pytest.mark.parametrize("seed", [0, 2**32, 2**63 - 1])
def test_any_seed_gives_the_same_components(seed):
    matrix = log_normalised(COUNTS, 50.0)
    loadings, expected = (principal_components(matrix, 3, seed=number)[0] for number in (seed, 0))
    np.testing.assert_allclose(np.abs(loadings), np.abs(expected), atol=1e-3)
