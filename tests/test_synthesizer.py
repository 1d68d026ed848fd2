import json
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
import zarr
from small import QUICK, TINY, make_cells

import scld
from scld import Config, DataError, RequestError, Synthesizer

LABELS = ["cell_type", "donor"]


def fit(source, labels=LABELS, config=None, seed=0, **more):
    return Synthesizer(labels, config=config or Config.from_dict(TINY), seed=seed).fit(source, progress=False, **more)


def sample(synth, *args, **more):
    return synth.sample(*args, progress=False, **more)


def model(synth):
    """All that a fit makes, as bytes."""
    generator = synth._generator
    networks = [generator.autoencoder, generator.denoiser, generator.critic]
    tensors = [tensor for network in networks for tensor in network.state_dict().values()]
    tensors += [generator.centre, generator.scale, *generator.selector.tensors().values()]
    return b"".join(tensor.numpy().tobytes() for tensor in tensors), generator.library, synth.genes.to_dict(), synth.schema.to_json()


def check_same(one, other):
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(one.X, part), getattr(other.X, part))
    pd.testing.assert_frame_equal(one.obs, other.obs)
    pd.testing.assert_frame_equal(one.var, other.var)
    assert one.uns == other.uns


# Fitting


@pytest.fixture(scope="module")
def expected(synth):
    return model(synth)


def test_the_same_seed_is_the_same_model(cells, expected):
    assert model(fit(cells)) == expected
    assert model(fit(cells, seed=1))[0] != expected[0]


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_a_file_is_the_same_model(cells, expected, tmp_path, ending):
    path = tmp_path / f"my cells{ending}"
    cells.write_h5ad(path) if ending == ".h5ad" else ad.io.write_elem(zarr.open_group(path, mode="w", zarr_format=2), "/", cells)
    assert model(fit(path)) == expected
    assert model(fit(str(path))) == expected


@pytest.mark.parametrize("kind", [np.asarray, lambda dense: sp.csc_matrix(dense.astype(np.int64))], ids=["dense", "CSC of integers"])
def test_a_layer_is_the_same_model(cells, expected, kind):
    cells.layers["counts"] = kind(cells.X.toarray())
    cells.X = sp.csr_matrix(np.log1p(cells.X.toarray()))
    assert model(fit(cells, layer="counts")) == expected


def test_the_cells_handed_in_and_the_surroundings_are_left_alone(cells):
    before = cells.copy()
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()  # noqa: NPY002
    sample(fit(cells), 5)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert torch.get_num_threads() == states[2]
    check_same(cells, before)


def test_the_settings_reach_the_networks():
    synth = fit(make_cells(), config=Config.from_dict({**TINY, "autoencoder": {"latent": 5, "width": 24}}))
    assert len(synth._generator.centre) == 6
    assert synth._generator.autoencoder.gene_weights.shape[1] == 24
    assert synth.config.autoencoder.latent == 5


class Stop(Exception):
    pass


@pytest.mark.parametrize("part", ["autoencoder", "denoiser", "critic"])
def test_an_interrupted_fit_goes_on(cells, tmp_path, monkeypatch, part):
    """In the middle of any training; the end is that of an uninterrupted fit, and nothing of the interruption is left."""
    training = {**QUICK, "rounds": 4, "save_seconds": 0.0}
    config = Config.from_dict({**TINY, **dict.fromkeys(["autoencoder_training", "denoiser_training", "critic_training"], training)})
    whole = fit(cells, config=config)
    usual, rounds = scld.fitting.train, []

    def train(*args, stop, progress=None, **more):
        *args, inner = args

        def watched(done, text):
            rounds.append((args[-1].name, done))
            if stop and (args[-1].name, done) == (part, 3):
                raise Stop
            inner(done, text)

        return usual(*args, watched)

    path = tmp_path / "a.scld"
    monkeypatch.setattr("scld.fitting.train", lambda *args: train(*args, stop=True))
    with pytest.raises(Stop):
        fit(cells, config=config, checkpoint=path)
    with pytest.raises(scld.CheckpointError, match="interrupted"):
        scld.load(path)
    rounds.clear()
    monkeypatch.setattr("scld.fitting.train", lambda *args: train(*args, stop=False))
    resumed = fit(cells, config=config, checkpoint=path)
    assert (part, 1) not in rounds
    assert (part, 3) in rounds
    assert model(resumed) == model(whole)
    assert model(scld.load(path)) == model(whole)
    assert not (path / "resume").exists()


