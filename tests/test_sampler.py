import numpy as np
import pytest
import torch

from scld.sampler import dpm_solver, schedule

MEAN, SD = torch.tensor([[1.5, -3.0]], dtype=torch.float64), torch.tensor([[0.7, 2.0]], dtype=torch.float64)
NOISE = torch.tensor([[-2.0, -1.0], [0.0, 0.5], [1.0, 3.0]], dtype=torch.float64)


def gaussian(x, sigma):
    """The exact denoiser of normal data."""
    variance = SD**2 + sigma[:, None] ** 2
    return MEAN + SD**2 / variance * (x - MEAN)


def solution(sigma_max, sigma):
    """Where the exact flow of normal data carries the noise: it keeps the distance to the mean in units of sd."""
    return MEAN + (NOISE * sigma_max - MEAN) * torch.sqrt((SD**2 + sigma**2) / (SD**2 + sigma_max**2))


def error(steps):
    """Of the solver at its last noise level; there it returns the denoised point."""
    end = torch.tensor([0.1], dtype=torch.float64)
    exact = gaussian(solution(20.0, 0.1), end)
    return float((dpm_solver(gaussian, NOISE, schedule(steps, 0.1, 20.0, 7.0).double()) - exact).abs().max())


@pytest.mark.parametrize(("steps", "sigma_min", "sigma_max", "rho"), [(2, 0.002, 80.0, 7.0), (18, 0.002, 80.0, 7.0), (40, 0.1, 5.0, 3.0)])
def test_noise_levels_are_those_of_edm(steps, sigma_min, sigma_max, rho):
    i = np.arange(steps)
    expected = (sigma_max ** (1 / rho) + i / (steps - 1) * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho  # equation 5
    np.testing.assert_allclose(schedule(steps, sigma_min, sigma_max, rho), [*expected, 0.0], rtol=1e-6)


@pytest.mark.parametrize(("strength", "steps"), [(1.0, 20), (0.5, 10), (0.25, 5), (0.01, 1)])
def test_a_strength_takes_the_last_part_of_the_schedule(strength, steps):
    """Its levels lie on the same curve, from the share of it that the strength names; at full strength it is all of it."""
    whole, part = schedule(20, 0.01, 20.0, 7.0), schedule(20, 0.01, 20.0, 7.0, strength)
    assert len(part) == steps + 1
    first = (strength * 20.0 ** (1 / 7) + (1 - strength) * 0.01 ** (1 / 7)) ** 7
    np.testing.assert_allclose(part[0], first, rtol=1e-5)
    assert strength < 1 or torch.equal(whole, part)
    assert part[-2:].tolist() == whole[-2:].tolist() or steps == 1


def test_a_single_step_denoises_pure_noise():
    assert schedule(1, 0.01, 80.0, 7.0).tolist() == [80.0, 0.0]


def test_the_solver_is_of_second_order():
    steps = np.array([40, 80, 160, 320])
    slope = np.polyfit(np.log(1 / steps), np.log([error(n) for n in steps]), 1)[0]
    assert 1.85 < slope < 2.3


def test_many_steps_reach_the_exact_solution():
    assert error(2000) < 1e-4


def test_moments_of_normal_data_come_out():
    """The flow is affine, so three points tell all of it: the mean at no noise, the sd by the slope."""
    sigmas = schedule(1000, 1e-3, 1e4, 7.0).double()
    at = dpm_solver(gaussian, torch.tensor([[0.0, 0.0], [1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64), sigmas)
    torch.testing.assert_close(at[:1], MEAN, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close((at[1:2] - at[2:]) / 2, SD, rtol=1e-3, atol=0.0)


def test_the_denoiser_is_called_once_a_step_at_decreasing_noise():
    seen = []

    def denoise(x, sigma):
        seen.append(sigma)
        return gaussian(x, sigma)

    sigmas = schedule(9, 0.01, 80.0, 7.0)
    dpm_solver(denoise, NOISE, sigmas)
    assert [sigma.shape for sigma in seen] == [(3,)] * 9
    assert [float(sigma[0]) for sigma in seen] == sigmas[:-1].tolist()


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_the_trajectory_is_that_of_diffusers(steps):
    from diffusers import EDMDPMSolverMultistepScheduler

    oracle = EDMDPMSolverMultistepScheduler(sigma_min=0.01, sigma_max=80.0, sigma_data=1.0, rho=7.0, solver_order=2, final_sigmas_type="zero")
    oracle.set_timesteps(steps)
    torch.testing.assert_close(schedule(steps, 0.01, 80.0, 7.0), oracle.sigmas, rtol=1e-5, atol=0.0)
    ours, theirs = [], NOISE * oracle.sigmas[0]

    def denoise(x, sigma):
        ours.append(x)
        return torch.tanh(x / (1 + sigma[:, None]))  # curved, so that no term can hide

    result = dpm_solver(denoise, NOISE, oracle.sigmas.double())
    for step, time in enumerate(oracle.timesteps):
        torch.testing.assert_close(ours[step], theirs, rtol=1e-5, atol=1e-5)
        sigma = oracle.sigmas[step]
        denoised = torch.tanh(theirs / (1 + sigma))
        network = (denoised - theirs / (sigma**2 + 1)) / (sigma / (sigma**2 + 1).sqrt())  # what it expects is not yet preconditioned
        theirs = oracle.step(network, time, theirs).prev_sample
    torch.testing.assert_close(result, theirs, rtol=1e-4, atol=1e-5)
