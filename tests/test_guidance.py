import pytest
import torch

from scld.config import DenoiserConfig
from scld.denoiser import Denoiser
from scld.guidance import post_guided, pre_guided
from scld.schema import MISSING

X, SIGMA = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.linspace(0.1, 5, 6)
LABELS = torch.tensor([[0, 1], [1, 0], [1, 2], [0, 0], [1, 1], [0, 2]])
OPEN_BOTH = torch.full_like(LABELS, MISSING)
OPEN_SECOND = torch.stack([LABELS[:, 0], OPEN_BOTH[:, 1]], dim=1)


class Counting:
    """A denoiser with all its weights at work, that counts its calls."""

    def __init__(self, sizes=(2, 3)):
        torch.manual_seed(0)
        self.model, self.calls = Denoiser(3, sizes, DenoiserConfig(width=16)).eval().requires_grad_(False), 0
        for parameter in self.model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))

    def __call__(self, *args):
        self.calls += 1
        return self.model(*args)


@pytest.mark.parametrize(
    ("weights", "labels"), [((1.0, 1.0), LABELS), ((0.0, 0.0), OPEN_BOTH), ((1.0, 0.0), OPEN_SECOND)], ids=["conditional", "unconditional", "first label alone"]
)
def test_at_weights_of_one_and_zero_it_is_a_plain_denoiser_called_once(weights, labels):
    denoiser = Counting()
    assert torch.equal(pre_guided(denoiser, LABELS, weights)(X, SIGMA), denoiser.model(X, SIGMA, labels))
    assert denoiser.calls == 1


def test_without_labels_it_is_the_denoiser():
    denoiser, none = Counting(sizes=()), torch.zeros(6, 0, dtype=torch.long)
    assert torch.equal(pre_guided(denoiser, none, ())(X, SIGMA), denoiser.model(X, SIGMA, none))


@pytest.mark.parametrize("weight", [0.5, 1.5, 4.0])
def test_equal_weights_are_classifier_free_guidance(weight):
    denoiser = Counting()
    without, given = denoiser.model(X, SIGMA, OPEN_BOTH), denoiser.model(X, SIGMA, LABELS)
    torch.testing.assert_close(pre_guided(denoiser, LABELS, (weight, weight))(X, SIGMA), without + weight * (given - without))
    assert denoiser.calls == 2


@pytest.mark.parametrize("weights", [(2.0, 0.5), (0.0, 3.0), (1.0, 2.0), (3.0, 1.0)])
def test_each_label_weighs_what_it_adds_to_those_before(weights):
    denoiser = Counting()
    levels = [denoiser.model(X, SIGMA, labels) for labels in (OPEN_BOTH, OPEN_SECOND, LABELS)]
    expected = levels[0] + weights[0] * (levels[1] - levels[0]) + weights[1] * (levels[2] - levels[1])
    torch.testing.assert_close(pre_guided(denoiser, LABELS, weights)(X, SIGMA), expected)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_the_score_is_that_of_the_sharpened_law(weight):
    """Two normal classes: guidance follows the score of p(x) (p(x | class) / p(x))^w, here by automatic differentiation."""
    centres = torch.tensor([-1.0, 2.0], dtype=torch.float64)

    def log_law(x, sigma, label):
        parts = torch.distributions.Normal(centres, (1 + sigma[0] ** 2).sqrt()).log_prob(x)
        return parts[:, [label]] if label != MISSING else parts.logsumexp(1, keepdim=True) - torch.log(torch.tensor(2.0))

    def score(x, law):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(law(x).sum(), x)[0]

    def denoiser(x, sigma, labels):  # Tweedie's formula
        return x + sigma[:, None] ** 2 * score(x, lambda at: log_law(at, sigma, int(labels[0, 0])))

    x, sigma = torch.linspace(-4, 4, 9, dtype=torch.float64)[:, None], torch.full((9,), 0.8, dtype=torch.float64)
    denoised = pre_guided(denoiser, torch.ones(9, 1, dtype=torch.long), [weight])(x, sigma)
    expected = score(x, lambda at: (1 - weight) * log_law(at, sigma, MISSING) + weight * log_law(at, sigma, 1))
    torch.testing.assert_close((denoised - x) / sigma[:, None] ** 2, expected)


@pytest.mark.parametrize("weights", [(2.0, 2.0), (2.0, 0.5), (0.0, 3.0)])
def test_weights_hold_within_the_interval_and_are_one_outside(weights):
    """Cell by cell, where the noise levels of the cells differ; the lower bound is outside, the upper one inside."""
    low, high = SIGMA[1], SIGMA[4]
    inside = torch.tensor([False, False, True, True, True, False])
    expected = torch.where(inside[:, None], pre_guided(Counting(), LABELS, weights)(X, SIGMA), Counting().model(X, SIGMA, LABELS))
    torch.testing.assert_close(pre_guided(Counting(), LABELS, weights, (float(low), float(high)))(X, SIGMA), expected)


