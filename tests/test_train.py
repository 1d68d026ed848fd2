import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from scld.config import TrainingConfig
from scld.errors import RequestError
from scld.train import train

INPUTS = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3 + 0.1 * torch.randn(200, 1, generator=torch.Generator().manual_seed(1))
CELLS, HELD_OUT = torch.arange(160), torch.arange(160, 200)
CONFIG = TrainingConfig(learning_rate=0.1, batch=32, steps=60, epochs=1, rounds=6, patience=6, average=0.9, clip=100.0, validation_repeats=2, save_seconds=0.0)


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Dropout(0.1), nn.Linear(3, 1))


def squared(module, cells):
    return (module(INPUTS[cells]) - TARGETS[cells]).square().mean()


def run(module, loss=squared, config=CONFIG, cells=CELLS, groups=None, **more):
    return train(module, groups or [{"params": list(module.parameters())}], loss, cells, HELD_OUT, config, seed=5, **more)


def weights(module):
    return torch.cat([parameter.detach().ravel() for parameter in module.parameters()])


class Stop(Exception):
    pass


def stopping_after(rounds):
    def progress(done, text):
        if done == rounds:
            raise Stop

    return progress


def test_a_linear_regression_is_learnt():
    module = nn.Linear(3, 1)
    course = run(module, config=replace(CONFIG, steps=600, average=0.95))
    design = np.column_stack([INPUTS[CELLS], np.ones(160)])
    expected = np.linalg.lstsq(design, TARGETS[CELLS].numpy(), rcond=None)[0].ravel()
    np.testing.assert_allclose(weights(module), expected, atol=0.02)
    assert course.validation[-1] < 0.05
    assert not module.training


@pytest.mark.parametrize("rounds", [1, 2, 4, 6])
def test_an_interrupted_run_ends_where_the_uninterrupted_one_does(tmp_path, rounds):
    whole, stopped, resumed = linear(), linear(), linear()
    expected = run(whole)
    with pytest.raises(Stop):
        run(stopped, resume=tmp_path / "state", progress=stopping_after(rounds))
    seen = []
    course = run(resumed, resume=tmp_path / "state", progress=lambda done, text: seen.append(done))
    assert seen[0] == max(rounds, 1)  # the round it was stopped in is done again, those before are not
    assert torch.equal(weights(whole), weights(resumed))
    assert replace(course, seconds=0.0) == replace(expected, seconds=0.0)


@pytest.mark.parametrize("save_seconds", [0.0, 1e6])
def test_a_finished_run_is_taken_up_as_it_is(tmp_path, save_seconds):
    """However seldom its state is saved."""
    first, second, config = linear(), linear(), replace(CONFIG, save_seconds=save_seconds)
    run(first, config=config, resume=tmp_path / "state")
    course = run(second, config=config, resume=tmp_path / "state", loss=None)  # nothing is left to compute
    assert torch.equal(weights(first), weights(second))
    assert len(course.validation) == CONFIG.rounds


def test_an_interruption_while_saving_leaves_a_state_to_go_on_from(tmp_path, monkeypatch):
    whole, stopped, resumed = linear(), linear(), linear()
    run(whole)
    usual = json.dumps

    def failing(value, **more):
        if value["round"] == 3:
            raise Stop
        return usual(value, **more)

    monkeypatch.setattr("scld.train.json.dumps", failing)
    with pytest.raises(Stop):
        run(stopped, resume=tmp_path / "state")
    monkeypatch.undo()
    run(resumed, resume=tmp_path / "state")
    assert torch.equal(weights(whole), weights(resumed))


