import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA
from toy import make_cells

from scld.errors import DataError
from scld.preprocessing import (
    TARGET_SUM,
    log_normalise,
    permuted,
    principal_components,
    split_rows,
)

COUNTS = sp.csr_matrix(make_cells(60, 12).X)
FORMATS = pytest.mark.parametrize("form", [sp.csr_matrix, np.asarray], ids=["sparse", "dense"])


# Log-normalisation


@pytest.mark.parametrize("target_sum", [50.0, 1e4])
def test_counts_are_scaled_to_the_target_sum_and_logged(target_sum):
    dense = COUNTS.toarray().astype(float)
    expected = np.log1p(target_sum * dense / dense.sum(axis=1, keepdims=True))
    result = log_normalise(COUNTS, target_sum)
    assert (result.format, result.dtype) == ("csr", np.float32)
    np.testing.assert_allclose(result.toarray(), expected, rtol=1e-6)


def test_cells_have_10000_counts_unless_another_number_is_given():
    assert TARGET_SUM == 1e4
    assert (log_normalise(COUNTS) != log_normalise(COUNTS, 1e4)).nnz == 0
    np.testing.assert_allclose(
        np.expm1(log_normalise(COUNTS).toarray()).sum(axis=1), 1e4, rtol=1e-4
    )


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, np.float32, np.float64])
def test_the_type_of_the_counts_makes_no_difference(dtype):
    result = log_normalise(COUNTS.astype(dtype)).toarray()
    np.testing.assert_allclose(result, log_normalise(COUNTS).toarray(), rtol=1e-6)


def test_the_counts_are_not_changed():
    before = COUNTS.copy()
    log_normalise(COUNTS).data[:] = 0
    assert (before != COUNTS).nnz == 0


# Principal components


@FORMATS
def test_components_are_those_of_a_full_svd(form):
    matrix = log_normalise(COUNTS, 50.0).toarray()
    loadings, mean, variance = principal_components(form(matrix), 5)
    full = PCA(5, svd_solver="full").fit(matrix.astype(float))
    np.testing.assert_allclose(mean, full.mean_, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(variance, full.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(np.abs(loadings.T @ full.components_.T), np.eye(5), atol=1e-3)


def groups_of_cells(cells=400, genes=150):
    """Four groups of cells, each with 30 genes of its own: three components stand out."""
    random = np.random.default_rng(0)
    mean = np.ones((4, genes))
    for group in range(4):
        mean[group, 30 * group : 30 * (group + 1)] = [2, 4, 6, 8][group]
    counts = random.poisson(mean[np.arange(cells) % 4])
    return log_normalise(sp.csr_matrix(counts, dtype=np.float32)).toarray()


@FORMATS
def test_components_that_stand_out_are_those_of_a_full_svd_in_larger_matrices(form):
    matrix = groups_of_cells()
    loadings, _, variance = principal_components(form(matrix), 3)
    full = PCA(3, svd_solver="full").fit(matrix.astype(float))
    np.testing.assert_allclose(variance, full.explained_variance_, rtol=1e-3)
    np.testing.assert_allclose(np.abs(loadings.T @ full.components_.T), np.eye(3), atol=1e-2)


SAME = np.ones((9, 4), np.float32)
DENSE = COUNTS.toarray()


@FORMATS
@pytest.mark.parametrize(
    ("matrix", "of_sparse", "of_dense"),
    [
        (DENSE, 11, 12),
        (DENSE[:3], 2, 2),
        (DENSE[:2], 1, 1),
        (DENSE[:1], 0, 0),
        (DENSE[:, :1], 0, 1),
        (DENSE[:, :2], 1, 2),
        (SAME, 0, 0),
        (3 * SAME, 0, 0),
        (0 * SAME, 0, 0),
    ],
    ids=[
        "fewer genes than components",
        "three cells",
        "two cells",
        "one cell",
        "one gene",
        "two genes",
        "equal cells",
        "other equal cells",
        "no counts",
    ],
)
def test_there_are_as_many_components_as_the_matrix_has(form, matrix, of_sparse, of_dense):
    number = of_sparse if form is sp.csr_matrix else of_dense
    loadings, mean, variance = principal_components(form(matrix), 20)
    genes = matrix.shape[1]
    assert (loadings.shape, mean.shape, variance.shape) == ((genes, number), (genes,), (number,))
    assert np.isfinite(loadings).all()
    np.testing.assert_allclose(mean, matrix.mean(axis=0), rtol=1e-5)


@FORMATS
def test_no_components_are_asked_for(form):
    assert principal_components(form(DENSE), 0).loadings.shape == (12, 0)


@FORMATS
def test_cells_of_two_kinds_have_one_component_with_variance(form):
    matrix = np.where(np.arange(30)[:, None] % 3, [1.0, 0, 2, 0], [0, 3, 2, 1]).astype(np.float32)
    loadings, _, variance = principal_components(form(matrix), 3)
    assert np.isfinite(loadings).all()
    total = matrix.var(axis=0, ddof=1).sum()
    np.testing.assert_allclose(variance, [total, 0, 0], atol=1e-5)


@FORMATS
@pytest.mark.parametrize("seed", [0, 2**32, 2**63 - 1])
def test_every_seed_gives_the_same_components_up_to_signs(form, seed):
    matrix = form(log_normalise(COUNTS, 50.0).toarray())
    loadings, expected = (principal_components(matrix, 3, s).loadings for s in (seed, 0))
    np.testing.assert_allclose(np.abs(loadings), np.abs(expected), atol=1e-3)


@FORMATS
def test_the_same_seed_gives_the_same_bytes(form):
    one, other = (principal_components(form(DENSE), 3, seed=7) for _ in range(2))
    assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("seed", [2, 3, 5])
def test_cells_that_differ_by_rounding_alone_have_finite_components(seed):
    """The solver for sparse matrices refuses them."""
    random = np.random.default_rng(seed)
    profile = random.poisson(1, 30) + (np.arange(30) == 0)
    counts = sp.csr_matrix(np.outer(random.integers(1, 9, 20), profile).astype(np.float32))
    found = principal_components(log_normalise(counts) * np.float32(1e-7), 4, seed)
    assert np.isfinite(found.loadings).all()
    assert found.loadings.shape == (30, 4)


# Splits

SHARES = pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 1.0])