@pytest.mark.parametrize(("interval", "calls"), [((0.0, float("inf")), 2), ((0.0, 1.0), 2), ((1.0, 2.0), 1), ((0.5, 0.5), 1), ((0.1, 0.49), 1)], ids=str)
def test_outside_the_interval_the_network_is_called_once(interval, calls):
    denoiser, sigma = Counting(), torch.full((6,), 0.5)
    guided = pre_guided(denoiser, LABELS, (3.0, 3.0), interval)(X, sigma)
    assert denoiser.calls == calls
    expected = pre_guided(Counting(), LABELS, (3.0, 3.0) if calls == 2 else (1.0, 1.0))(X, sigma)
    assert torch.equal(guided, expected)


def test_the_labels_asked_for_stay_as_they_are():
    labels = LABELS.clone()
    pre_guided(Counting(), labels, (2.0, 3.0))(X, SIGMA)
    assert torch.equal(labels, LABELS)


# Post-guidance

MEAN, SD, NONE = torch.tensor([0.7, -1.5], dtype=torch.float64), 0.6, torch.zeros(50, 0, dtype=torch.long)
POINTS = 3 * torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def normal_denoiser(mean, sd):
    """The exact posterior mean for normal data."""
    return lambda x, sigma: (sd**2 * x + sigma[:, None] ** 2 * mean) / (sd**2 + sigma[:, None] ** 2)


def log_ratio(x, sigma, labels):
    """Of the noisy densities of real cells, N(MEAN, SD), and of the model's, N(0, 1)."""
    real = torch.distributions.Normal(MEAN, (SD**2 + sigma[:, None] ** 2).sqrt())
    model = torch.distributions.Normal(0.0, (1 + sigma[:, None] ** 2).sqrt())
    return (real.log_prob(x) - model.log_prob(x)).sum(1)


@pytest.mark.parametrize("level", [0.01, 0.3, 1.0, 7.0, 20.0])
def test_the_exact_critic_turns_the_models_denoiser_into_that_of_real_cells(level):
    sigma = torch.full((50,), level, dtype=torch.float64)
    corrected = post_guided(normal_denoiser(0.0, 1.0), log_ratio, NONE, weight=1.0, most=float("inf"))(POINTS, sigma)
    torch.testing.assert_close(corrected, normal_denoiser(MEAN, SD)(POINTS, sigma))


def test_a_correction_goes_with_its_weight():
    sigma, plain = torch.linspace(0.1, 5, 50, dtype=torch.float64), normal_denoiser(0.0, 1.0)
    moves = [post_guided(plain, log_ratio, NONE, weight, float("inf"))(POINTS, sigma) - plain(POINTS, sigma) for weight in (0.0, 0.5, 2.0)]
    assert (moves[0] == 0).all()
    torch.testing.assert_close(4 * moves[1], moves[2])


def test_a_correction_is_never_longer_than_the_most():
    """A longer one keeps its direction, a shorter one stays as it is."""
    sigma, plain = torch.linspace(0.1, 5, 50, dtype=torch.float64), normal_denoiser(0.0, 1.0)
    free, bound = (post_guided(plain, log_ratio, NONE, 1.0, most)(POINTS, sigma) - plain(POINTS, sigma) for most in (float("inf"), 0.8))
    length = free.norm(dim=1)
    assert (length > 0.8).any()
    assert (length < 0.8).any()
    torch.testing.assert_close(bound.norm(dim=1), length.clamp_max(0.8))
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(bound, free), torch.ones(50, dtype=torch.float64))


def test_corrections_need_no_gradients_switched_on_and_leave_none_behind():
    sigma = torch.ones(50, dtype=torch.float64)
    expected = post_guided(normal_denoiser(0.0, 1.0), log_ratio, NONE, 1.0, 1.0)(POINTS, sigma)
    with torch.no_grad():
        corrected = post_guided(normal_denoiser(0.0, 1.0), log_ratio, NONE, 1.0, 1.0)(POINTS, sigma)
    assert torch.equal(corrected, expected)
    assert not corrected.requires_grad
    assert not POINTS.requires_grad


def test_the_critic_is_asked_about_the_labels():
    labels = torch.tensor([[0], [1], [MISSING]])
    lean = lambda x, sigma, labels: x[:, 0] * labels[:, 0]  # noqa: E731
    moved = post_guided(lambda x, sigma: x, lean, labels, 1.0, 9.0)(torch.zeros(3, 2), torch.ones(3))
    assert moved.tolist() == [[0, 0], [1, 0], [-1, 0]]
