import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import nbinom
from sklearn.decomposition import PCA
from small import make_cells

from scld.autoencoder import Autoencoder, Batch, _HeldBack, draw_latent, drop_labels
from scld.config import AutoencoderConfig

COUNTS = sp.csr_matrix(make_cells(40, 12).X)
CODES = np.stack([np.arange(40) % 3, np.arange(40) % 2], axis=1)


def autoencoder(**settings):
    torch.manual_seed(0)
    return Autoencoder(12, [3, 2], AutoencoderConfig(latent=4, width=16, **settings)).start_from(COUNTS).eval()


def trained(**settings):
    """All weights moved away from where they start."""
    result = autoencoder(**settings)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return result


def decoded(model, latent, labels):
    """Log-means and log-dispersions."""
    return model.laws(model.scores(latent, labels), latent[:, -1:])


def test_a_batch_is_its_cells():
    batch = Batch.of(COUNTS[5:9], CODES[5:9])
    stored = sp.csr_matrix((batch.counts, batch.genes, batch.starts), shape=(4, 12))
    np.testing.assert_array_equal(stored.toarray(), COUNTS[5:9].toarray())
    np.testing.assert_allclose(batch.log_library.exp(), COUNTS[5:9].toarray().sum(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(batch.each(torch.arange(4)), stored.tocoo().row)
    np.testing.assert_array_equal(batch.labels, CODES[5:9])


def test_genes_of_a_batch_ascend_however_they_come():
    mixed = COUNTS.copy()
    for start, stop in zip(mixed.indptr[:-1], mixed.indptr[1:], strict=True):
        mixed.indices[start:stop], mixed.data[start:stop] = mixed.indices[start:stop][::-1].copy(), mixed.data[start:stop][::-1].copy()
    mixed.has_sorted_indices = False
    one, other = Batch.of(COUNTS, CODES), Batch.of(mixed, CODES)
    assert torch.equal(one.genes, other.genes)
    assert torch.equal(one.counts, other.counts)


def test_the_library_size_is_the_last_coordinate_of_a_latent_point():
    mean, log_variance = trained().encode(Batch.of(COUNTS, CODES))
    assert (mean.shape, log_variance.shape) == ((40, 5), (40, 4))
    np.testing.assert_allclose(mean[:, -1].detach(), np.log(COUNTS.toarray().sum(axis=1)), rtol=1e-6)


def test_decoded_means_add_up_to_the_library_size():
    latent = torch.randn(6, 5) + 3
    log_mean, log_dispersion = decoded(trained(), latent, torch.from_numpy(CODES[:6]))
    assert (log_mean.shape, log_dispersion.shape[-1]) == ((6, 12), 12)
    torch.testing.assert_close(log_mean.exp().sum(1), latent[:, -1].exp())


def test_each_label_counts_and_can_be_left_open():
    codes = torch.tensor([[i, j] for i in (-1, 0, 1, 2) for j in (-1, 0, 1)])
    assert len(decoded(trained(), torch.ones(12, 5), codes)[0].unique(dim=0)) == 12


def test_the_encoder_sees_shares_not_depth():
    """A cell sequenced ten times as deep has the same latent point but for its library size."""
    model = trained()
    (shallow, _), (deep, _) = (model.encode(Batch.of(sp.csr_matrix(counts), CODES)) for counts in (COUNTS, 10 * COUNTS))
    torch.testing.assert_close(shallow[:, :-1], deep[:, :-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shallow[:, -1] + np.log(10), deep[:, -1])


def test_the_loss_is_the_weighted_evidence_bound():
    """Reconstruction by scipy, Kullback-Leibler divergence by torch.distributions, at the same draw."""
    model, batch = trained(kl_weight=0.7, spike_rate=0.01), Batch.of(COUNTS, CODES)
    with torch.no_grad():
        mean, log_variance = model.encode(batch)
        posterior = torch.distributions.Normal(mean[:, :-1], (log_variance / 2).exp())
        divergence = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1)
        torch.manual_seed(3)
        loss = model.loss(batch)
        torch.manual_seed(3)
        log_mean, log_dispersion = decoded(model, draw_latent(mean, log_variance), batch.labels)
    mu, r = log_mean.double().exp().numpy(), log_dispersion.detach().double().exp().numpy()
    counts = COUNTS.toarray()
    spike = np.where(counts >= 5, 0.01 * 5 / (counts * (counts + 1)).clip(1), 0)
    expected = 0.7 * divergence.numpy() - np.log(nbinom.pmf(counts, r, r / (r + mu)) + spike).sum(1)
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-4)


def test_gradients_reach_every_weight_and_are_those_of_dense_arithmetic():
    model, batch = trained(), Batch.of(COUNTS, CODES)
    mean, log_variance = model.encode(batch)
    (mean.sum() + log_variance.square().sum()).backward()
    sparse = model.gene_weights.grad.clone()
    dense = torch.from_numpy(COUNTS.toarray())
    scaled = torch.log1p(dense * (model.library_mean.exp() / dense.sum(1, keepdim=True)))
    mean, log_variance = model.encoder(scaled @ model.gene_weights + model.gene_offset).chunk(2, dim=1)
    expected = torch.autograd.grad(mean.sum() + log_variance.clamp(-10, 4).square().sum(), model.gene_weights)[0]
    torch.testing.assert_close(sparse, expected, rtol=1e-4, atol=1e-4)
    model.zero_grad()
    model.loss(batch).backward()
    unmoved = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum()]
    assert unmoved == []


