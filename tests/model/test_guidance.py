import math

import pytest
import torch

from scld.config import DenoiserConfig
from scld.model.denoiser import Denoiser
from scld.model.guidance import pre_guided
from scld.model.sampler import schedule, solve
from scld.schema import MISSING

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
SIGMA = torch.linspace(0.1, 5, 6)
LABELS = torch.tensor([[0, 1], [1, 0], [1, 2], [0, 0], [1, 1], [0, 2]])
UNSPECIFIED = torch.full_like(LABELS, MISSING)
FIRST_ONLY = torch.stack([LABELS[:, 0], UNSPECIFIED[:, 1]], dim=1)


class Counting:
    """A denoiser whose weights all matter, that counts its evaluations."""

    def __init__(self, sizes=(2, 3)):
        torch.manual_seed(0)
        self.model = Denoiser(3, sizes, DenoiserConfig(width=16)).eval().requires_grad_(False)
        self.calls = 0
        for parameter in self.model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))

    def __call__(self, *args):
        self.calls += 1
        return self.model(*args)


@pytest.mark.parametrize(
    ("weights", "labels", "calls"),
    [((1.0, 1.0), LABELS, 1), ((0.0, 0.0), UNSPECIFIED, 2), ((1.0, 0.0), FIRST_ONLY, 2)],
    ids=["conditional", "unconditional", "first label only"],
)
def test_at_weights_1_and_0_it_is_the_denoiser_given_the_labels_of_weight_1(weights, labels, calls):
    denoiser = Counting()
    guided = pre_guided(denoiser, LABELS, weights)(X, SIGMA)
    assert torch.equal(guided, denoiser.model(X, SIGMA, labels))
    assert denoiser.calls == calls


def test_without_labels_it_is_the_denoiser():
    denoiser, none = Counting(sizes=()), torch.zeros(6, 0, dtype=torch.long)
    assert torch.equal(pre_guided(denoiser, none, ())(X, SIGMA), denoiser.model(X, SIGMA, none))


@pytest.mark.parametrize("weight", [0.5, 1.5, 4.0])
def test_equal_weights_are_classifier_free_guidance(weight):
    denoiser = Counting()
    without, given = (denoiser.model(X, SIGMA, labels) for labels in (UNSPECIFIED, LABELS))
    guided = pre_guided(denoiser, LABELS, (weight, weight))(X, SIGMA)
    torch.testing.assert_close(guided, without + weight * (given - without))
    assert denoiser.calls == 2


@pytest.mark.parametrize("weights", [(2.0, 0.5), (0.0, 3.0), (1.0, 2.0), (3.0, 1.0)])
def test_each_weight_multiplies_what_its_label_adds_to_those_before(weights):
    denoiser = Counting()
    none, first, both = (
        denoiser.model(X, SIGMA, labels) for labels in (UNSPECIFIED, FIRST_ONLY, LABELS)
    )
    expected = none + weights[0] * (first - none) + weights[1] * (both - first)
    torch.testing.assert_close(pre_guided(denoiser, LABELS, weights)(X, SIGMA), expected)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_the_gradient_is_that_of_the_sharpened_density(weight):
    """Two normal classes: that of log p(x) (p(x | class) / p(x))^w, by autograd."""
    centres = torch.tensor([-1.0, 2.0], dtype=torch.float64)

    def log_density(x, sigma, label):
        parts = torch.distributions.Normal(centres, (1 + sigma[0] ** 2).sqrt()).log_prob(x)
        both = parts.logsumexp(1, keepdim=True) - math.log(2)
        return both if label == MISSING else parts[:, [label]]

    def gradient(x, function):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(function(x).sum(), x)[0]

    def denoiser(x, sigma, labels):  # Tweedie's formula
        label = int(labels[0, 0])
        return x + sigma[:, None] ** 2 * gradient(x, lambda at: log_density(at, sigma, label))

    def sharpened(at):
        without, given = (log_density(at, sigma, label) for label in (MISSING, 1))
        return (1 - weight) * without + weight * given

    x = torch.linspace(-4, 4, 9, dtype=torch.float64)[:, None]
    sigma = torch.full((9,), 0.8, dtype=torch.float64)
    denoised = pre_guided(denoiser, torch.ones(9, 1, dtype=torch.long), [weight])(x, sigma)
    torch.testing.assert_close((denoised - x) / sigma[:, None] ** 2, gradient(x, sharpened))


