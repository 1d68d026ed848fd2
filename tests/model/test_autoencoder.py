import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import nbinom
from sklearn.decomposition import PCA
from torch.nn import functional as F
from toy import make_cells

from scld.config import AutoencoderConfig
from scld.model.autoencoder import Autoencoder, Batch, _WeightPrior, drop_labels, sample_latent
from scld.schema import MISSING

COUNTS = sp.csr_matrix(make_cells(40, 12).X)
CODES = np.stack([np.arange(40) % 3, np.arange(40) % 2], axis=1)
RATES = np.where(np.arange(12) % 3 == np.arange(3)[:, None], 4.0, 1.0)  # [types, genes]


def autoencoder(**settings):
    torch.manual_seed(0)
    config = AutoencoderConfig(latent=4, width=16, **settings)
    return Autoencoder(12, [3, 2], config).start_from(COUNTS, CODES).eval()


def trained(**settings):
    """With all weights changed."""
    result = autoencoder(**settings)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return result


def unlabelled(counts):
    return Batch.of(counts, np.zeros((counts.shape[0], 0), np.int64))


def without_labels(counts):
    return counts, np.zeros((counts.shape[0], 0), np.int64)


def decoded(model, latent, labels):
    """Log-means and log-dispersions."""
    return model.nb_parameters(model.logits(latent, labels), latent[:, -1:])


def test_a_batch_has_the_counts_depths_and_labels_of_its_cells():
    batch, dense = Batch.of(COUNTS[5:9], CODES[5:9]), COUNTS[5:9].toarray()
    stored = sp.csr_matrix(tuple(batch.counts), shape=(4, 12))
    np.testing.assert_array_equal(stored.toarray(), dense)
    np.testing.assert_allclose(batch.log_library.exp(), dense.sum(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(batch.labels, CODES[5:9])


def test_genes_of_a_batch_ascend_in_any_matrix():
    mixed = COUNTS.copy()
    for start, stop in zip(mixed.indptr[:-1], mixed.indptr[1:], strict=True):
        for array in (mixed.indices, mixed.data):
            array[start:stop] = array[start:stop][::-1].copy()
    mixed.has_sorted_indices = False
    one, other = Batch.of(COUNTS, CODES), Batch.of(mixed, CODES)
    assert torch.equal(one.counts.genes, other.counts.genes)
    assert torch.equal(one.counts.values, other.counts.values)


def test_the_library_size_is_the_last_dimension_of_a_latent_point():
    mean, log_variance = trained().encode(Batch.of(COUNTS, CODES))
    assert (mean.shape, log_variance.shape) == ((40, 5), (40, 4))
    library = np.log(COUNTS.toarray().sum(axis=1))
    np.testing.assert_allclose(mean[:, -1].detach(), library, rtol=1e-6)


def test_decoded_means_add_up_to_the_library_size():
    latent = torch.randn(6, 5) + 3
    log_mean, log_dispersion = decoded(trained(), latent, torch.from_numpy(CODES[:6]))
    assert (log_mean.shape, log_dispersion.shape[-1]) == ((6, 12), 12)
    torch.testing.assert_close(log_mean.exp().sum(1), latent[:, -1].exp())


def test_every_label_matters_and_can_be_unspecified():
    codes = torch.tensor([[i, j] for i in (MISSING, 0, 1, 2) for j in (MISSING, 0, 1)])
    assert len(decoded(trained(), torch.ones(12, 5), codes)[0].unique(dim=0)) == 12


def test_the_encoder_sees_proportions_and_not_depth():
    """A cell sequenced ten times as deep differs in its library size only."""
    model = trained()
    shallow, deep = (
        model.encode(Batch.of(sp.csr_matrix(counts), CODES))[0] for counts in (COUNTS, 10 * COUNTS)
    )
    torch.testing.assert_close(shallow[:, :-1], deep[:, :-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shallow[:, -1] + np.log(10), deep[:, -1])


def test_the_loss_is_the_weighted_evidence_bound():
    """Reconstruction by scipy, KL divergence by torch.distributions, at the same sample."""
    model, batch = trained(kl_weight=0.7, outlier_rate=0.01), Batch.of(COUNTS, CODES)
    with torch.no_grad():
        mean, log_variance = model.encode(batch)
        posterior = torch.distributions.Normal(mean[:, :-1], (log_variance / 2).exp())
        prior = torch.distributions.Normal(0.0, 1.0)
        divergence = torch.distributions.kl_divergence(posterior, prior).sum(1)
        torch.manual_seed(3)
        loss = model.loss(batch)
        torch.manual_seed(3)
        latent = sample_latent(mean, log_variance)
        log_mean, log_dispersion = decoded(model, latent, batch.labels)
    mu, r = log_mean.double().exp().numpy(), log_dispersion.double().exp().numpy()
    counts = COUNTS.toarray()
    outlier = np.where(counts >= 5, 0.01 * 5 / (counts * (counts + 1)).clip(1), 0)
    log_likelihood = np.log(nbinom.pmf(counts, r, r / (r + mu)) + outlier).sum(1)
    np.testing.assert_allclose(loss, (0.7 * divergence.numpy() - log_likelihood).mean(), rtol=1e-4)


def test_gradients_reach_every_weight_and_are_those_of_dense_arithmetic():
    model, batch = trained(), Batch.of(COUNTS, CODES)
    mean, log_variance = model.encode(batch)
    (mean.sum() + log_variance.square().sum()).backward()
    sparse = model.gene_weights.grad.clone()
    dense = torch.from_numpy(COUNTS.toarray())
    library = model.library_mean.exp()
    scaled = torch.log1p(dense * (library / dense.sum(1, keepdim=True)))
    inputs = scaled @ model.gene_weights + model.gene_offset
    mean, log_variance = model.encoder(inputs).chunk(2, dim=1)
    mean = mean + inputs @ model.direct.T
    value = mean.sum() + log_variance.clamp(-10, 4).square().sum()
    expected = torch.autograd.grad(value, model.gene_weights)[0]
    torch.testing.assert_close(sparse, expected, rtol=1e-4, atol=1e-4)
    model.zero_grad()
    model.loss(batch).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, grad in gradients.items() if grad is None or not grad.any()] == []


def large_example():
    """So many cells and genes that torch splits the work among its threads."""
    cells, genes = 300, 3000
    counts = sp.random_array((cells, genes), density=0.1, format="csr", rng=0, dtype=np.float32)
    counts.data[:] = np.random.default_rng(0).poisson(3, counts.nnz) + 1
    torch.manual_seed(0)
    return Autoencoder(genes, [], AutoencoderConfig()), unlabelled(sp.csr_matrix(counts))


def test_encoding_and_its_gradient_are_the_same_bytes_for_any_number_of_threads(threads):
    model, batch = large_example()
    model.train()
    results = []
    for number in (1, 2, 3):
        threads(number)
        torch.manual_seed(1)
        mean, log_variance = model.encode(batch)
        (gradient,) = torch.autograd.grad((mean.sin() * 7).sum(), model.gene_weights)
        results.append([part.detach() for part in (mean, log_variance, gradient)])
    for others in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], others, strict=True))


