import itertools
import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from small import QUICK, TINY, make_cells

import scld
from scld.config import Config
from scld.cost import Cost, _added, _rehearse, _some, cost
from scld.fitting import Fit

TRAININGS = ("autoencoder_training", "denoiser_training", "critic_training")


def training(**settings):
    """Settings with all networks trained like this."""
    return {**TINY, **{part: {**QUICK, **settings} for part in TRAININGS}}


def fit_of(n=300, genes=30, config=TINY):
    cells = make_cells(n, genes)
    counts, codes = sp.csr_matrix(cells.X), cells.obs[["donor", "treated"]].to_numpy().astype(np.int64)
    seen = np.asarray(counts.sum(axis=0)).ravel() > 0
    return Fit(counts[:, seen], codes, (2, 2), Config.from_dict(config), 0, torch.device("cpu"), None)


def ticks():
    """A clock by which everything between two looks takes a second."""
    return itertools.count().__next__


def states():
    """Of the random numbers that anything may draw from."""
    return torch.get_rng_state().numpy(), np.random.get_state()[1]  # noqa: NPY002


@pytest.fixture
def nothing_taken(monkeypatch):
    """As if the process had no memory yet: what a fit adds is all that is left."""
    monkeypatch.setattr("scld.cost._resident", lambda: 0)


@pytest.mark.parametrize("part", TRAININGS)
def test_time_is_linear_in_the_steps(part):
    one, two, three = (cost(fit_of(config={**TINY, part: {**QUICK, "steps": steps}}), ticks()) for steps in (1000, 2000, 3000))
    assert two.most_seconds - one.most_seconds == pytest.approx(three.most_seconds - two.most_seconds)
    assert two.seconds - one.seconds == pytest.approx(three.seconds - two.seconds)
    assert two.most_seconds > one.most_seconds + 1


def test_time_is_linear_in_the_cells_where_epochs_count():
    """Twice the cells: twice the steps, and twice of what is done with each cell. Rehearsals are of one page each."""
    one, two = (cost(fit_of(n, config=training(steps=1, epochs=50)), ticks()).most_seconds for n in (2048, 4096))
    assert two == pytest.approx(2 * one, rel=0.02)


def test_expected_is_all_rounds_where_none_can_stop_early():
    for patience, alike in ((40, True), (2, False)):
        foretold = cost(fit_of(config=training(rounds=40, patience=patience)), ticks())
        assert (foretold.seconds == foretold.most_seconds) == alike
        assert foretold.seconds <= foretold.most_seconds


def test_more_genes_and_more_cells_take_more_memory(nothing_taken):
    small, wide, long = (cost(fit_of(n, genes)).memory for n, genes in ((300, 30), (300, 300), (3000, 30)))
    assert small < min(wide, long)


def test_memory_holds_the_weights_and_the_generated_counts(nothing_taken):
    """The least that there is to hold: weights with Adam's moments, the average and the best; and all generated cells at once."""
    wide = fit_of(60, 400, {**TINY, "autoencoder": {"width": 2000, "latent": 3}})
    assert cost(wide).memory > 5 * 4 * 2 * 400 * 2000
    many = fit_of(1000, 30, {**TINY, "selector": {"generated": 9, "trees": 2, "components": 3}})
    assert cost(many).memory > 8 * 10 * many.counts.nnz


def test_what_is_there_holds_what_is_taken_already():
    foretold = cost(fit_of())
    assert 0 < foretold.memory < foretold.room


def test_a_system_without_proc_is_asked_otherwise(monkeypatch, tmp_path):
    monkeypatch.setattr("scld.cost.Path", lambda name: tmp_path / name.lstrip("/"))
    foretold = cost(fit_of())
    assert foretold.memory > 0
    assert foretold.room > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_gpu_holds_the_networks_alone():
    many = fit_of(1000, 30, {**TINY, "selector": {"generated": 9, "trees": 2, "components": 3}})
    of_many, of_few = (
        _added(replace(fit, device=torch.device("cuda")), _rehearse(_some(fit), ticks())[0]) for fit in (many, replace(many, config=fit_of().config))
    )
    assert of_many == of_few < _added(many, _rehearse(_some(many), ticks())[0])


