import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn
from toy import make_cells

from scld.config import AutoencoderConfig
from scld.model.autoencoder import Autoencoder, Batch
from scld.model.latents import Latents
from scld.schema import MISSING

COUNTS = sp.csr_matrix(make_cells(1500, 12).X)  # more than are encoded at once
CODES = np.stack([np.arange(1500) % 3, np.arange(1500) % 2], axis=1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    config = AutoencoderConfig(latent=4, width=16)
    model = Autoencoder(12, [3, 2], config).start_from(COUNTS, CODES)
    model.eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def latents(autoencoder):
    return Latents.of(autoencoder, COUNTS, CODES, CPU)


class Recorder(nn.Module):
    """In place of a denoiser: keeps what it is given."""

    def noise_levels(self, quantiles):
        self.quantiles = quantiles
        return 1 + quantiles

    def loss(self, clean, sigma, noise, labels):
        self.clean, self.sigma, self.noise, self.labels = clean, sigma, noise, labels
        return clean.square().mean(1)


def test_all_cells_are_encoded_in_order(autoencoder, latents):
    mean, log_variance = autoencoder.encode(Batch.of(COUNTS, CODES))
    torch.testing.assert_close(latents.mean, mean)
    torch.testing.assert_close(latents.log_variance, log_variance)
    np.testing.assert_array_equal(latents.labels, CODES)


def test_samples_have_mean_0_and_sd_1_in_each_dimension(latents):
    torch.manual_seed(0)
    repeats = 100
    samples = torch.cat([latents.sample(torch.arange(1500)) for _ in range(repeats)])
    assert (latents.mean[:, :-1].var(0) > 1e-3).all()  # both parts of the variance matter here
    assert float(samples.mean(0).abs().max()) < 5 / np.sqrt(1500 * repeats)
    assert float((samples.std(0) - 1).abs().max()) < 5 / np.sqrt(2 * 1500 * repeats)


def test_points_are_the_means_of_the_samples(latents):
    torch.manual_seed(0)
    points, repeats, cells = latents.points(), 2000, torch.arange(20)
    mean = sum(latents.sample(cells) for _ in range(repeats)) / repeats
    sd = (latents.log_variance[:20] / 2).exp() / latents.scale[:-1]
    assert points.shape == (1500, 5)
    assert (np.abs(points[:20, :-1] - mean[:, :-1].numpy()) < 5 * sd.numpy() / repeats**0.5).all()
    np.testing.assert_allclose(points[:20, -1], mean[:, -1], rtol=1e-3, atol=1e-4)


def test_a_dimension_without_variance_stays_finite(autoencoder):
    same = sp.csr_matrix(np.full((30, 12), 2.0, np.float32))
    latents = Latents.of(autoencoder, same, CODES[:30], CPU)
    assert (latents.sample(torch.arange(30))[:, -1].abs() < 0.1).all()


def test_the_loss_is_of_these_cells_at_evenly_spread_noise_levels(latents):
    torch.manual_seed(0)
    denoiser, picked = Recorder().eval(), torch.tensor([3, 1400, 7, 7, 900, 0, 1, 2])
    assert latents.loss(denoiser, picked, label_dropout=0.9).shape == (8,)
    np.testing.assert_array_equal(denoiser.labels, CODES[picked])  # no dropout in evaluation
    library = latents.points()[picked, -1]
    np.testing.assert_allclose(denoiser.clean[:, -1], library, rtol=1e-5)
    assert sorted((denoiser.quantiles * 8).long().tolist()) == list(range(8))  # one in each eighth
    torch.testing.assert_close(denoiser.sigma, 1 + denoiser.quantiles)


def test_labels_are_made_unspecified_in_training(latents):
    torch.manual_seed(0)
    denoiser = Recorder().train()
    latents.loss(denoiser, torch.arange(1500), label_dropout=0.5)
    unspecified, kept = denoiser.labels == MISSING, denoiser.labels == latents.labels
    assert (unspecified | kept).all()
    assert 0.5 < unspecified.double().mean() < 0.9


def test_the_noise_is_standard_normal(latents):
    torch.manual_seed(0)
    denoiser = Recorder()
    latents.loss(denoiser, torch.arange(1500), label_dropout=0.0)
    assert abs(denoiser.noise.mean()) < 5 / np.sqrt(1500 * 5)
    assert abs(denoiser.noise.std() - 1) < 5 / np.sqrt(2 * 1500 * 5)