def test_an_unfinished_fit_of_other_cells_is_not_taken_up(cells, tmp_path, monkeypatch):
    path = tmp_path / "a.scld"
    monkeypatch.setattr("scld.fitting.train", lambda *args: (_ for _ in ()).throw(Stop))
    for other in (cells, cells):
        with pytest.raises(Stop):
            fit(other, checkpoint=path)
    shuffled = cells[np.random.default_rng(0).permutation(cells.n_obs)].copy()
    with pytest.raises(RequestError, match="unfinished fit of other data"):
        fit(shuffled, checkpoint=path)
    with pytest.raises(RequestError, match="unfinished fit of other data"):
        fit(cells, checkpoint=path, seed=1)


def test_a_failed_second_fit_does_not_leave_half_a_model(cells, config, monkeypatch):
    synth = fit(cells)
    before = model(synth)
    with pytest.raises(DataError, match="needs at least 20"):
        synth.fit(cells[:5].copy(), progress=False)
    assert model(synth) == before
    monkeypatch.setattr("scld.fitting.train", lambda *args: (_ for _ in ()).throw(Stop))
    with pytest.raises(Stop):
        synth.fit(make_cells(60, 7), progress=False)
    with pytest.raises(RequestError, match="not fitted"):
        sample(synth, 3)


def test_an_existing_checkpoint_is_refused_before_anything_is_read(saved):
    with pytest.raises(RequestError, match="exists already"):
        fit("no such file.h5ad", checkpoint=saved)


# Saving


def test_saved_loaded_sampled_gives_the_same_bytes(synth, saved):
    loaded = scld.load(saved)
    assert model(loaded) == model(synth)
    check_same(sample(loaded, 300, guidance=1.5), sample(synth, 300, guidance=1.5))
    assert (loaded.labels, loaded.seed, loaded.config) == (synth.labels, synth.seed, synth.config)
    assert json.dumps(loaded.summary) == json.dumps(synth.summary)