def test_a_fit_ends_where_it_does_without(config, synth, capsys):
    """With progress there is a rehearsal before: not a byte of the model depends on it."""
    again = scld.Synthesizer(["cell_type", "donor"], config=config).fit(make_cells())
    assert "about" in capsys.readouterr().err
    for part in ("autoencoder", "denoiser", "critic", "selector"):
        one, other = (getattr(made._generator, part) for made in (synth, again))
        one, other = (part.tensors() if hasattr(part, "tensors") else part.state_dict() for part in (one, other))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_nothing_is_left_behind(tmp_path):
    """No thread, no file, no number drawn, no bar, not a count changed."""
    bars = []
    fit = replace(fit_of(), resume=tmp_path / "resume", bar=lambda *bar: bars.append(bar))
    counts = fit.counts.copy()
    threads, drawn = (threading.active_count(), torch.get_num_threads()), [state.copy() for state in states()]
    cost(fit)
    assert (threading.active_count(), torch.get_num_threads()) == threads
    assert all(np.array_equal(now, before) for now, before in zip(states(), drawn, strict=True))
    assert not list(tmp_path.iterdir())
    assert not bars
    assert (fit.counts != counts).nnz == 0


@pytest.mark.parametrize("counts", [np.random.default_rng(0).poisson(2, (20, 5)) + 1, np.full((30, 1), 3), np.eye(600, 600)], ids=["few", "one gene", "sparse"])
def test_odd_cells(counts):
    """Any that can be fitted; of many genes a page of the cells has no count."""
    fit = Fit(sp.csr_matrix(counts, dtype=np.float32), np.zeros((len(counts), 0), np.int64), (), Config.from_dict(TINY), 0, torch.device("cpu"), None)
    foretold = cost(fit)
    assert 0 < foretold.seconds <= foretold.most_seconds < np.inf


def test_a_rate_too_high_is_the_fits_own_matter():
    reckless = {**QUICK, "learning_rate": 1e20}
    assert cost(fit_of(config={**TINY, "autoencoder_training": reckless})).seconds > 0


def test_without_progress_nothing_is_measured(config, monkeypatch, capsys):
    monkeypatch.setattr("scld.synthesizer.cost", lambda fit: pytest.fail("measured"))
    scld.Synthesizer(config=config).fit(make_cells(), progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "most", "said"),
    [(0.2, 0.3, "about 1 s (at most 1)"), (35, 71, "about 35 s (at most 71)"), (100, 290, "about 2 min (at most 5)"), (9000, 20000, "about 2 h (at most 6)")],
)
def test_a_time_in_words(seconds, most, said):
    assert str(Cost(seconds, most, 10**9, None, "cpu")) == f"{said}, 1.0 GB of memory on cpu"


def test_too_little_memory_is_said_before_the_fit():
    assert "but only 2.0 GB are free" in str(Cost(1, 1, 3 * 10**9, 2 * 10**9, "cpu"))
    assert "free" not in str(Cost(1, 1, 3 * 10**9, 3 * 10**9, "cpu"))


_PROCESS = """
import resource, sys
import numpy as np, torch
import scld
from scld.cost import cost
from scld.fitting import Fit
soon = {"rounds": 1, "steps": 5, "epochs": 1}
trainings = dict.fromkeys(["autoencoder_training", "denoiser_training", "critic_training"], soon)
counts = scld.data.count_matrix(scld.datasets.pbmc())
fit = Fit(counts, np.zeros((counts.shape[0], 0), np.int64), (), scld.Config.from_dict(trainings), 0, torch.device("cpu"), None)
foretold = cost(fit).memory
fit.run()
print(foretold / (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)))
"""


@pytest.mark.slow
def test_memory_is_within_a_factor_of_two_of_the_peak():
    ran = subprocess.run([sys.executable, "-c", _PROCESS], capture_output=True, text=True, check=True)
    assert 0.5 < float(ran.stdout) < 2