@pytest.mark.parametrize("weights", [(2.0, 2.0), (2.0, 0.5), (0.0, 3.0)])
def test_weights_hold_within_the_interval_and_are_one_outside(weights):
    """By cell, where their noise levels differ; the lower bound is outside, the upper inside."""
    denoiser, interval = Counting(), (float(SIGMA[1]), float(SIGMA[4]))
    inside = torch.tensor([False, False, True, True, True, False])
    everywhere = pre_guided(denoiser, LABELS, weights)(X, SIGMA)
    expected = torch.where(inside[:, None], everywhere, denoiser.model(X, SIGMA, LABELS))
    within = pre_guided(denoiser, LABELS, weights, interval)(X, SIGMA)
    torch.testing.assert_close(within, expected)


@pytest.mark.parametrize(
    ("interval", "calls"),
    [((0.0, math.inf), 2), ((0.0, 1.0), 2), ((1.0, 2.0), 1), ((0.5, 0.5), 1), ((0.1, 0.49), 1)],
    ids=str,
)
def test_outside_the_interval_the_network_is_evaluated_once(interval, calls):
    denoiser, sigma = Counting(), torch.full((6,), 0.5)
    guided = pre_guided(denoiser, LABELS, (3.0, 3.0), interval)(X, sigma)
    assert denoiser.calls == calls
    weights = (3.0, 3.0) if calls == 2 else (1.0, 1.0)
    assert torch.equal(guided, pre_guided(Counting(), LABELS, weights)(X, sigma))


def test_the_labels_are_not_changed():
    labels = LABELS.clone()
    pre_guided(Counting(), labels, (2.0, 3.0))(X, SIGMA)
    assert torch.equal(labels, LABELS)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.0, 0.0), (3.0, 3.0), (5.0, 0.5), (0.0, 2.0)])
@pytest.mark.parametrize("unguided", [1, 2])
@pytest.mark.parametrize("interval", [(0.0, math.inf), (1.5, 4.5)], ids=str)
def test_the_last_dimensions_keep_weight_1_at_every_guidance_weight(weights, unguided, interval):
    denoiser = Counting()
    conditional = denoiser.model(X, SIGMA, LABELS)
    everywhere = pre_guided(denoiser, LABELS, weights, interval)(X, SIGMA)
    partly = pre_guided(denoiser, LABELS, weights, interval, unguided)(X, SIGMA)
    assert torch.equal(partly[:, -unguided:], conditional[:, -unguided:])
    assert torch.equal(partly[:, :-unguided], everywhere[:, :-unguided])


@pytest.mark.parametrize(
    ("weights", "calls"), [((1.0, 1.0), 1), ((3.0, 3.0), 2), ((0.0, 0.0), 2), ((3.0, 2.0), 3)]
)
@pytest.mark.parametrize("unguided", [0, 1])
def test_the_network_is_evaluated_once_for_each_set_of_labels(weights, calls, unguided):
    denoiser = Counting()
    pre_guided(denoiser, LABELS, weights, unguided=unguided)(X, SIGMA)
    assert denoiser.calls == calls


def test_generated_depth_does_not_depend_on_the_guidance_weight():
    """Two normal classes that differ in both dimensions; the last one stands for depth."""
    centres = torch.tensor([[-2.0, 1.0], [2.0, 3.0]])

    def denoiser(x, sigma, labels):  # exact for variance 1, one class; else both at equal odds
        variance, noise = 1 + sigma[:, None] ** 2, sigma[:, None] ** 2
        distance = (x[:, None] - centres).square().sum(2)
        odds = torch.softmax(-distance / (2 * variance), dim=1)
        known = torch.nn.functional.one_hot(labels[:, 0].clamp_min(0), 2).float()
        mean = torch.where(labels == MISSING, odds, known) @ centres
        return (x + noise * mean) / variance

    torch.manual_seed(0)
    noise, labels, sigmas = 20 * torch.randn(500, 2), torch.ones(500, 1).long(), schedule(40, 20.0)
    plain, strong = (
        solve(pre_guided(denoiser, labels, [weight], unguided=1), noise, sigmas)
        for weight in (1.0, 4.0)
    )
    torch.testing.assert_close(strong[:, 1], plain[:, 1], rtol=1e-5, atol=1e-5)
    assert strong[:, 0].mean() > plain[:, 0].mean() + 0.3
