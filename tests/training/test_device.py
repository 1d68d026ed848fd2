"""What runs on a GPU, without one: fake tensors on a device of their own, which hold no values.

An operation that meets a tensor of another device raises an error, and so does whatever needs a
value on the host, in a step of training.
"""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from toy import TINY, make_cells

import scld
from scld.generation.generator import build_networks
from scld.kernels.sparse import SparseCounts
from scld.model.autoencoder import Batch, DeviceCells
from scld.model.guidance import pre_guided
from scld.model.latents import Latents
from scld.training.loop import shuffled_batches

CONFIG = scld.Config.from_dict(TINY)
CELLS = make_cells(60)
COUNTS = sp.csr_matrix(CELLS.X)
CODES = np.stack([np.arange(60) % 3, np.arange(60) % 2], axis=1)
OTHER = torch.device("meta")


@pytest.fixture
def fake():
    with FakeTensorMode() as mode:
        yield mode


def fake_networks():
    with OTHER:
        return build_networks(30, (3, 2), CONFIG)


def fake_cells():
    """As `DeviceCells.of`, of counts that no host has."""
    values = torch.empty(500, device=OTHER)
    genes, starts = (torch.empty(n, dtype=torch.int32, device=OTHER) for n in (500, 61))
    library = torch.empty(60, device=OTHER)
    codes = torch.empty(60, 2, dtype=torch.int64, device=OTHER)
    return DeviceCells(SparseCounts(values, genes, starts), library, codes, 12)


def fake_batch(size=8):
    return torch.empty(size, dtype=torch.int64, device=OTHER)


def update(loss, network):
    """Value on the device, and gradients of all weights there."""
    loss.backward()
    assert loss.device == OTHER
    assert all(weight.grad.device == OTHER for weight in network.parameters())
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)


def test_a_step_of_the_autoencoder_stays_on_the_device(fake):
    autoencoder, _ = fake_networks()
    update(autoencoder.loss(fake_cells().batch(fake_batch())), autoencoder)


def test_a_step_of_the_denoiser_stays_on_the_device(fake):
    _, denoiser = fake_networks()
    dims = CONFIG.autoencoder.latent + 1
    mean, log_variance = (torch.empty(60, n, device=OTHER) for n in (dims, dims - 1))
    centre, scale = (torch.empty(dims, device=OTHER) for _ in range(2))
    latents = Latents(mean, log_variance, fake_cells().labels, centre, scale)
    update(latents.loss(denoiser, fake_batch(), 0.1).mean(), denoiser)


def test_cells_are_denoised_and_decoded_on_the_device(fake):
    autoencoder, denoiser = fake_networks()
    labels = torch.zeros(8, 2, dtype=torch.int64, device=OTHER)
    noise = torch.empty(8, CONFIG.autoencoder.latent + 1, device=OTHER)
    with torch.no_grad():
        points = pre_guided(denoiser, labels, [1.0, 1.0])(noise, noise[:, 0])
        logits = autoencoder.logits(points, labels)
        parameters = autoencoder.nb_parameters(logits, points[:, -1:])
    assert {part.device for part in parameters} == {OTHER}


def test_batches_are_shuffled_on_the_device_of_the_cells(fake):
    cells = torch.arange(60, device=OTHER)
    batches = list(shuffled_batches(cells, 8, range(20), seed=0))
    assert {batch.device for batch in batches} == {OTHER}


def test_a_value_that_the_host_asks_for_is_found(fake):
    """That these tests can fail: as they would with `float(loss)` or a tensor of the host."""
    autoencoder, _ = fake_networks()
    loss = autoencoder.loss(fake_cells().batch(fake_batch()))
    with pytest.raises(Exception, match="_local_scalar_dense"):
        float(loss.detach())
    with pytest.raises(RuntimeError, match="same device"):
        loss + torch.ones(1)


def test_gathered_batches_are_those_of_the_rows():
    cells, rows = DeviceCells.of(COUNTS, CODES, "cpu"), np.array([5, 3, 59])
    gathered, sliced = cells.batch(torch.from_numpy(rows)), Batch.of(COUNTS[rows], CODES[rows])
    dense = [
        batch.counts.product(batch.counts.values, torch.eye(30)) for batch in (gathered, sliced)
    ]
    torch.testing.assert_close(*dense)
    torch.testing.assert_close(gathered.log_library, sliced.log_library)
    assert gathered.labels.equal(sliced.labels)


def test_training_on_gathered_batches_is_training_on_rows():
    """Loss and gradients, in training and in evaluation."""
    rows = np.arange(0, 60, 4)
    gathered = DeviceCells.of(COUNTS, CODES, "cpu").batch(torch.from_numpy(rows))
    autoencoder = build_networks(30, (3, 2), CONFIG)[0].start_from(COUNTS, CODES)
    results = []
    for batch in (gathered, Batch.of(COUNTS[rows], CODES[rows])):
        torch.manual_seed(0)
        loss = autoencoder.train().loss(batch)
        autoencoder.zero_grad()
        loss.backward()
        weights = autoencoder.parameters()
        results.append([loss.detach(), *(weight.grad.clone() for weight in weights)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