def test_it_starts_from_the_whole_of_the_training_cells():
    shares = COUNTS.toarray().sum(axis=0) / COUNTS.sum()
    latent = torch.cat([torch.zeros(1, 4), torch.zeros(1, 1)], dim=1)
    log_mean, log_dispersion = decoded(autoencoder(), latent, torch.tensor([[-1, -1]]))
    np.testing.assert_allclose(log_mean.exp()[0].detach(), shares, rtol=0.3, atol=1e-5)
    assert torch.isfinite(log_dispersion).all()


def first_inputs(model, counts):
    """What the network is given of some cells."""
    batch = Batch.of(counts, np.zeros((counts.shape[0], 0), np.int64))
    seen = []
    with torch.no_grad():
        handle = model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        model.encode(batch)
        handle.remove()
    return seen[0].numpy()


def test_the_first_inputs_are_the_principal_components_of_the_training_cells():
    """Those of scikit-learn on the dense matrix, up to their signs, centred and of unit variance."""
    counts = COUNTS.toarray().astype(float)
    library = counts.sum(axis=1, keepdims=True)
    components = PCA(4, svd_solver="full", whiten=True).fit_transform(np.log1p(counts / library * np.exp(np.log(library).mean())))
    ours = first_inputs(autoencoder(), COUNTS)[:, :4]
    np.testing.assert_allclose(ours.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(ours.std(0, ddof=1), 1, rtol=1e-4)
    np.testing.assert_allclose(np.abs(ours), np.abs(components), atol=1e-3)
    np.testing.assert_allclose(np.abs(ours.T @ components) / 39, np.eye(4), atol=1e-3)


def test_cells_that_come_sorted_all_count_for_the_components():
    """Of many cells some are taken, evenly: a type that comes last is seen."""
    random = np.random.default_rng(0)
    counts = sp.csr_matrix(random.poisson(np.repeat([[9.0, 1, 1, 1], [1, 9, 1, 1]], 50, axis=0)).astype(np.float32) + 1)
    model = Autoencoder(4, [], AutoencoderConfig(latent=1, width=8, component_cells=20)).start_from(counts)
    first = first_inputs(model, counts)[:, 0]
    assert abs(first[:50].mean() - first[50:].mean()) > 3 * max(first[:50].std(), first[50:].std())


@pytest.mark.parametrize("shape", [(2, 2), (2, 9), (9, 2), (9, 1), (1, 9), (40, 3)], ids=str)
def test_few_cells_or_genes_are_no_trouble(shape):
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(3, shape).astype(np.float32) + 1)
    model, batch = Autoencoder(shape[1], [], AutoencoderConfig(latent=4, width=8)).start_from(counts), Batch.of(counts, np.zeros((shape[0], 0), np.int64))
    loss = model.loss(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_cells_all_of_one_size_are_no_trouble():
    counts = sp.csr_matrix(np.full((8, 12), 2.0, np.float32))
    model = Autoencoder(12, [], AutoencoderConfig(latent=2, width=8)).start_from(counts)
    assert torch.isfinite(model.loss(Batch.of(counts, np.zeros((8, 0), np.int64))))


def test_latents_are_drawn_from_the_posterior_and_the_library_size_is_certain():
    torch.manual_seed(0)
    mean, log_variance = torch.tensor([[1.0, -2.0, 7.0]]).expand(100_000, 3), torch.tensor([[0.0, -3.0]]).expand(100_000, 2)
    drawn = draw_latent(mean, log_variance)
    assert (drawn[:, -1] == 7).all()
    for i in range(2):
        law = torch.distributions.Normal(mean[0, i], (log_variance[0, i] / 2).exp())
        assert abs(drawn[:, i].mean() - law.mean) < 5 * law.stddev / np.sqrt(100_000)
        assert abs(drawn[:, i].std() / law.stddev - 1) < 5 / np.sqrt(200_000)


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_labels_are_left_open_all_at_once_and_one_by_one(labels):
    torch.manual_seed(0)
    codes, share, count = torch.ones(100_000, labels, dtype=torch.long), 0.2, 100_000
    dropped = drop_labels(codes, share)
    assert set(dropped.unique().tolist()) == {-1, 1}
    alone = share * (labels > 1)
    every = share + (1 - share) * alone**labels
    each = share + (1 - share) * alone
    for seen, expected in [((dropped == -1).all(1), every), (dropped[:, 0] == -1, each)]:
        assert abs(seen.double().mean() - expected) < 5 * np.sqrt(expected * (1 - expected) / count)


def test_no_share_of_labels_is_left_open_where_none_is_asked_for():
    codes = torch.from_numpy(CODES)
    assert torch.equal(drop_labels(codes, 0.0), codes)
    assert (drop_labels(codes, 1.0) == -1).all()


def test_the_optimizer_has_every_parameter_once():
    model = autoencoder()
    listed = [id(parameter) for group in model.parameter_groups(learning_rate=1e-3) for parameter in group["params"]]
    assert sorted(listed) == sorted(map(id, model.parameters()))


def test_gradients_of_weights_held_back_have_those_of_a_heavy_tailed_prior():
    weights = torch.randn(7, 5, dtype=torch.float64).requires_grad_()
    weights.data[3] = 0
    prior = 5 / 2 * torch.log1p(weights.square().sum(dim=1) / (5 * 0.3**2)).sum()
    expected = torch.autograd.grad(weights.sin().sum() + 0.1 * prior, weights)[0]
    held = _HeldBack.apply(weights, 0.3, 0.1)
    assert torch.equal(held, weights)
    torch.testing.assert_close(torch.autograd.grad(held.sin().sum(), weights)[0], expected)


@pytest.mark.parametrize(("name", "sd"), [("gene_weights", 0.003), ("log_share.weight", 0.03)])
def test_the_prior_on_the_weights_is_shared_out_over_the_training_cells(name, sd):
    """All cells together pay it once, however many they are."""
    gradients = []
    for times in (1, 2, None):
        model = trained(dropout=0.0).train()
        model.cells = np.inf if times is None else autoencoder().start_from(sp.vstack([COUNTS] * times).tocsr()).cells
        torch.manual_seed(0)
        model.loss(Batch.of(COUNTS, CODES)).backward()
        gradients.append(model.get_parameter(name).grad)
    weights = model.get_parameter(name).detach()
    alone = weights / (sd**2 + weights.square().mean(dim=1, keepdim=True))
    torch.testing.assert_close(gradients[0] - gradients[2], alone / 40, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(gradients[1] - gradients[2], alone / 80, rtol=1e-3, atol=1e-4)


def test_the_prior_on_the_slopes_is_part_of_the_loss_in_training():
    """Every cell pays the same."""
    losses = []
    for cells in (40, np.inf):
        model = trained(dropout=0.0).train()
        model.cells = cells
        torch.manual_seed(0)
        losses.append(model.loss(Batch.of(COUNTS, CODES)).detach())
    expected = model.dispersion_slope.detach().square().sum() / (2 * 0.5**2) / 40
    torch.testing.assert_close(losses[0] - losses[1], expected, rtol=1e-3, atol=1e-3)
