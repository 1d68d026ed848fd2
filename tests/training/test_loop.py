import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from scld.config import TrainingConfig
from scld.errors import RequestError
from scld.training.loop import TrainingHistory, shuffled_batches, steps_per_interval, train

INPUTS = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(200, 1, generator=torch.Generator().manual_seed(1))
TARGETS = INPUTS @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3 + 0.1 * NOISE
CELLS, HELD_OUT = torch.arange(160), torch.arange(160, 200)
CONFIG = TrainingConfig(
    learning_rate=0.1,
    batch=32,
    steps=60,
    epochs=1,
    intervals=6,
    patience=6,
    average=0.9,
    clip=100.0,
    validation_repeats=2,
    save_seconds=0.0,
)


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Dropout(0.1), nn.Linear(3, 1))


def squared(module, cells):
    return (module(INPUTS[cells]) - TARGETS[cells]).square().mean()


def run(module, loss=squared, config=CONFIG, cells=CELLS, groups=None, seed=5, **more):
    groups = groups or [{"params": list(module.parameters())}]
    return train(module, groups, loss, cells, HELD_OUT, config, seed, **more)


def weights(module):
    return torch.cat([parameter.detach().ravel() for parameter in module.parameters()])


def recording(batches):
    """A loss that records the batches of training."""

    def loss(module, cells):
        if module.training:
            batches.append(cells)
        return squared(module, cells)

    return loss


class Stop(Exception):
    pass


def stopping_after(intervals):
    def progress(done, text):
        if done == intervals:
            raise Stop

    return progress


def test_a_linear_regression_is_learnt():
    module = nn.Linear(3, 1)
    history = run(module, config=replace(CONFIG, steps=600, average=0.95))
    design = np.column_stack([INPUTS[CELLS], np.ones(160)])
    expected = np.linalg.lstsq(design, TARGETS[CELLS].numpy(), rcond=None)[0].ravel()
    np.testing.assert_allclose(weights(module), expected, atol=0.02)
    assert history.validation[-1] < 0.05
    assert not module.training


# Resuming


@pytest.mark.parametrize("intervals", [1, 2, 4, 6])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, intervals):
    """Byte for byte; intervals of 300 cells end within epochs of 160."""
    complete, stopped, resumed = linear(), linear(), linear()
    config, seen = replace(CONFIG, batch=30), []
    expected = run(complete, config=config)
    keywords = {"config": config, "resume": tmp_path / "state"}
    with pytest.raises(Stop):
        run(stopped, progress=stopping_after(intervals), **keywords)
    history = run(resumed, progress=lambda done, text: seen.append(done), **keywords)
    first = [intervals - 1] * (
        intervals > 1
    )  # the last that was saved: those before are not repeated
    assert seen[: len(first) + 1] == [*first, intervals]
    assert torch.equal(weights(complete), weights(resumed))
    assert replace(history, seconds=0.0) == replace(expected, seconds=0.0)


def test_a_run_stopped_within_an_interval_resumes_with_the_same_batches(tmp_path):
    uninterrupted, interrupted, config = [], [], replace(CONFIG, batch=30)
    complete, stopped, resumed = linear(), linear(), linear()
    run(complete, recording(uninterrupted), config)
    record = recording(interrupted)

    def stopping(module, cells):
        if len(interrupted) == 37:
            raise Stop
        return record(module, cells)

    with pytest.raises(Stop):
        run(stopped, stopping, config, resume=tmp_path / "state")
    del interrupted[30:]  # three intervals of ten steps were complete
    run(resumed, record, config, resume=tmp_path / "state")
    assert torch.equal(torch.stack(interrupted), torch.stack(uninterrupted))
    assert torch.equal(weights(complete), weights(resumed))


@pytest.mark.parametrize("save_seconds", [0.0, 1e6])
def test_a_finished_run_is_not_repeated(tmp_path, save_seconds):
    """However seldom its state is saved."""
    first, second, config = linear(), linear(), replace(CONFIG, save_seconds=save_seconds)
    expected = run(first, config=config, resume=tmp_path / "state")
    nothing_to_compute = None
    history = run(second, nothing_to_compute, config, resume=tmp_path / "state")
    assert torch.equal(weights(first), weights(second))
    assert replace(history, seconds=0.0) == replace(expected, seconds=0.0)