def test_a_gene_that_no_cell_has_gets_no_gradient():
    without = COUNTS.toarray()
    without[:, [0, 7, 11]] = 0
    model = trained()
    mean, _ = model.encode(unlabelled(sp.csr_matrix(without)))
    (gradient,) = torch.autograd.grad(mean[:, :-1].square().sum(), model.gene_weights)
    assert (gradient[[0, 7, 11]] == 0).all()
    assert (gradient[[1, 2, 6, 10]] != 0).all()


def test_indices_of_either_width_give_the_same_bytes():
    """Those of a matrix with more than two billion counts have 64 bits."""
    wide = COUNTS.copy()
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    model = trained()
    for one, other in zip(*(model.encode(unlabelled(m)) for m in (COUNTS, wide)), strict=True):
        assert torch.equal(one, other)


def test_cells_that_belong_to_a_category_start_from_its_expression_proportions():
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(20 * RATES[CODES[:, 0]]))
    types = Autoencoder(12, [3], AutoencoderConfig(latent=3)).start_from(counts, CODES[:, :1])
    types.membership.data = 100 * torch.eye(3)
    latent, unspecified = torch.eye(3, 4), torch.full((3, 1), MISSING)
    log_mean, log_dispersion = decoded(types, latent, unspecified)
    real = np.stack([counts[CODES[:, 0] == category].sum(axis=0).A1 for category in range(3)])
    start = log_mean.softmax(1).detach()
    np.testing.assert_allclose(start, real / real.sum(axis=1, keepdims=True), rtol=0.2)
    assert torch.isfinite(log_dispersion).all()


