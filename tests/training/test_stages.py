import json

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from toy import QUICK, TINY, make_cells

from scld import Config
from scld.generation.post_guidance import Discriminator
from scld.model.latents import Latents
from scld.training.stages import Fit, held_out_split

CPU = torch.device("cpu")


def fit_of(config=TINY, labels=("donor", "treated"), seed=0, **more):
    """A fit of 120 cells of 29 genes."""
    cells = make_cells()
    counts = sp.csr_matrix(cells.X)[:, np.arange(30) != 4]
    codes = cells.obs[list(labels)].to_numpy().astype(np.int64)
    return Fit(counts, codes, (2,) * len(labels), Config.from_dict(config), seed, CPU, **more)


# The held-out cells


def split(codes, share, seed=0):
    cells, held_out = (part.numpy() for part in held_out_split(np.asarray(codes), share, seed))
    assert sorted([*cells, *held_out]) == list(range(len(codes)))
    return cells, held_out


def test_a_rare_category_keeps_all_its_cells_for_training():
    codes = np.repeat([0, 1, 2], [100, 5, 40])[:, None]
    for seed in range(20):
        _, held_out = split(codes, 0.1, seed)
        assert 1 not in codes[held_out]
        assert len(held_out) == 14


def test_a_cell_that_is_rare_in_any_label_is_kept_for_training():
    codes = np.zeros((200, 2), np.int64)
    codes[:10, 0], codes[190:, 1] = 1, 1
    for seed in range(20):
        _, held_out = split(codes, 0.5, seed)
        assert held_out.min() >= 10
        assert held_out.max() < 190
        assert len(held_out) == 90


@pytest.mark.parametrize(("cells", "eligible"), [(19, 100), (20, 120)])
def test_a_category_is_rare_below_20_cells(cells, eligible):
    codes = np.repeat([0, 1], [100, cells])[:, None]
    assert len(split(codes, 0.5)[1]) == eligible // 2


def test_where_all_categories_are_rare_cells_come_from_the_most_common():
    codes = np.repeat([0, 1, 2], [10, 5, 3])[:, None]
    for seed in range(20):
        _, held_out = split(codes, 0.1, seed)
        assert len(held_out) == 1
        assert codes[held_out[0]] == 0


def test_cells_without_a_label_are_a_category():
    codes = np.repeat([-1, 0], [5, 100])[:, None]
    for seed in range(20):
        assert split(codes, 0.5, seed)[1].min() >= 5


@pytest.mark.parametrize(("share", "number"), [(0.001, 1), (0.1, 10), (0.5, 50)])
def test_without_labels_a_share_of_all_cells_is_held_out_and_one_at_least(share, number):
    assert len(split(np.zeros((100, 0), np.int64), share)[1]) == number