def test_an_interruption_while_saving_leaves_a_state_to_continue_from(tmp_path, monkeypatch):
    complete, stopped, resumed = linear(), linear(), linear()
    run(complete)
    usual = json.dumps

    def failing(value, **more):
        if value["interval"] == 3:
            raise Stop
        return usual(value, **more)

    monkeypatch.setattr("scld.training.state.json.dumps", failing)
    with pytest.raises(Stop):
        run(stopped, resume=tmp_path / "state")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    run(resumed, resume=tmp_path / "state")
    assert torch.equal(weights(complete), weights(resumed))


# Early stopping and averaging


class Slope(nn.Module):
    """One weight that training decreases without end, and that is best at -1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.trained: list[float] = []

    def loss(self, cells):
        if self.training:
            self.trained.append(float(self.weight.detach()))
            return self.weight.sum()
        return (self.weight + 1).square().sum()


def recording_averages(averages):
    def loss(module, cells):
        if not module.training:
            averages.append(float(module.weight))
        return module.loss(cells)

    return loss


def test_it_stops_early_and_returns_the_best_averaged_weights():
    module, averages = Slope(), []
    changes = {"intervals": 50, "steps": 500, "learning_rate": 0.02}
    config = replace(CONFIG, **changes, patience=3, validation_repeats=1)
    history = run(module, recording_averages(averages), config)
    by_interval = averages[:: len(averages) // len(history.validation)]
    best = int(np.argmin(history.validation))
    assert history.best_interval == best
    assert len(history.validation) == best + 1 + 3  # patience, and not one interval more
    assert 0 < best < 46
    assert float(module.weight.detach()) == by_interval[best]
    np.testing.assert_allclose(history.validation, (np.array(by_interval) + 1) ** 2, rtol=1e-5)


def test_the_history_says_what_was_done():
    module = Slope()
    changes = {"intervals": 50, "steps": 500, "learning_rate": 0.02}
    config = replace(CONFIG, **changes, patience=3, validation_repeats=1)
    history = run(module, lambda module, cells: module.loss(cells), config)
    assert isinstance(history, TrainingHistory)
    assert history.steps == len(module.trained) == 10 * len(history.validation)
    assert history.validation[history.best_interval] == min(history.validation)
    assert history.seconds > 0


def test_weights_are_averaged_exponentially_with_a_quick_start():
    module, averages = Slope(), []
    config = replace(CONFIG, intervals=1, steps=40, average=0.8, validation_repeats=1)
    run(module, recording_averages(averages), config)
    expected = 0.0
    for step in range(0, 40, 4):  # of the weights after every fourth step
        decay = min(0.8, (1 + step) / (10 + step)) ** 4
        expected = decay * expected + (1 - decay) * module.trained[step + 1]
    assert module.trained[-1] < expected < 0
    np.testing.assert_allclose(averages[0], expected, rtol=1e-5)


def test_the_held_out_loss_is_the_mean_over_cells_for_any_batch_size():
    """Forty cells twice, in batches of which the last is not full."""
    sizes = []

    def loss(module, cells):
        if module.training:
            return squared(module, cells)
        sizes.append(len(cells))
        return cells.double().mean()

    history = run(linear(), loss, replace(CONFIG, intervals=1, batch=6))
    assert sizes == [24, 24, 24, 8]
    np.testing.assert_allclose(history.validation, HELD_OUT.double().mean())


# The order of the cells


@pytest.mark.parametrize("size", [1, 7, 32, 160, 500])
@pytest.mark.parametrize("intervals", [1, 3, 10])
def test_every_cell_comes_once_per_epoch_for_any_division_into_intervals(size, intervals):
    """The order does not start again with an interval."""
    cells, steps = torch.arange(1000, 1160), 30
    bounds = np.linspace(0, steps, intervals + 1).astype(int)
    ranges = [range(*pair) for pair in itertools.pairwise(bounds)]
    batches = [batch for some in ranges for batch in shuffled_batches(cells, size, some, seed=3)]
    assert [len(batch) for batch in batches] == [size] * steps
    epochs = torch.cat(batches).split(160)
    for epoch in epochs[:-1]:
        assert epoch.sort()[0].tolist() == cells.tolist()
    assert len(epochs[-1].unique()) == len(epochs[-1])
    in_one = torch.cat(list(shuffled_batches(cells, size, range(steps), seed=3)))
    assert torch.equal(torch.cat(batches), in_one)


def test_each_epoch_and_each_seed_has_another_order():
    def order(seed):
        batches = list(shuffled_batches(CELLS, 32, range(15), seed))
        return [epoch.tolist() for epoch in torch.cat(batches).split(160)]

    orders = order(0) + order(1)
    assert len({tuple(each) for each in orders}) == 6
    assert order(0) == order(0)


def test_of_90000_cells_in_30_intervals_each_is_seen_equally_often():
    config, cells = TrainingConfig(), torch.arange(90_000)
    number, seen = steps_per_interval(config, len(cells)), np.zeros(90_000, int)
    for interval in range(config.intervals):
        steps = range(interval * number, (interval + 1) * number)
        for batch in shuffled_batches(cells, config.batch, steps, seed=0):
            seen[batch.numpy()] += 1
    assert config.intervals == 30
    assert seen.max() - seen.min() <= 1
    assert seen.min() >= config.epochs


def test_training_takes_the_cells_in_this_order():
    """Over six intervals of ten steps, none of which is a number of epochs."""
    batches = []
    run(linear(), recording(batches), replace(CONFIG, batch=30))
    expected = torch.cat(list(shuffled_batches(CELLS, 30, range(60), seed=5)))
    assert torch.equal(torch.cat(batches), expected)
    assert set(torch.cat(batches).bincount(minlength=160).tolist()) == {11, 12}


def test_fewer_cells_than_a_batch_come_several_times():
    batches = []
    config = replace(CONFIG, intervals=1, steps=2, batch=10)
    run(linear(), recording(batches), config, cells=torch.arange(5))
    assert [batch.bincount(minlength=5).tolist() for batch in batches] == [[2] * 5] * 2


@pytest.mark.parametrize(("steps", "epochs"), [(1500, 1), (1, 20), (7, 1)])
@pytest.mark.parametrize("cells", [10, 1000, 90_000])
def test_all_intervals_together_have_enough_steps_and_epochs(steps, epochs, cells):
    config = replace(CONFIG, steps=steps, epochs=epochs, intervals=30)
    total = 30 * steps_per_interval(config, cells)
    most = max(steps, math.floor(epochs * cells / config.batch))
    assert most <= total < most + 30


# Parameter groups, seeds, progress


def test_a_group_of_parameters_has_its_own_rate():
    module = nn.Linear(3, 1)
    still = module.bias.detach().clone()
    before = module.weight.detach().clone()
    groups = [{"params": [module.weight]}, {"params": [module.bias], "lr": 0.0}]
    run(module, groups=groups)
    assert torch.equal(module.bias, still)
    assert not torch.equal(module.weight, before)


def test_the_seed_determines_everything_and_torchs_own_state_is_left_alone():
    one, same, other = linear(), linear(), linear()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    run(one)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    run(same)
    run(other, seed=6)
    assert torch.equal(weights(one), weights(same))
    assert not torch.equal(weights(one), weights(other))


def test_progress_gives_intervals_and_loss():
    reports = []
    history = run(linear(), progress=lambda done, text: reports.append((done, text)))
    assert [done for done, _ in reports] == [1, 2, 3, 4, 5, 6, 6]  # the last fills the bar
    assert f"{min(history.validation):.4g}" in reports[-2][1]
    assert reports[-1] == reports[-2]


def test_progress_says_that_training_stopped_early_and_where_it_continues(tmp_path):
    reports = []

    def report(done, text):
        reports.append((done, text))

    config = replace(CONFIG, patience=1, learning_rate=50.0)  # too high: the loss rises
    history = run(linear(), progress=report, config=config, resume=tmp_path / "state")
    stopped = len(history.validation)
    assert stopped < config.intervals
    assert f"stopped after interval {stopped}" in reports[-1][1]
    reports.clear()
    run(linear(), progress=report, config=config, resume=tmp_path / "state")
    assert reports[0] == (stopped, "continued from here")


def test_a_held_out_loss_that_is_never_a_number_is_an_error():
    with pytest.raises(RequestError, match=r"validation loss.*not a number.*learning_rate"):
        run(linear(), lambda module, cells: squared(module, cells) * float("nan"))
