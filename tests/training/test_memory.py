import re
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from toy import TINY, make_cells

import scld
from scld.config import Config
from scld.errors import RequestError
from scld.generation.generator import build_networks
from scld.training import memory
from scld.training.memory import MemoryEstimate, estimate_memory
from scld.training.stages import Fit


def fit_of(cells=300, genes=30, non_zeros=None, config=TINY, sizes=(2, 2), device="cpu"):
    """A fit of a matrix of this shape, with one count in each of its first entries."""
    number = cells * genes if non_zeros is None else non_zeros
    rows, columns = np.divmod(np.arange(number), genes)
    values = np.ones(number, np.float32)
    counts = sp.csr_matrix((values, (rows, columns)), shape=(cells, genes))
    codes = np.zeros((cells, len(sizes)), np.int64)
    return Fit(counts, codes, sizes, Config.from_dict(config), 0, torch.device(device))


def needed(*arguments, **keywords):
    return estimate_memory(fit_of(*arguments, **keywords)).needed


# What a fit needs


@pytest.mark.parametrize("genes", [1, 30, 1000])
@pytest.mark.parametrize("sizes", [(), (2,), (7, 3)], ids=str)
@pytest.mark.parametrize("config", [TINY, {}], ids=["tiny", "default"])
def test_the_bytes_of_weights_are_those_of_the_networks(genes, sizes, config):
    """Extrapolated from one gene and two, so that large networks need not be built."""
    fit = fit_of(20, genes, config=config, sizes=sizes)
    networks = build_networks(genes, sizes, fit.config)
    real = sum(weight.nbytes for network in networks for weight in network.parameters())
    fixed, per_gene = memory._weight_bytes(fit)
    assert fixed + per_gene * genes == real


def test_memory_grows_with_genes_as_dense_batches_and_weights_do():
    """At the same counts: by as much with each thousand genes."""
    settings = Config().autoencoder_training
    three = [needed(300, genes, 100, config={}) for genes in (10_000, 11_000, 12_000)]
    steps = np.diff(three)
    assert steps[0] == steps[1]
    dense_arrays, weights_and_copies = 4, 6
    gene_weights = 4 * (128 + 128 + 1 + 2)
    batches = 4 * settings.batch * dense_arrays
    assert steps[0] > 1000 * (weights_and_copies * gene_weights + batches)


def test_memory_grows_with_cells_as_their_counts_do():
    """Of many cells with few genes: the sparse matrices of all cells."""
    one, two, four = (needed(cells, 20) for cells in (100_000, 200_000, 400_000))
    assert two == 2 * one
    assert four == 4 * one
    value_and_index = 8
    assert one > 2 * value_and_index * 100_000 * 20


def test_memory_holds_the_weights_and_what_training_keeps_of_them():
    """Gradients, two moments of Adam, the average and the best, of the size of the weights."""
    fit = fit_of(60, 400, config={**TINY, "autoencoder": {"width": 2000, "latent": 3}})
    networks = build_networks(400, fit.sizes, fit.config)
    weights = sum(weight.nbytes for network in networks for weight in network.parameters())
    assert estimate_memory(fit).needed > 6 * weights


def test_memory_holds_all_generated_cells_at_once():
    many = {**TINY, "discriminator": {"generated": 9, "trees": 2, "components": 3}}
    assert needed(2000, 30, config=many) > 8 * 10 * 2000 * 30
    few = {**TINY, "discriminator": {**many["discriminator"], "max_cells": 100}}
    assert needed(2000, 30, config=few) < needed(2000, 30, config=many)


def test_memory_holds_a_page_of_generated_cells_per_thread(threads):
    config = {**TINY, "autoencoder_training": {"batch": 2}}
    one, two, four = (
        (threads(number), needed(60, 5000, 60, config=config))[1] for number in (1, 2, 4)
    )
    page = 4 * 256 * 5000
    assert two - one >= page
    assert four - two == 2 * (two - one)


def test_a_gpu_holds_the_networks_and_the_counts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (123, 456))
    sizes = (100_000, 200_000)
    of_gpu = [estimate_memory(fit_of(cells, 20, device="cuda")) for cells in sizes]
    assert [estimate.left for estimate in of_gpu] == [123, 123]
    value_and_index = 8
    added = of_gpu[1].needed - of_gpu[0].needed
    assert added == value_and_index * 100_000 * 20


@pytest.mark.parametrize(
    ("cells", "genes", "non_zeros"), [(20, 1, 20), (20, 5, 100), (600, 600, 600)], ids=str
)
@pytest.mark.parametrize("sizes", [(), (1,)], ids=str)
def test_any_cells_that_can_be_fitted_have_an_estimate(cells, genes, non_zeros, sizes):
    assert needed(cells, genes, non_zeros, sizes=sizes) > 0


