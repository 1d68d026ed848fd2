from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from toy import QUICK, TINY

from scld import Config
from scld.generation.request import SamplingRequest
from scld.model.latents import Latents
from scld.preprocessing import log_normalise
from scld.training.calibration import (
    _regression,
    calibrate_latents,
    calibrate_means,
    calibrate_spread,
    proportions,
    spread_gains,
)
from scld.training.stages import Fit

CONFIG = {
    **TINY,
    "autoencoder": {**TINY["autoencoder"], "calibration_cells": 0, "spread_cells": 0},
    "autoencoder_training": {**QUICK, "learning_rate": 0.005, "steps": 100},
    "denoiser_training": {**QUICK, "learning_rate": 0.005, "steps": 100},
    "sampling": {"post": "off"},
}


def varying_cells(cells=600, genes=40):
    """Two types, and a program of genes that varies within both."""
    random = np.random.default_rng(0)
    types = np.arange(cells) % 2
    rates = 3 * random.gamma(2.0, 1.0, (2, genes))[types]
    program = np.where(np.arange(genes) < 10, 0.7, 0.0)
    rates = rates * np.exp(np.outer(random.standard_normal(cells), program))
    return sp.csr_matrix(random.poisson(rates).astype(np.float32)), types[:, None]


@pytest.fixture
def fit():
    counts, codes = varying_cells()
    return Fit(counts, codes, (2,), Config.from_dict(CONFIG), 0, torch.device("cpu"))


def variance(counts, codes, axis):
    """Within types, along an axis of log-normalised values."""
    scores = log_normalise(counts) @ axis
    return np.mean([scores[codes[:, 0] == code].var() for code in (0, 1)])


def sampled(generator, codes, options):
    request = SamplingRequest(codes)
    pages = [page.counts for page in generator.pages(request, options)]
    return sp.csr_matrix(sp.vstack(pages, format="csr"))


# The spread


@pytest.fixture
def shrunk(fit):
    """A generator whose latent points lie too near to each other."""
    generator, _ = fit.run()
    return replace(generator, scale=generator.scale * 0.7)


def test_calibrated_cells_vary_as_much_as_real_ones(fit, shrunk):
    axis = np.where(np.arange(40) < 10, 1.0, 0.0)
    options = fit._options(number=7)
    real, before = (
        variance(counts, fit.codes, axis)
        for counts in (fit.counts, sampled(shrunk, fit.codes, options))
    )
    assert before < 0.75 * real
    calibrate_spread(shrunk, fit.counts, fit.codes, fit._options(number=1))
    after = variance(sampled(shrunk, fit.codes, options), fit.codes, axis)
    assert abs(np.log(after / real)) < 0.5 * abs(np.log(before / real))


def test_the_logits_at_the_mean_of_a_category_stay(fit, shrunk):
    (page, *_), options = list(shrunk.split(SamplingRequest(fit.codes))), fit._options(number=1)
    pages = list(shrunk.split(SamplingRequest(fit.codes)))
    points = torch.cat([shrunk.points(part, options)[: len(part.codes)] for part in pages])
    of_first = points[torch.from_numpy(fit.codes[:, 0] == 0)].mean(dim=0)
    middle = of_first.expand(256, -1)
    first = page._replace(decode_labels=np.zeros_like(page.decode_labels))
    with torch.no_grad():
        shrunk.autoencoder.membership_offset[0] = 50.0  # of the first category without doubt
        before = shrunk.logits(first, middle)
        calibrate_spread(shrunk, fit.counts, fit.codes, options)
        after = shrunk.logits(first, middle)
    assert not torch.equal(shrunk.logits(first, points[:256]), before)
    np.testing.assert_allclose(before, after, atol=1e-4)


def test_a_handful_of_cells_calibrates_nothing(fit, shrunk):
    before = shrunk.autoencoder.linear.clone()
    calibrate_spread(shrunk, fit.counts[:11], fit.codes[:11], fit._options(number=1))
    assert torch.equal(shrunk.autoencoder.linear, before)