def test_the_seed_determines_the_held_out_cells():
    codes = np.zeros((100, 1), np.int64)
    one, same, other = (split(codes, 0.1, seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


# A fit


def test_the_history_has_the_number_of_cells_and_what_each_training_did():
    _, history = fit_of().run()
    assert list(history) == ["cells", "autoencoder", "denoiser"]
    assert history["cells"] == 120
    for name in ("autoencoder", "denoiser"):
        training = history[name]
        assert sorted(training) == ["best_interval", "seconds", "steps", "validation"]
        assert len(training["validation"]) == 2
        assert np.isfinite(training["validation"]).all()
        assert training["validation"][training["best_interval"]] == min(training["validation"])
        assert training["steps"] == QUICK["steps"]
        assert training["seconds"] > 0
    assert json.loads(json.dumps(history))["cells"] == 120


def parts(fit):
    return fit.run()[0].parts()


def same(one, other):
    return all(
        torch.equal(tensor, other[name][key])
        for name, tensors in one.items()
        for key, tensor in tensors.items()
    )


def test_the_seed_determines_every_byte_and_torchs_own_state_is_left_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = parts(fit_of())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert same(one, parts(fit_of()))
    assert not same(one, parts(fit_of(seed=1)))


def test_every_byte_is_the_same_for_any_number_of_threads(threads):
    results = []
    for number in (1, 2, 3):
        threads(number)
        results.append(parts(fit_of()))
        assert torch.get_num_threads() == number
    assert same(results[0], results[1])
    assert same(results[0], results[2])


class Stop(Exception):
    pass


@pytest.mark.parametrize("stage", ["1/4", "2/4", "3/4", "4/4"])
def test_a_fit_interrupted_in_any_stage_ends_as_an_uninterrupted_one(tmp_path, stage):
    now = {**TINY["denoiser_training"], "save_seconds": 0.0}
    config = {**TINY, "autoencoder_training": now, "denoiser_training": now}

    def stopping(name, total):
        def update(done, text):
            if name.startswith(stage):
                raise Stop

        return update

    tmp_path.joinpath("resume").mkdir()
    with pytest.raises(Stop):
        fit_of(config, resume=tmp_path / "resume", bar=stopping).run()
    assert same(parts(fit_of(config)), parts(fit_of(config, resume=tmp_path / "resume")))


def test_each_stage_has_a_progress_bar():
    bars = {}

    def bar(name, total):
        bars[name] = []
        return lambda done, text: bars[name].append(done / total)

    fit_of(bar=bar).run()
    names = ["autoencoder", "denoiser", "calibration", "post-guidance"]
    assert list(bars) == [f"{number}/4 {name}" for number, name in enumerate(names, 1)]
    assert all(done[-1] == 1 for done in bars.values())


def rows(counts):
    return {row.tobytes() for row in counts.toarray()}


def test_the_discriminator_learns_from_real_cells_and_generated_cells_with_their_labels(
    monkeypatch,
):
    """From some where they are many; the components come from generated cells of their own."""
    calls, usual = [], Discriminator.fit

    def recording(*arguments):
        calls.append(arguments)
        return usual(*arguments)

    monkeypatch.setattr(Discriminator, "fit", recording)
    changes = {"max_cells": 50, "generated": 3}
    config = {**TINY, "discriminator": {**TINY["discriminator"], **changes}}
    fit = fit_of(config)
    fit.run()
    ((reference, training, held_out, *_),) = calls
    sizes = [side.counts.shape[0] for side in (*training, *held_out)]
    assert [reference.shape[0], *sizes] == [50, 50, 150, 12, 36]
    cells = zip(fit.counts.toarray(), fit.codes.tolist(), strict=True)
    known = {row.tobytes(): codes for row, codes in cells}
    for real, generated in (training, held_out):
        assert [known[row.tobytes()] for row in real.counts.toarray()] == real.codes.tolist()
        np.testing.assert_array_equal(generated.codes, np.tile(real.codes, (3, 1)))
        assert len(rows(reference) & rows(generated.counts)) < 3
        assert len(rows(real.counts) & rows(generated.counts)) < 3
    unseen = held_out_split(fit.codes, fit.config.held_out, 0)[1].numpy()
    assert rows(held_out.real.counts) == rows(fit.counts[unseen])
    assert not rows(training.real.counts) & rows(held_out.real.counts)


OFF = {**TINY, "sampling": {**TINY["sampling"], "post": "off"}}


def test_without_post_guidance_there_is_no_discriminator_and_all_else_is_the_same():
    without, with_it = parts(fit_of(OFF)), parts(fit_of())
    assert with_it.pop("discriminator")
    assert same(without, with_it)


@pytest.mark.parametrize(
    ("settings", "labels", "changed"),
    [
        ({}, ("donor",), {"linear", "profiles"}),
        ({"calibration_cells": 0}, ("donor",), {"linear", "profiles"}),
        ({"spread_cells": 0}, ("donor",), {"profiles"}),
        ({}, (), {"linear", "output.bias"}),
        ({"calibration_cells": 0, "spread_cells": 0}, ("donor",), set()),
    ],
)
def test_calibration_changes_the_decoder_as_far_as_it_is_asked_to(settings, labels, changed):
    fit = fit_of({**OFF, "autoencoder": {**TINY["autoencoder"], **settings}}, labels)
    generator, _ = fit.run()
    before = {name: t.clone() for name, t in generator.autoencoder.state_dict().items()}
    latents = Latents.of(generator.autoencoder, fit.counts, fit.codes, fit.device)
    calibrated = fit._calibrate(generator, latents)
    mapped = not torch.equal(calibrated.latent_map.matrix, torch.eye(len(generator.centre)))
    assert mapped == (fit.config.autoencoder.spread_cells > 0)
    after = generator.autoencoder.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == changed


def test_the_guidance_weight_of_the_settings_does_not_change_the_fit():
    """Real cells are compared with cells generated at weight 1, whatever is the default later."""
    guided = {**OFF, "sampling": {**OFF["sampling"], "guidance": 3.0}}
    assert same(parts(fit_of(OFF)), parts(fit_of(guided)))


def test_a_fit_learns_the_same_where_gradients_are_disabled():
    """Another library in the same process may have done so."""
    usual, _ = fit_of().run()
    with torch.no_grad():
        generator, _ = fit_of().run()
    for name, tensors in usual.parts().items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, generator.parts()[name][key])