class Slope(nn.Module):
    """One weight that training pushes down without end, and that is best at -1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.trained: list[float] = []

    def loss(self, cells):
        if self.training:
            self.trained.append(float(self.weight.detach()))
            return self.weight.sum()
        return (self.weight + 1).square().sum()


def test_it_stops_early_and_returns_the_best_averaged_weights():
    module, averages = Slope(), []

    def loss(of, cells):
        if not of.training:
            averages.append(float(of.weight))
        return of.loss(cells)

    course = run(module, loss=loss, config=replace(CONFIG, rounds=50, steps=500, learning_rate=0.02, patience=3, validation_repeats=1))
    by_round = averages[:: len(averages) // len(course.validation)]
    best = int(np.argmin(course.validation))
    assert course.best_round == best
    assert len(course.validation) == best + 1 + 3  # patience, and no round more
    assert 0 < best < 46
    assert float(module.weight.detach()) == by_round[best]
    np.testing.assert_allclose(course.validation, (np.array(by_round) + 1) ** 2, rtol=1e-5)


def test_weights_are_averaged_exponentially_with_a_quick_start():
    module, averaged = Slope(), []

    def loss(of, cells):
        if not of.training:
            averaged.append(float(of.weight))
        return of.loss(cells)

    run(module, loss=loss, config=replace(CONFIG, rounds=1, steps=40, average=0.8, validation_repeats=1))
    expected = 0.0
    for step in range(0, 40, 4):  # of the weights after every fourth step
        decay = min(0.8, (1 + step) / (10 + step)) ** 4
        expected = decay * expected + (1 - decay) * module.trained[step + 1]
    assert module.trained[-1] < expected < 0
    np.testing.assert_allclose(averaged[0], expected, rtol=1e-5)


def test_the_held_out_loss_is_the_mean_over_cells_whatever_the_batches():
    """Forty cells twice, in batches of which the last is not full."""
    sizes = []

    def loss(module, cells):
        if not module.training:
            sizes.append(len(cells))
        return cells.double().mean() if not module.training else squared(module, cells)

    course = run(linear(), loss=loss, config=replace(CONFIG, rounds=1, batch=6))
    assert sizes == [24, 24, 24, 8]
    np.testing.assert_allclose(course.validation, HELD_OUT.double().mean())


def test_every_cell_comes_once_before_any_comes_twice():
    batches = []

    def loss(module, cells):
        if module.training:
            batches.append(cells)
        return squared(module, cells)

    run(linear(), loss=loss, config=replace(CONFIG, rounds=1, steps=10))
    assert [len(batch) for batch in batches] == [32] * 10
    first, second = torch.cat(batches[:5]), torch.cat(batches[5:])
    assert first.sort()[0].tolist() == second.sort()[0].tolist() == CELLS.tolist()
    assert first.tolist() != second.tolist()


def test_each_round_shuffles_anew():
    batches = []

    def loss(module, cells):
        if module.training:
            batches.append(cells)
        return squared(module, cells)

    run(linear(), loss=loss, config=replace(CONFIG, rounds=2, steps=10))
    assert torch.cat(batches[:5]).tolist() != torch.cat(batches[5:]).tolist()


def test_fewer_cells_than_a_batch_fill_it_by_coming_again():
    sizes = []

    def loss(module, cells):
        if module.training:
            sizes.append(cells.bincount(minlength=5).tolist())
        return squared(module, cells)

    run(linear(), loss=loss, config=replace(CONFIG, rounds=1, steps=2, batch=10), cells=torch.arange(5))
    assert sizes == [[2] * 5] * 2


def test_a_group_of_parameters_has_its_own_rate():
    module = nn.Linear(3, 1)
    still = module.bias.detach().clone()
    before = module.weight.detach().clone()
    run(module, groups=[{"params": [module.weight]}, {"params": [module.bias], "lr": 0.0}])
    assert torch.equal(module.bias, still)
    assert not torch.equal(module.weight, before)


def test_the_seed_decides_all_and_the_global_generator_is_left_alone():
    one, same, other = linear(), linear(), linear()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    run(one)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    run(same)
    train(other, [{"params": list(other.parameters())}], squared, CELLS, HELD_OUT, CONFIG, seed=6)
    assert torch.equal(weights(one), weights(same))
    assert not torch.equal(weights(one), weights(other))


def test_progress_tells_rounds_and_loss():
    told = []
    course = run(linear(), progress=lambda done, text: told.append((done, text)))
    assert [done for done, _ in told] == [1, 2, 3, 4, 5, 6, 6]  # the last fills the bar, also where a run stops early
    assert f"{min(course.validation):.4g}" in told[-2][1]
    assert told[-1][1].endswith("best of 6 rounds")


def test_a_training_that_never_gives_a_number_is_an_error():
    with pytest.raises(RequestError, match=r"held-out loss.*nan.*learning_rate"):
        run(linear(), loss=lambda module, cells: squared(module, cells) * float("nan"))