def test_a_given_category_counts_by_its_weight():
    """As much as a score of the latent point; an unspecified label not at all."""
    model, point = autoencoder(), torch.zeros(1, 4)
    model.given_weight.data = torch.tensor([2.0, 0.0])
    given = model.memberships(point, torch.tensor([[1, 0]]))
    scores = torch.tensor([[0.0, 2.0, 0.0]])
    torch.testing.assert_close(given[:, :3], scores.softmax(1))
    for labels in ([[1, MISSING]], [[1, 1]]):
        assert torch.equal(model.memberships(point, torch.tensor(labels)), given)
    unspecified = model.memberships(point, torch.full((1, 2), MISSING))
    torch.testing.assert_close(unspecified, torch.tensor([[1 / 3] * 3 + [1 / 2] * 2]))


def test_latent_points_start_at_principal_components():
    mean, _ = autoencoder().encode(Batch.of(COUNTS, CODES))
    components = first_inputs(autoencoder(), COUNTS)[:, :4]
    for ours, expected in zip(mean[:, :4].T.detach().numpy(), components.T, strict=True):
        assert abs(np.corrcoef(ours, expected)[0, 1]) > 0.9


def test_cells_between_two_categories_have_a_profile_between_theirs():
    model = autoencoder()
    model.membership.data[:3, :3] = 100 * torch.eye(3)
    points = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.5, 0.5, 0]])
    latent, unspecified = F.pad(points, (0, 2)), torch.full((3, 2), MISSING)
    one, other, between = model.logits(latent, unspecified) - model.output.bias
    torch.testing.assert_close(between, (one + other) / 2, rtol=0, atol=1e-3)


def first_inputs(model, counts):
    """What the encoder network is given for some cells."""
    seen = []

    def record(module, inputs):
        seen.append(inputs[0])

    with torch.no_grad():
        handle = model.encoder.register_forward_pre_hook(record)
        model.encode(unlabelled(counts))
        handle.remove()
    return seen[0].numpy()


