import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from scld.model.sampler import schedule, solve

MEAN = torch.tensor([[1.5, -3.0]], dtype=torch.float64)
SD = torch.tensor([[0.7, 2.0]], dtype=torch.float64)
NOISE = torch.tensor([[-2.0, -1.0], [0.0, 0.5], [1.0, 3.0]], dtype=torch.float64)


def gaussian(x, sigma):
    """The exact denoiser of normal data."""
    variance = SD**2 + sigma[:, None] ** 2
    return MEAN + SD**2 / variance * (x - MEAN)


def two_points(x, sigma):
    """The exact denoiser of data that are -1 or 1 in each coordinate."""
    return torch.tanh(x / sigma[:, None] ** 2)


def solution(sigma_max):
    """The exact flow of normal data: it keeps the distance to the mean in units of sd."""
    return MEAN + (NOISE * sigma_max - MEAN) * SD / torch.sqrt(SD**2 + sigma_max**2)


def error(steps):
    found = solve(gaussian, NOISE * 20.0, schedule(steps, 20.0).double())
    return float((found - solution(20.0)).abs().max())


@pytest.mark.parametrize(("steps", "sigma_max"), [(1, 80.0), (6, 20.0), (40, 0.5)])
def test_noise_levels_are_evenly_spaced_in_angle(steps, sigma_max):
    angles = schedule(steps, sigma_max).double().atan()
    expected = math.atan(sigma_max) * (1 - np.arange(steps + 1) / steps)
    np.testing.assert_allclose(angles, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("strength", "steps"), [(1.0, 20), (0.5, 10), (0.25, 5), (0.01, 1)])
def test_a_strength_keeps_the_last_part_of_the_schedule(strength, steps):
    """That share of the angle, at the same levels where the steps divide; all of it at 1."""
    whole, part = schedule(20, 20.0), schedule(20, 20.0, strength)
    assert len(part) == steps + 1
    np.testing.assert_allclose(math.atan(part[0]), strength * math.atan(20.0), rtol=1e-5)
    if strength in (1.0, 0.5, 0.25):
        torch.testing.assert_close(part, whole[-steps - 1 :])


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_standard_normal_data_are_solved_exactly_in_any_number_of_steps(steps):
    def standard(x, sigma):
        return x / (1 + sigma[:, None] ** 2)

    sigmas = schedule(steps, 20.0).double()
    found = solve(standard, NOISE * (1 + sigmas[0] ** 2).sqrt(), sigmas)
    torch.testing.assert_close(found, NOISE, rtol=1e-7, atol=0.0)


def test_the_solver_is_of_second_order():
    steps = np.array([40, 80, 160, 320])
    slope = np.polyfit(np.log(1 / steps), np.log([error(n) for n in steps]), 1)[0]
    assert 1.85 < slope < 2.3


def test_many_steps_reach_the_exact_solution():
    assert error(2000) < 1e-4


def test_the_moments_of_normal_data_are_found():
    """The flow is affine, so three points determine it: mean at no noise, sd by the slope."""
    noise = torch.tensor([[0.0, 0.0], [1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    ends = solve(gaussian, 1e4 * noise, schedule(1000, 1e4).double())
    torch.testing.assert_close(ends[:1], MEAN, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close((ends[1:2] - ends[2:]) / 2, SD, rtol=1e-3, atol=0.0)


def test_the_denoiser_is_evaluated_once_per_step_at_decreasing_noise():
    seen = []

    def denoise(x, sigma):
        seen.append(sigma)
        return gaussian(x, sigma)

    sigmas = schedule(9, 80.0)
    solve(denoise, NOISE, sigmas)
    assert [sigma.shape for sigma in seen] == [(3,)] * 9
    assert [float(sigma[0]) for sigma in seen] == sigmas[:-1].tolist()


@pytest.mark.parametrize("denoise", [gaussian, two_points], ids=["normal", "two points"])
def test_the_flow_is_that_of_scipy(denoise):
    """Karras' ODE dx/dsigma = (x - D) / sigma by an adaptive Runge-Kutta method."""
    ours = solve(denoise, NOISE * 20.0, schedule(4000, 20.0).double())

    def derivative(sigma, x):
        x = torch.from_numpy(x).reshape(NOISE.shape)
        denoised = denoise(x, torch.full((len(x),), sigma, dtype=torch.float64))
        return ((x - denoised) / sigma).numpy().ravel()

    start = (NOISE * 20.0).numpy().ravel()
    theirs = solve_ivp(derivative, (20.0, 1e-3), start, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.numpy().ravel(), theirs.y[:, -1], atol=5e-3)
