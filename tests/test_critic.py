import numpy as np
import pytest
import torch

from scld.autoencoder import drop_labels
from scld.config import CriticConfig, TrainingConfig
from scld.critic import Critic
from scld.schema import MISSING
from scld.train import train

MEAN, SD, HALF = torch.tensor([0.9, -0.6]), 0.7, 4096
TRAINING = TrainingConfig(learning_rate=5e-3, batch=512, steps=2500, epochs=1, rounds=5, patience=5, average=0.98, clip=1.0)


def noisy_log_density(x, mean, sd, sigma):
    return torch.distributions.Normal(mean, (sd**2 + sigma[:, None] ** 2).sqrt()).log_prob(x).sum(1)


def log_ratio(x, sigma, label):
    """Real cells are N(MEAN, SD) under label 0 and N(-MEAN, SD) under label 1, half of each; generated ones N(0, 1)."""
    each = torch.stack([noisy_log_density(x, sign * MEAN, SD, sigma) for sign in (1, -1)])
    real = each.logsumexp(0) - np.log(2) if label == MISSING else each[label]
    return real - noisy_log_density(x, torch.zeros(2), 1.0, sigma)


@pytest.fixture(scope="module")
def critic():
    """Trained by cross-entropy on draws from both."""
    torch.manual_seed(0)
    labels = (torch.arange(2 * HALF) % 2)[:, None]
    made = Critic(2, [2], CriticConfig(width=64, dropout=0.0))

    def loss(module, picked):
        real, sign = picked < HALF, 1 - 2 * labels[picked]
        points = torch.where(real[:, None], sign * MEAN + SD * torch.randn(len(picked), 2), torch.randn(len(picked), 2))
        sigma = 3 * torch.rand(len(picked)) + 0.05
        return module.loss(points + sigma[:, None] * torch.randn_like(points), sigma, drop_labels(labels[picked], 0.3), real.float()).mean()

    cells = torch.randperm(2 * HALF)
    train(made, [{"params": list(made.parameters())}], loss, cells[:7000], cells[7000:], TRAINING, seed=0)
    return made


@pytest.mark.parametrize("label", [0, 1, MISSING])
@pytest.mark.parametrize("level", [0.3, 1.0, 2.0])
def test_trained_by_cross_entropy_it_is_the_log_ratio_of_the_densities(critic, level, label):
    torch.manual_seed(1)
    sigma = torch.full((2000,), level)
    centre = MEAN * torch.tensor([1, -1]).repeat(1000)[:, None] if label == MISSING else (1 - 2 * label) * MEAN
    points = torch.cat([(centre + SD * torch.randn(2000, 2))[:1000], torch.randn(1000, 2)]) + level * torch.randn(2000, 2)
    with torch.no_grad():
        found = critic(points, sigma, torch.full((2000, 1), label))
    expected = log_ratio(points, sigma, label)
    assert (found - expected).abs().mean() < 0.25  # where they go from -8 to 2
    assert np.corrcoef(found, expected)[0, 1] > 0.93


def test_it_starts_undecided():
    critic, x = Critic(3, [2, 4], CriticConfig(width=8)), torch.randn(9, 3)
    for labels in (torch.zeros(9, 2, dtype=torch.long), torch.full((9, 2), MISSING)):
        assert (critic(x, torch.linspace(0, 20, 9), labels) == 0).all()


def test_without_labels():
    assert Critic(3, [], CriticConfig(width=8))(torch.randn(5, 3), torch.ones(5), torch.zeros(5, 0, dtype=torch.long)).shape == (5,)


def test_the_loss_is_the_cross_entropy_of_each_point(critic):
    x, sigma, labels, real = torch.randn(50, 2), torch.ones(50), torch.zeros(50, 1, dtype=torch.long), (torch.arange(50) % 2).float()
    with torch.no_grad():
        chance = critic(x, sigma, labels).double().sigmoid()
        loss = critic.loss(x, sigma, labels, real)
    torch.testing.assert_close(loss.double(), -(real * chance.log() + (1 - real) * (1 - chance).log()), rtol=1e-4, atol=1e-5)