def test_an_estimate_draws_no_random_number_and_changes_nothing():
    fit = fit_of()
    counts = fit.counts.copy()
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    estimate_memory(fit)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert (fit.counts != counts).nnz == 0


# Refusing


def test_a_fit_that_cannot_have_its_memory_is_refused_in_one_line():
    MemoryEstimate(10**9, 10**9).check()
    MemoryEstimate(10**12, None).check()
    with pytest.raises(RequestError) as caught:
        MemoryEstimate(9 * 10**9, 8 * 10**9).check()
    for words in ("fit:", "9.0 GB", "8.0 GB", "use a larger machine"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.7, 0.4])
def test_the_error_says_what_would_fit(monkeypatch, share):
    """Read literally, the advice gives a fit that is not refused."""
    fit = fit_of(3000, 2000, config={**TINY, "autoencoder_training": {"batch": 2}})
    left = int(share * estimate_memory(fit).needed)
    monkeypatch.setattr(memory, "memory_left", lambda: left)
    with pytest.raises(RequestError) as caught:
        estimate_memory(fit).check()
    for name in ("genes", "cells"):
        (number,) = re.findall(rf"at most ([\d,]+) {name}", str(caught.value))
        number = int(number.replace(",", ""))
        smaller = {"cells": 3000, "genes": 2000, name: number}
        part = fit_of(**smaller, config=fit.config.to_dict())
        assert estimate_memory(part).needed <= left
        assert number >= 100


def test_a_fit_that_would_fit_from_disk_is_told_so(monkeypatch):
    few = {
        **TINY,
        "autoencoder": {**TINY["autoencoder"], "component_cells": 100, "spread_cells": 100},
    }
    fit = fit_of(200_000, 20, config=few)
    left = estimate_memory(fit).needed // 2
    monkeypatch.setattr(memory, "memory_left", lambda: left)
    assert "stream=True (--stream)" in estimate_memory(fit).advice


def test_what_cannot_be_loaded_is_refused_before_it_is_read(config, monkeypatch):
    monkeypatch.setattr(memory, "memory_left", lambda: 1000)
    monkeypatch.setattr("scld.io.pieces.Pieces.in_memory", lambda pieces: pytest.fail("read"))
    with pytest.raises(
        RequestError, match=r"counts take about .* leave stream=False \(--load\) out"
    ):
        scld.Synthesizer(config=config).fit(make_cells(), stream=False, progress=False)


def test_a_system_that_does_not_say_what_is_left_refuses_nothing(monkeypatch):
    monkeypatch.setattr(memory, "memory_left", lambda: None)
    estimate = estimate_memory(fit_of())
    assert estimate.left is None
    estimate.check()


def test_it_is_refused_before_training_and_nothing_is_written(config, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "memory_left", lambda: 1000)
    monkeypatch.setattr(Fit, "run", lambda fit: pytest.fail("training started"))
    synth = scld.Synthesizer(config=config)
    with pytest.raises(RequestError, match=r"memory.*are left"):
        synth.fit(make_cells(), checkpoint=tmp_path / "model.scld", progress=False)
    assert not list(tmp_path.iterdir())


def test_progress_gives_the_estimate_and_changes_no_byte_of_the_model(config, synth, capsys):
    again = scld.Synthesizer(["cell_type", "donor"], config=config).fit(make_cells())
    assert "MB of memory" in capsys.readouterr().err
    one, other = (fitted._model.generator.parts() for fitted in (synth, again))
    for name, tensors in one.items():
        assert all(torch.equal(tensor, other[name][key]) for key, tensor in tensors.items())


_PROCESS = """
import os
import numpy as np, torch
import scld
from scld.io.counts import count_matrix
from scld.training.memory import estimate_memory
from scld.training.stages import Fit

short = {"intervals": 1, "steps": 5, "epochs": 1}
config = scld.Config.from_dict({"autoencoder_training": short, "denoiser_training": short})
counts = count_matrix(scld.datasets.pbmc())
counts = counts[:, np.asarray(counts.sum(axis=0)).ravel() > 0]
codes = np.zeros((counts.shape[0], 0), np.int64)
fit = Fit(counts, codes, (), config, 0, torch.device("cpu"))
with open("/proc/self/statm") as file:
    before = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
needed = estimate_memory(fit).needed
fit.run()
with open("/proc/self/status") as file:  # getrusage begins with the peak of the parent
    (peak,) = [int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")]
print((before + needed) / peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_estimate_is_within_a_factor_of_two_of_the_peak():
    command = [sys.executable, "-c", _PROCESS]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0.5 < float(result.stdout) < 2