def test_the_first_inputs_are_the_principal_components_of_the_training_cells():
    """Those of scikit-learn on the dense matrix up to signs, centred, of unit variance."""
    counts = COUNTS.toarray().astype(float)
    library = counts.sum(axis=1, keepdims=True)
    scaled = np.log1p(counts / library * np.exp(np.log(library).mean()))
    components = PCA(4, svd_solver="full", whiten=True).fit_transform(scaled)
    ours = first_inputs(autoencoder(), COUNTS)[:, :4]
    np.testing.assert_allclose(ours.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(ours.std(0, ddof=1), 1, rtol=1e-4)
    np.testing.assert_allclose(np.abs(ours), np.abs(components), atol=1e-3)
    np.testing.assert_allclose(np.abs(ours.T @ components) / 39, np.eye(4), atol=1e-3)


def two_types(second):
    """Counts of cells of two types that differ clearly; where ``second``, cells of the other."""
    mean = np.where(second[:, None], [1.0, 9, 1, 1], [9.0, 1, 1, 1])
    return sp.csr_matrix(np.random.default_rng(0).poisson(mean).astype(np.float32) + 1)


CELL = np.arange(200)
ORDERS = {"sorted": CELL >= 100} | {f"every {k}th": CELL % k == k - 1 for k in (2, 4, 5, 10, 20)}
ORDERS |= {f"every {k}th from the first": CELL % k == 0 for k in (2, 4, 5, 10, 20)}


@pytest.mark.parametrize("name", ORDERS)
def test_the_cells_for_the_components_are_a_random_sample(name):
    """Of 200 cells, 40 are used; every fifth would miss a type, or all of the others."""
    second = ORDERS[name]
    config = AutoencoderConfig(latent=1, width=8, component_cells=40)
    model = Autoencoder(4, [], config).start_from(*without_labels(two_types(second)))
    first = first_inputs(model, two_types(second))[:, 0]
    sd = max(first[~second].std(), first[second].std())
    assert abs(first[~second].mean() - first[second].mean()) > 3 * sd


def test_the_sample_of_cells_is_the_same_each_time_and_leaves_numpys_seed_alone():
    config = AutoencoderConfig(latent=1, width=8, component_cells=40)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        model = Autoencoder(4, [], config).start_from(*without_labels(two_types(CELL >= 100)))
        weights.append(model.gene_weights.detach().clone())
    assert torch.equal(*weights)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize("shape", [(2, 2), (2, 9), (9, 2), (9, 1), (1, 9), (40, 3)], ids=str)
def test_few_cells_or_genes(shape):
    counts = np.random.default_rng(0).poisson(3, shape).astype(np.float32) + 1
    batch = unlabelled(sp.csr_matrix(counts))
    config = AutoencoderConfig(latent=4, width=8)
    model = Autoencoder(shape[1], [], config).start_from(*without_labels(sp.csr_matrix(counts)))
    loss = model.loss(batch)
    loss.backward()
    assert torch.isfinite(loss)
    weights = [parameter for parameter in model.parameters() if parameter.numel()]
    assert all(torch.isfinite(parameter.grad).all() for parameter in weights)


def test_cells_that_are_all_equal():
    counts = sp.csr_matrix(np.full((8, 12), 2.0, np.float32))
    model = Autoencoder(12, [], AutoencoderConfig(latent=2, width=8))
    model.start_from(*without_labels(counts))
    assert torch.isfinite(model.loss(unlabelled(counts)))


def test_latent_points_are_samples_of_the_posterior_and_the_library_size_is_known():
    torch.manual_seed(0)
    mean = torch.tensor([[1.0, -2.0, 7.0]]).expand(100_000, 3)
    log_variance = torch.tensor([[0.0, -3.0]]).expand(100_000, 2)
    samples = sample_latent(mean, log_variance)
    assert (samples[:, -1] == 7).all()
    for i in range(2):
        posterior = torch.distributions.Normal(mean[0, i], (log_variance[0, i] / 2).exp())
        error = abs(samples[:, i].mean() - posterior.mean)
        assert error < 5 * posterior.stddev / np.sqrt(100_000)
        assert abs(samples[:, i].std() / posterior.stddev - 1) < 5 / np.sqrt(200_000)


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_labels_are_dropped_all_at_once_and_one_by_one(labels):
    torch.manual_seed(0)
    share, count = 0.2, 100_000
    dropped = drop_labels(torch.ones(count, labels, dtype=torch.long), share)
    assert set(dropped.unique().tolist()) == {MISSING, 1}
    alone = share * (labels > 1)
    every = share + (1 - share) * alone**labels
    each = share + (1 - share) * alone
    missing = dropped == MISSING
    for seen, expected in [(missing.all(1), every), (missing[:, 0], each)]:
        error = abs(seen.double().mean() - expected)
        assert error < 5 * np.sqrt(expected * (1 - expected) / count)


def test_a_share_of_0_drops_no_label_and_a_share_of_1_drops_all():
    codes = torch.from_numpy(CODES)
    assert torch.equal(drop_labels(codes, 0.0), codes)
    assert (drop_labels(codes, 1.0) == MISSING).all()


def test_the_optimizer_has_every_parameter_once():
    model = autoencoder()
    groups = model.parameter_groups(learning_rate=1e-3)
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(map(id, model.parameters()))


def test_the_weight_prior_adds_the_gradient_of_a_heavy_tailed_log_density():
    weights = torch.randn(7, 5, dtype=torch.float64).requires_grad_()
    weights.data[3] = 0
    prior = 5 / 2 * torch.log1p(weights.square().sum(dim=1) / (5 * 0.3**2)).sum()
    expected = torch.autograd.grad(weights.sin().sum() + 0.1 * prior, weights)[0]
    same = _WeightPrior.apply(weights, 0.3, 0.1)
    assert torch.equal(same, weights)
    torch.testing.assert_close(torch.autograd.grad(same.sin().sum(), weights)[0], expected)


@pytest.mark.parametrize(
    ("name", "sd"), [("gene_weights", 0.003), ("output.weight", 0.01), ("linear", 0.03)]
)
def test_the_weight_prior_is_divided_by_the_number_of_training_cells(name, sd):
    """An epoch adds it once, for any number of cells."""
    gradients = []
    for times in (1, 2, None):
        model = trained(dropout=0.0).train()
        repeated = sp.vstack([COUNTS] * (times or 1)).tocsr()
        model.cells = (
            autoencoder().start_from(repeated, np.tile(CODES, (times, 1))).cells
            if times
            else np.inf
        )
        torch.manual_seed(0)
        model.loss(Batch.of(COUNTS, CODES)).backward()
        gradients.append(model.get_parameter(name).grad)
    weights = model.get_parameter(name).detach()
    prior = weights / (sd**2 + weights.square().mean(dim=1, keepdim=True))
    torch.testing.assert_close(gradients[0] - gradients[2], prior / 40, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(gradients[1] - gradients[2], prior / 80, rtol=1e-3, atol=1e-4)


def test_the_prior_on_the_slopes_is_part_of_the_loss_in_training():
    """Each cell has the same share of it."""
    losses = []
    for cells in (40, np.inf):
        model = trained(dropout=0.0).train()
        model.cells = cells
        torch.manual_seed(0)
        losses.append(model.loss(Batch.of(COUNTS, CODES)).detach())
    expected = model.dispersion_slope.detach().square().sum() / (2 * 0.5**2) / 40
    torch.testing.assert_close(losses[0] - losses[1], expected, rtol=1e-3, atol=1e-3)
