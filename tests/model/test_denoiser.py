"""Preconditioning of Karras et al. (arXiv:2206.00364), table 1 and appendix B.6, sigma_data = 1."""

from types import MethodType

import numpy as np
import pytest
import torch
from scipy.stats import lognorm

from scld.config import DenoiserConfig
from scld.model.denoiser import Denoiser

SIGMAS = torch.tensor([1e-3, 0.1, 1.0, 7.0, 80.0])
NONE = torch.zeros(5, 0, dtype=torch.long)


def denoiser(sizes=(), **settings):
    torch.manual_seed(0)
    return Denoiser(3, sizes, DenoiserConfig(width=16, **settings)).eval()


def trained(sizes=()):
    """With all weights changed."""
    result = denoiser(sizes)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return result


def with_network(network):
    """A denoiser around another network."""
    result = denoiser()
    result._network = MethodType(lambda self, x, log_noise, _: network(x, log_noise), result)
    return result


def coefficients():
    """c_skip, c_out, c_in and c_noise of the denoiser, each seen through a network."""
    zeros, ones = torch.zeros(5, 3), torch.ones(5, 3)
    c_skip = with_network(lambda x, log_noise: 0 * x)(ones, SIGMAS, NONE)
    c_out = with_network(lambda x, log_noise: 0 * x + 1)(zeros, SIGMAS, NONE)
    c_in = (with_network(lambda x, log_noise: x)(ones, SIGMAS, NONE) - c_skip) / c_out
    log_noise = with_network(lambda x, log_noise: log_noise.expand(5, 3))(zeros, SIGMAS, NONE)
    c_noise = log_noise / c_out
    return [value[:, 0] for value in (c_skip, c_out, c_in, c_noise)]


def test_coefficients_are_those_of_the_table():
    c_skip, c_out, c_in, c_noise = coefficients()
    torch.testing.assert_close(c_skip, 1 / (SIGMAS**2 + 1))
    torch.testing.assert_close(c_out, SIGMAS / (SIGMAS**2 + 1).sqrt())
    torch.testing.assert_close(c_in, 1 / (SIGMAS**2 + 1).sqrt(), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(c_noise, SIGMAS.log() / 4)


def test_input_and_target_of_the_network_have_unit_variance():
    """Clean latents of variance 1 and independent noise of variance sigma^2."""
    c_skip, c_out, c_in, _ = coefficients()
    ones = torch.ones(5)
    torch.testing.assert_close(c_in**2 * (1 + SIGMAS**2), ones, rtol=2e-3, atol=0.0)
    # the variance of (clean - c_skip (clean + noise)) / c_out
    target = ((1 - c_skip) ** 2 + c_skip**2 * SIGMAS**2) / c_out**2
    torch.testing.assert_close(target, ones, rtol=1e-4, atol=0.0)


def test_without_training_it_is_the_skip_connection():
    x = torch.randn(5, 3)
    torch.testing.assert_close(denoiser()(x, SIGMAS, NONE), x / (SIGMAS[:, None] ** 2 + 1))


def test_without_noise_it_changes_nothing():
    x = torch.randn(5, 3)
    torch.testing.assert_close(trained()(x, torch.full((5,), 1e-6), NONE), x, rtol=1e-4, atol=1e-4)


def test_the_loss_is_the_networks_squared_error():
    """The weight of equation 8 is 1 / c_out^2: every noise level counts alike."""
    clean, noise = torch.randn(2, 5, 3, dtype=torch.float64)
    sigma = SIGMAS.double()
    c_skip, c_out = 1 / (sigma**2 + 1), sigma / (sigma**2 + 1).sqrt()
    target = (clean - c_skip[:, None] * (clean + sigma[:, None] * noise)) / c_out[:, None]
    loss = with_network(lambda x, log_noise: 0 * x + 0.3).loss(clean, sigma, noise, NONE)
    torch.testing.assert_close(loss, (0.3 - target).square().mean(1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sigma", SIGMAS.tolist())
def test_the_untrained_loss_is_one_at_every_noise_level(sigma):
    torch.manual_seed(0)
    cells = 50_000
    (clean, noise), none = torch.randn(2, cells, 3), torch.zeros(cells, 0, dtype=torch.long)
    loss = denoiser().loss(clean, torch.full((cells,), sigma), noise, none)
    assert loss.shape == (cells,)
    assert abs(float(loss.detach().mean()) - 1) < 5 * np.sqrt(2 / (3 * cells))


def test_noise_levels_are_log_normal():
    quantiles = torch.tensor([1e-4, 0.02, 0.5, 0.9, 0.9999])
    expected = lognorm.ppf(quantiles.double(), s=1.3, scale=np.exp(-0.8))
    levels = denoiser(log_sigma_mean=-0.8, log_sigma_sd=1.3).noise_levels(quantiles)
    np.testing.assert_allclose(levels, expected, rtol=1e-5)


def test_every_label_matters_and_can_be_unspecified():
    model = trained(sizes=[2, 3])
    codes = torch.tensor([[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1, 2)])
    x, sigma = torch.ones(12, 3), torch.ones(12)
    assert len(model(x, sigma, codes).unique(dim=0)) == 12


def test_an_unspecified_label_has_the_first_embedding():
    model = trained(sizes=[2])
    x, sigma, codes = torch.ones(3, 3), torch.ones(3), torch.tensor([[-1], [0], [1]])
    before = model(x, sigma, codes)
    with torch.no_grad():
        model.labels[0].weight[0] += 1.0
    changed = (model(x, sigma, codes) - before).abs().sum(1) > 1e-6
    assert changed.tolist() == [True, False, False]


def test_cells_do_not_affect_each_other():
    model, sigmas = trained(sizes=[3]).double(), SIGMAS.double()  # float32 shows the order of sums
    x, codes = torch.randn(5, 3, dtype=torch.float64), torch.tensor([[0], [1], [2], [-1], [0]])
    rows = [slice(i, i + 1) for i in range(5)]
    one_by_one = torch.cat([model(x[row], sigmas[row], codes[row]) for row in rows])
    torch.testing.assert_close(model(x, sigmas, codes), one_by_one)