@SHARES
@pytest.mark.parametrize("seed", [0, 5])
def test_every_cell_is_on_one_side_and_each_group_is_split_by_the_share(share, seed):
    groups = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 7], [100, 31, 5, 1]))
    kept, aside = split_rows(groups, share, seed)
    assert sorted([*kept, *aside]) == list(range(len(groups)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(aside) > 0).all()
    for group, number in zip(*np.unique(groups, return_counts=True), strict=True):
        assert (groups[aside] == group).sum() == round(share * number)


def test_no_cell_of_group_minus_one_is_set_aside():
    groups = np.repeat([0, -1], [10, 90])
    kept, aside = split_rows(groups, 1.0, seed=0)
    assert aside.tolist() == list(range(10))
    assert kept.tolist() == list(range(10, 100))


def test_the_seed_determines_the_split():
    groups = np.zeros(1000, int)
    one, same, other = (split_rows(groups, 0.5, seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_every_cell_is_set_aside_equally_often():
    groups = np.arange(40) % 2
    times = np.zeros(40)
    for seed in range(1000):
        times[split_rows(groups, 0.25, seed)[1]] += 1
    assert abs(times - 250).max() < 5 * np.sqrt(1000 * 0.25 * 0.75)


def test_permuted_labels_keep_their_numbers_within_each_donor():
    obs = make_cells(300).obs.assign(group=["a", "a", "b"] * 100)
    new = permuted(obs, "group", within="donor")
    assert new.index.equals(obs.index)
    assert (new != obs["group"]).any()
    before, after = (pd.crosstab(values, obs["donor"]) for values in (obs["group"], new))
    assert before.equals(after)
    assert permuted(obs, "cell_type").value_counts().equals(obs["cell_type"].value_counts())
    assert permuted(obs, "cell_type").dtype == obs["cell_type"].dtype
    with pytest.raises(DataError, match="no such obs column"):
        permuted(obs, "grup")