def log_cells(cells, explained, noise, seed):
    """Two draws of values at the same points: 30 genes, 6 of which vary together along 3 axes."""
    random = np.random.default_rng(seed)
    axes = np.kron(np.eye(3), np.ones((1, 2)) / np.sqrt(2))
    mean = random.standard_normal((cells, 3)) * explained @ axes
    mean = np.hstack([mean, np.zeros((cells, 24))])
    return [sp.csr_matrix(mean + noise * random.standard_normal(mean.shape)) for _ in range(2)]


def gains(cells, of_real, of_made):
    groups = np.arange(cells) % 3
    real = log_cells(cells, np.array(of_real), 0.3, seed=1)[0]
    return spread_gains(real, *log_cells(cells, np.array(of_made), 0.3, seed=2), groups, 3)


def test_gains_are_the_ratios_of_what_latent_points_explain():
    """Axes 1 and 2 share one; noise, which is the same in both, does not count."""
    found = gains(20_000, [4.4, 3.3, 1.0], [4.0, 3.0, 1.0])
    np.testing.assert_allclose(found, [1.1, 1.1, 1.0], atol=0.03)


def test_few_cells_tell_little_about_gains():
    many, few = (gains(cells, [4.8, 3.6, 1.2], [4.0, 3.0, 1.0]) for cells in (20_000, 90))
    assert (many[:2] > 1.17).all()
    assert (abs(few - 1) < 0.15).all()


# The means


def test_calibrated_cells_have_the_means_of_real_ones(fit):
    """Of a gene that the decoder has three times too high."""
    generator, _ = fit.run()
    options, real = fit._options(number=9), fit.counts.sum(axis=0).A1 / fit.counts.sum()
    generator.autoencoder.profiles[:, 3] += np.log(3)
    assert proportions(generator, fit.codes, options)[3] > 2 * real[3]
    calibrate_means(generator, fit.counts, fit.codes, options, 2000)
    assert proportions(generator, fit.codes, options)[3] == pytest.approx(real[3], rel=0.1)


# Latent points


def moments(generator, fit, number):
    """Means of generated points by type, and the covariance within types."""
    pages = list(generator.split(SamplingRequest(np.tile(fit.codes, (8, 1)))))
    options = fit._options(number=number)
    points = torch.cat([generator.latents(p, options)[: len(p.codes)] for p in pages]).numpy()
    codes = np.tile(fit.codes[:, 0], 8)
    means = np.stack([points[codes == code].mean(axis=0) for code in (0, 1)])
    return means, np.cov((points - means[codes]).T)


def test_mapped_points_have_the_moments_of_encoded_cells(fit):
    generator, _ = fit.run()
    latents = Latents.of(generator.autoencoder, fit.counts, fit.codes, fit.device)
    spread = latents.sample(torch.arange(600).repeat(50)).numpy()
    codes = np.tile(fit.codes[:, 0], 50)
    real = np.stack([spread[codes == code].mean(axis=0) for code in (0, 1)])
    covariance = np.cov((spread - real[codes]).T)
    narrow = replace(generator, latent_map=replace(generator.latent_map, matrix=0.5 * torch.eye(5)))
    mapped = calibrate_latents(narrow, latents, fit._options(number=3), 5000, seed=0)
    means, made = moments(mapped, fit, number=8)
    assert np.abs(made - covariance).max() < 0.1
    assert np.abs(np.diag(made) / np.diag(covariance) - 1).max() < 0.1
    assert np.abs(means - real).max() < 0.1
    again = calibrate_latents(generator, latents, fit._options(number=3), 5000, seed=0)
    assert torch.equal(again.latent_map.matrix, mapped.latent_map.matrix)


def test_few_cells_leave_the_covariance_nearly_as_it_is(fit):
    generator, _ = fit.run()
    few = Latents.of(generator.autoencoder, fit.counts[:8], fit.codes[:8], fit.device)
    wide = replace(few, mean=few.mean * 3)
    found = calibrate_latents(generator, wide, fit._options(number=3), 2000, seed=0)
    assert (torch.linalg.eigvalsh(found.latent_map.matrix) < 1.8).all()


def test_a_regression_on_what_does_not_vary_is_zero():
    assert not _regression(np.zeros((3, 3)), np.zeros((3, 2))).any()