def test_home_and_spaces_in_paths(synth, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    synth.save("~/my model.scld")
    assert (tmp_path / "my model.scld" / "manifest.json").exists()
    assert model(scld.load("~/my model.scld")) == model(synth)


def test_a_device_that_is_not_here_is_not_called_damage(saved):
    for make in (lambda: scld.load(saved, device="warp"), lambda: Synthesizer(device="warp")):
        with pytest.raises(RequestError, match="device: 'warp'"):
            make()


# Sampling


def test_what_comes_out(synth):
    cells = sample(synth, 500)
    assert cells.shape == (500, 30)
    assert isinstance(cells.X, sp.csr_matrix)
    assert cells.X.has_canonical_format
    assert cells.X.dtype == np.float32
    assert (cells.X.data == np.rint(cells.X.data)).all()
    assert cells.X.data.min() >= 1
    assert list(cells.var_names) == [f"gene_{i}" for i in range(30)]
    assert cells.obs_names.is_unique
    assert list(cells.obs) == LABELS
    for label, categories in {"cell_type": ["B", "NK", "T"], "donor": [0, 1]}.items():
        assert list(cells.obs[label].cat.categories) == categories


def test_a_gene_that_training_never_saw_comes_back_as_zeros(synth):
    cells = sample(synth, 500)
    assert cells.X[:, 4].nnz == 0
    assert (np.delete(np.asarray(cells.X.sum(axis=0)).ravel(), 4) > 0).all()
    assert synth.genes["seen"].tolist() == [i != 4 for i in range(30)]


def test_the_same_seed_is_the_same_cells_and_another_is_not(synth):
    check_same(sample(synth, 20, seed=3), sample(synth, 20, seed=3))
    assert (sample(synth, 20, seed=3).X != sample(synth, 20, seed=4).X).nnz


@pytest.mark.parametrize("size", [64, 257, 4096])
def test_a_stream_holds_the_cells_of_a_sample(synth, size):
    pieces = list(synth.stream(700, batch_size=size, guidance=2.0, progress=False))
    assert [piece.n_obs for piece in pieces[:-1]] == [size] * (len(pieces) - 1)
    whole = sample(synth, 700, guidance=2.0)
    np.testing.assert_array_equal(sp.vstack([piece.X for piece in pieces]).toarray(), whole.X.toarray())
    pd.testing.assert_frame_equal(pd.concat([piece.obs for piece in pieces]), whole.obs)
    assert all(piece.uns == whole.uns for piece in pieces)


def test_a_sample_of_several_pieces_is_put_together(synth, monkeypatch):
    whole = sample(synth, 700)
    usual = Synthesizer.stream
    monkeypatch.setattr(Synthesizer, "stream", lambda self, *args, **more: usual(self, *args, batch_size=100, **more))
    check_same(sample(synth, 700), whole)


def test_two_streams_side_by_side_give_what_each_gives_alone(synth):
    threads = torch.get_num_threads()
    pairs = list(zip(*(synth.stream(600, seed=seed, batch_size=200, progress=False) for seed in (0, 1)), strict=True))
    for seed, pieces in enumerate(zip(*pairs, strict=True)):
        np.testing.assert_array_equal(sp.vstack([piece.X for piece in pieces]).toarray(), sample(synth, 600, seed=seed).X.toarray())
    assert torch.get_num_threads() == threads


def test_where_fixes_labels_and_the_others_follow(synth):
    assert set(sample(synth, 50, where={"cell_type": "NK"}).obs["cell_type"]) == {"NK"}
    assert set(sample(synth, 100, where={"cell_type": ["NK", "B"]}).obs["cell_type"]) == {"NK", "B"}
    both = sample(synth, 50, where={"cell_type": "T", "donor": 1}).obs
    assert (set(both["cell_type"]), set(both["donor"])) == ({"T"}, {1})
    assert set(sample(synth, 50, where={"donor": "1"}).obs["donor"]) == {1}


def test_open_labels_follow_their_frequencies_given_the_others(config):
    cells = make_cells(120)
    cells.obs["donor"] = np.where(cells.obs["cell_type"] == "B", np.arange(120) % 12 == 0, True).astype(int)
    real = cells.obs["donor"][cells.obs["cell_type"] == "B"].mean()
    drawn = sample(fit(cells), 2000, where={"cell_type": "B"}).obs["donor"].astype(int).mean()
    assert real == 0.25
    assert abs(drawn - real) < 5 * np.sqrt(real * (1 - real) / 2000)
    types = sample(fit(cells), 2000).obs["cell_type"].value_counts(normalize=True)
    assert (types - 1 / 3).abs().max() < 5 * np.sqrt(2 / 9 / 2000)


def test_a_table_is_honoured_row_by_row(synth):
    table = pd.DataFrame({"donor": [1, 0, np.nan, 1, np.nan], "other": 0, "cell_type": ["T", None, "NK", "B", None]}, index=["v", "w", "x", "y", "z"])
    cells = sample(synth, obs=table)
    assert list(cells.obs_names) == list("vwxyz")
    assert list(cells.obs) == LABELS
    for label in LABELS:
        given = table[label].notna()
        assert cells.obs[label][given].astype(str).tolist() == [str(value).removesuffix(".0") for value in table[label][given]]
        assert cells.obs[label].notna().all()
    check_same(cells, sample(synth, obs=table))


def test_a_cell_is_made_with_the_labels_it_carries(synth):
    """And with no other's: where two tables agree, so do the cells."""
    one = pd.DataFrame({"cell_type": "B", "donor": 0}, index=map(str, range(100)))
    other = one.assign(cell_type=["B"] * 30 + ["T"] * 70)
    difference = sample(synth, obs=one, guidance=20).X - sample(synth, obs=other, guidance=20).X
    assert difference[:30].nnz == 0
    assert difference[30:].nnz > 0


def test_a_table_may_leave_a_whole_label_out(synth):
    cells = sample(synth, obs=pd.DataFrame({"cell_type": ["B", "T"] * 100}))
    assert cells.obs["cell_type"].tolist() == ["B", "T"] * 100
    assert set(cells.obs["donor"]) == {0, 1}


def test_a_table_may_ask_for_what_training_never_saw_together(config):
    cells = make_cells()
    cells.obs["donor"] = (cells.obs["cell_type"] == "B").astype(int)
    synth = fit(cells)
    with pytest.raises(RequestError, match=r"no training cell has cell_type='B', donor=0; .*unseen=True"):
        sample(synth, 3, where={"cell_type": "B", "donor": 0})
    made = sample(synth, obs=pd.DataFrame({"cell_type": ["B", "B"], "donor": [0, 1]})).obs
    assert made.iloc[0].tolist() == ["B", 0, False]
    assert made["seen_in_training"].tolist() == [False, True]


def without_b_in_donor_0():
    cells = make_cells()
    cells.obs["donor"] = (cells.obs["cell_type"] == "B").astype(int)
    cells.obs["treated"] = np.where(cells.obs["cell_type"] == "NK", False, np.arange(120) % 2 == 0)
    return cells


def test_a_request_may_ask_for_what_training_never_saw_together():
    synth = fit(without_b_in_donor_0())
    made = sample(synth, 40, where={"cell_type": "B", "donor": 0}, unseen=True).obs
    assert (set(made["cell_type"]), set(made["donor"]), set(made["seen_in_training"])) == ({"B"}, {0}, {False})
    assert made["seen_in_training"].dtype == bool
    usual = {"where": {"cell_type": "B", "donor": 1}}
    check_same(sample(synth, 9, **usual), sample(synth, 9, **usual, unseen=True))
    assert "seen_in_training" not in sample(synth, 9, **usual, unseen=True).obs


def test_the_mark_of_unseen_cells_is_in_every_piece():
    synth = fit(without_b_in_donor_0())
    table = pd.DataFrame({"cell_type": ["B"] * 4 + ["T"], "donor": [1, 1, 1, 1, 1]})
    marks = [piece.obs["seen_in_training"].tolist() for piece in synth.stream(obs=table, batch_size=2, progress=False)]
    assert marks == [[True, True], [True, True], [False]]


def test_open_labels_follow_the_cells_that_have_most_of_what_is_fixed():
    """B (treated by halves) and donor 0 (T by halves, NK never) were never together: the open label is drawn from all that have one of them."""
    cells = without_b_in_donor_0()
    synth = fit(cells, labels=["cell_type", "donor", "treated"])
    made = sample(synth, 2000, where={"cell_type": "B", "donor": 0}, unseen=True).obs
    real = cells.obs["treated"].mean()  # every cell has one of the two
    assert abs(made["treated"].astype(int).mean() - real) < 5 * np.sqrt(real * (1 - real) / 2000)
    assert set(made["cell_type"]) == {"B"}
    assert set(made["donor"]) == {0}
    listed = sample(synth, 200, where={"cell_type": ["B"], "donor": [0], "treated": [True]}, unseen=True).obs
    assert set(listed["treated"]) == {True}


def test_a_label_by_the_name_of_the_mark_does_not_clash():
    cells = without_b_in_donor_0()
    cells.obs["seen_in_training"] = np.where(cells.obs["cell_type"] == "B", "yes", "no")
    made = sample(fit(cells, labels=["cell_type", "seen_in_training"]), 3, where={"cell_type": "B", "seen_in_training": "no"}, unseen=True).obs
    assert made.iloc[0].tolist() == ["B", "no", False]
    assert list(made) == ["cell_type", "seen_in_training", "seen_in_training_"]


@pytest.mark.parametrize("labels", [[], "treated", ["treated"], ["donor", "cell_type", "treated"]], ids=str)
def test_any_number_and_kind_of_labels(cells, labels, tmp_path):
    synth = fit(cells, labels=labels)
    made = sample(synth, 200, guidance=None)
    assert list(made.obs) == synth.labels == ([labels] if isinstance(labels, str) else labels)
    for name in synth.labels:
        assert set(made.obs[name]) == set(cells.obs[name])
        assert [type(value) for value in made.obs[name].cat.categories] == [type(value) for value in synth.schema.labels[synth.labels.index(name)].categories]
        value = cells.obs[name].iloc[0]
        assert set(sample(synth, 5, where={name: value}).obs[name]) == {value}
    made.write_h5ad(tmp_path / "made.h5ad")
    back = ad.read_h5ad(tmp_path / "made.h5ad")
    pd.testing.assert_frame_equal(back.obs, made.obs)


def test_cells_without_a_label_are_learnt_from_and_come_back(cells):
    cells.obs["donor"] = cells.obs["donor"].astype("Int64").mask(np.arange(120) % 3 == 0)
    donors = sample(fit(cells), 1000).obs["donor"]
    assert abs(donors.isna().mean() - 1 / 3) < 5 * np.sqrt(2 / 9 / 1000)
    assert set(donors.dropna()) == {0, 1}


def test_the_settings_of_a_sample_go_with_it(synth, tmp_path):
    cells = sample(synth, 4, where={"cell_type": ["B", "T"], "donor": np.int64(1)}, guidance={"donor": 3}, steps=6, seed=9)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    noted = ad.read_h5ad(tmp_path / "cells.h5ad").uns["scld"]
    assert noted["version"] == scld.__version__
    assert (noted["seed"], noted["steps"]) == (9, 6)
    assert json.loads(noted["guidance"]) == {"cell_type": 1.0, "donor": 3.0}
    assert json.loads(noted["where"])["cell_type"] == ["B", "T"]
    assert str(json.loads(noted["where"])["donor"]) == "1"


def test_guidance_for_one_label_leaves_the_others_at_the_default(synth):
    usual = sample(synth, 50)
    check = lambda **more: (sample(synth, 50, **more).X != usual.X).nnz  # noqa: E731
    assert check(guidance=1.0) == check(guidance={"donor": 1}) == check(guidance={}) == 0
    assert check(guidance={"donor": 3}) > 0
    assert check(guidance={"donor": 3}) != check(guidance=3)


def test_guidance_within_an_interval(synth):
    """All of the levels are no interval, none of them are no guidance; what is asked for is noted, and may be the default."""
    check = lambda one, other: (sample(synth, 50, **one).X != sample(synth, 50, **other).X).nnz  # noqa: E731
    assert check({"guidance": 3.0}, {"guidance": 3.0, "guidance_interval": (0, float("inf"))}) == 0
    assert check({"guidance": 3.0, "guidance_interval": (1.0, 1.0)}, {"guidance": 1.0}) == 0
    assert check({"guidance": 3.0, "guidance_interval": (0.05, 1.0)}, {"guidance": 3.0}) > 0
    assert json.loads(sample(synth, 3, guidance_interval=(0.5, 2)).uns["scld"]["guidance_interval"]) == [0.5, 2.0]
    within = Config.from_dict({**TINY, "sampling": {"steps": 4, "guidance": 3.0, "guidance_low": 1.0, "guidance_high": 1.0}})
    assert (sample(fit(make_cells(), config=within), 50).X != sample(synth, 50).X).nnz == 0


# Post-guidance

POSTS = ["off", "correct", "select", "both"]


@pytest.fixture
def adjusted(saved):
    """The same model under other settings of sampling."""

    def adjust(**settings):
        loaded = scld.load(saved)
        loaded.config = replace(loaded.config, sampling=replace(loaded.config.sampling, **settings))
        return loaded

    return adjust


def test_each_kind_gives_cells_of_its_own_and_is_noted(synth, tmp_path):
    made = {post: sample(synth, 100, post=post) for post in POSTS}
    for i, one in enumerate(POSTS):
        assert all((made[one].X != made[other].X).nnz for other in POSTS[:i])
        pd.testing.assert_frame_equal(made[one].obs, made["off"].obs)
        made[one].write_h5ad(tmp_path / "cells.h5ad")
        noted, sampling = ad.read_h5ad(tmp_path / "cells.h5ad").uns["scld"], synth.config.sampling
        assert noted["correction"] == (sampling.correction if one in ("correct", "both") else 0)
        assert noted["candidates"] == (sampling.candidates if one in ("select", "both") else 1)


def test_off_is_a_single_candidate_and_no_correction(synth, adjusted):
    off = sample(synth, 300, post="off")
    check_same(off, sample(adjusted(candidates=1), 300, post="select"))
    check_same(off, sample(adjusted(correction=0.0), 300, post="correct"))
    assert (off.X != sample(synth, 300, post="both").X).nnz


@pytest.mark.parametrize("post", POSTS)
def test_what_is_left_out_is_the_models_own_kind(adjusted, post):
    model_ = adjusted(post=post)
    check_same(sample(model_, 50), sample(model_, 50, post=post))


@pytest.mark.parametrize("post", ["select", "both"])
def test_the_same_bytes_for_any_number_of_threads_and_any_batch_size(synth, post):
    """And whether there are more cells or not."""
    before, whole = torch.get_num_threads(), sample(synth, 700, post=post, seed=2)
    try:
        for threads, size in [(1, 64), (2, 300), (2, 1)]:
            torch.set_num_threads(threads)
            pieces = list(synth.stream(700 if size > 1 else 3, post=post, seed=2, batch_size=size, progress=False))
            X = sp.vstack([piece.X for piece in pieces])
            assert (whole.X[: X.shape[0]] != X).nnz == 0
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("post", ["correct", "select", "both"])
def test_saved_and_loaded_the_critics_are_the_same(synth, saved, post):
    check_same(sample(scld.load(saved), 300, post=post), sample(synth, 300, post=post))


@pytest.mark.parametrize("post", POSTS)
def test_post_guidance_reaches_all_that_samples(synth, adjusted, post):
    """What is made is what the model's own kind would give; a transfer at full strength is a sample."""
    cells, own = make_cells(90), adjusted(post=post)
    whole = synth.transfer(cells, {"cell_type": "B"}, strength=1.0, post=post, progress=False)
    assert (whole.X != sample(synth, obs=cells.obs.assign(cell_type="B"), post=post).X).nnz == 0
    for made, expected in [
        (synth.augment(cells, "cell_type", 60, post=post, progress=False), own.augment(cells, "cell_type", 60, progress=False)),
        (synth.transfer(cells, {"cell_type": "B"}, post=post, progress=False), own.transfer(cells, {"cell_type": "B"}, progress=False)),
        (
            synth.interpolate({"cell_type": "B"}, {"cell_type": "T"}, 50, post=post, progress=False),
            own.interpolate({"cell_type": "B"}, {"cell_type": "T"}, 50, progress=False),
        ),
    ]:
        check_same(made, expected)
        assert made.uns["scld"]["correction"] == (synth.config.sampling.correction if post in ("correct", "both") else 0)


def test_a_path_is_corrected_but_not_selected(synth):
    """Cells on the way have no labels, and the selector goes by them."""
    path = {post: synth.interpolate({"cell_type": "B"}, {"cell_type": "T"}, 100, post=post, progress=False) for post in POSTS}
    check_same(path["off"], path["select"])
    check_same(path["correct"], path["both"])
    assert (path["off"].X != path["correct"].X).nnz
    assert {made.uns["scld"]["candidates"] for made in path.values()} == {1}


def test_steps_tell(synth):
    assert (sample(synth, 50, steps=1).X != sample(synth, 50, steps=8).X).nnz


NAN = float("nan")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, ["n: got None", "from 1"]),
        ({"n": 0}, ["n: got 0", "from 1"]),
        ({"n": -3}, ["n: got -3"]),
        ({"n": 2.5}, ["n: got 2.5"]),
        ({"n": "9"}, ["n: got '9'"]),
        ({"n": True}, ["n: got True"]),
        ({"n": 3, "where": {"cell_typ": "B"}}, ["where: 'cell_typ'", "did you mean 'cell_type'?"]),
        ({"n": 3, "where": {"cell_type": "nk"}}, ["no category 'nk'", "did you mean 'NK'?"]),
        ({"n": 3, "where": {"cell_type": []}}, ["empty list"]),
        ({"n": 3, "where": {0: "B"}}, ["where: 0"]),
        ({"n": 3, "where": "cell_type=B"}, ["where: got str"]),
        ({"n": 3, "guidance": {"donors": 2}}, ["guidance: 'donors'", "did you mean 'donor'?"]),
        ({"n": 3, "guidance": {3: 2}}, ["guidance: 3"]),
        ({"n": 3, "guidance": -1}, ["guidance: got -1", "0 to 100"]),
        ({"n": 3, "guidance": NAN}, ["guidance: got nan"]),
        ({"n": 3, "guidance": "2"}, ["guidance: got '2'"]),
        ({"n": 3, "guidance": {"donor": None}}, ["guidance: got None"]),
        ({"n": 3, "guidance_interval": (2.0, 1.0)}, ["guidance_interval: got (2.0, 1.0)", "low <= high", "down to 0"]),
        ({"n": 3, "guidance_interval": (-1, 1.0)}, ["guidance_interval: got (-1, 1.0)"]),
        ({"n": 3, "guidance_interval": (0, NAN)}, ["guidance_interval: got (0, nan)"]),
        ({"n": 3, "guidance_interval": 1.0}, ["guidance_interval: got 1.0"]),
        ({"n": 3, "guidance_interval": "12"}, ["guidance_interval: got '12'"]),
        ({"n": 3, "guidance_interval": (1, 2, 3)}, ["guidance_interval: got (1, 2, 3)"]),
        ({"n": 3, "post": "selct"}, ["post: got 'selct'", "'off', 'correct', 'select', 'both'", "did you mean 'select'?"]),
        ({"n": 3, "post": True}, ["post: got True", "'off'"]),
        ({"n": 3, "post": ["select"]}, ["post: got ['select']", "'both'"]),
        ({"n": 3, "steps": 0}, ["steps: got 0", "from 1"]),
        ({"n": 3, "steps": 10**9}, ["steps: got 1000000000", "to 10,000"]),
        ({"n": 3, "seed": -1}, ["seed: got -1", "from 0"]),
        ({"n": 3, "seed": 2**64}, ["seed: got"]),
        ({"n": 3, "seed": "a"}, ["seed: got 'a'"]),
        ({"obs": {"cell_type": ["B"]}}, ["obs: got dict", "DataFrame"]),
        ({"obs": pd.DataFrame({"cell_type": []})}, ["obs: 0 rows"]),
        ({"obs": pd.DataFrame({"x": [1]})}, ["obs: 1 rows with columns ['x']", "cell_type"]),
        ({"obs": pd.DataFrame({"celltype": ["B"], "donor": [1]})}, ["obs: no column 'cell_type'", "did you mean 'celltype'?"]),
        ({"obs": pd.DataFrame([["B", "T"]], columns=["cell_type"] * 2)}, ["obs: 2 columns are named 'cell_type'"]),
        ({"obs": pd.DataFrame({"cell_type": ["b cell"]})}, ["no category 'b cell'"]),
        ({"obs": pd.DataFrame({"cell_type": [["B"]]})}, ["cell_type", "cannot be categories"]),
        ({"n": 1, "obs": pd.DataFrame({"cell_type": ["B"]})}, ["obs: got n or where as well"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_request_that_cannot_be_done_is_one_clear_line(synth, request_, words):
    with pytest.raises(DataError) as caught:
        sample(synth, **request_)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_stream_refuses_at_once(synth):
    with pytest.raises(RequestError, match="n: got 0"):
        synth.stream(0)
    with pytest.raises(RequestError, match="batch_size: got 0"):
        synth.stream(5, batch_size=0)


def test_no_labels_no_steering(cells):
    synth = fit(cells, labels=[])
    for wrong in ({"where": {"cell_type": "B"}}, {"guidance": {"cell_type": 2}}, {"guidance": 2.0}, {"guidance_interval": (0.0, 1.0)}):
        with pytest.raises(RequestError, match=r"labels"):
            sample(synth, 3, **wrong)
    with pytest.raises(RequestError, match="without labels"):
        sample(synth, obs=pd.DataFrame({"cell_type": ["B"]}))
    assert sample(synth, 3).obs.shape == (3, 0)


def test_before_a_fit_there_is_nothing(tmp_path):
    synth = Synthesizer(["cell_type"])
    for call in (lambda: synth.sample(3), lambda: synth.stream(3), lambda: synth.save(tmp_path / "a.scld")):
        with pytest.raises(RequestError, match=r"not fitted yet; call fit"):
            call()


@pytest.mark.parametrize("seed", [-1, 1.5, "a", None, 2**64])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(RequestError, match="seed: got"):
        Synthesizer(seed=seed)


def test_the_largest_seeds_do(cells):
    synth = fit(cells, seed=2**63 - 1)
    assert sample(synth, 3, seed=2**63 - 1).n_obs == 3


def test_too_few_cells(cells):
    with pytest.raises(DataError, match=r"X: 19 cells; a fit needs at least 20"):
        fit(cells[:19].copy())


# Cells out of the ordinary


def odd(counts, **obs):
    """Cells with these counts and labels."""
    table = pd.DataFrame(obs, index=[f"c{i}" for i in range(len(counts))])
    return ad.AnnData(sp.csr_matrix(np.asarray(counts, dtype=np.float32)), obs=table, var=pd.DataFrame(index=[f"g{i}" for i in range(np.shape(counts)[1])]))


RANDOM = np.random.default_rng(0)
ODD = {
    "the fewest cells": RANDOM.poisson(2, (20, 5)) + 1,
    "a single gene": RANDOM.poisson(5, (30, 1)) + 1,
    "a single gene that others join unseen": np.hstack([RANDOM.poisson(5, (30, 1)) + 1, np.zeros((30, 3))]),
    "all cells the same": np.ones((30, 4)),
    "one count a cell": np.eye(30, 6)[:, np.arange(6)] + np.eye(30, 6, -6) + np.eye(30, 6, -12) + np.eye(30, 6, -18) + np.eye(30, 6, -24),
    "one huge cell": np.vstack([np.full((1, 4), 2**24 - 1), RANDOM.poisson(2, (40, 4)) + 1]),
    "one gene takes nearly all": np.hstack([RANDOM.poisson(1e6, (40, 1)), RANDOM.poisson(0.1, (40, 5))]),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_counts(kind):
    cells = odd(ODD[kind])
    made = sample(fit(cells, labels=[]), 50)
    assert np.isfinite(made.X.data).all()
    assert made.X.sum(axis=1).min() >= 1
    assert made.shape == (50, cells.n_vars)


NAMES = ["a=b", "a/b", "X", "obs", "zelltyp ü", "two words", "n", "'quoted\"", "_index_", "labels", "0", "cell_type."]


@pytest.mark.filterwarnings("ignore:Forward slashes")
@pytest.mark.parametrize("name", NAMES)
def test_odd_names_of_labels_and_categories(name, tmp_path):
    counts = RANDOM.poisson(2, (30, 5)) + 1
    values = np.array(["NA", "a=b/c", "Ü\n"])[np.arange(30) % 3]
    synth = fit(odd(counts, **{name: values}), labels=[name])
    synth.save(tmp_path / "a.scld")
    loaded = scld.load(tmp_path / "a.scld")
    for value in values[:3]:
        assert set(sample(loaded, 5, where={name: value}, guidance={name: 2.0}).obs[name]) == {value}


def test_one_category_alone_is_a_label_too(cells):
    cells.obs["batch"] = "only"
    made = sample(fit(cells, labels=["batch"]), 10, guidance=2.0)
    assert set(made.obs["batch"]) == {"only"}


def test_categories_keep_their_order_and_those_without_cells_are_gone(cells):
    cells.obs["stage"] = pd.Categorical(np.array(["late", "early"])[np.arange(120) % 2], categories=["early", "mid", "late"], ordered=True)
    stage = sample(fit(cells, labels=["stage"]), 20).obs["stage"]
    assert list(stage.cat.categories) == ["early", "late"]
    assert stage.cat.ordered
