import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from small import make_cells

import scld
from scld import Config, DataError, RequestError, Synthesizer
from scld.generator import Generator

TYPES = ["B", "NK", "T"]
SHORT = {"rounds": 4, "steps": 600, "epochs": 1, "learning_rate": 0.01, "batch": 64, "average": 0.95}
SMALL = {
    "autoencoder": {"latent": 4, "width": 32},
    "denoiser": {"width": 64},
    "critic": {"width": 16},
    "selector": {"components": 10, "generated": 1, "trees": 20},
    "autoencoder_training": SHORT,
    "denoiser_training": {**SHORT, "steps": 400},
    "critic_training": {**SHORT, "steps": 100},
}
FORMS = {
    "CSR": lambda x: x,
    "CSC": sp.csc_matrix,
    "dense": lambda x: x.toarray(),
    "integers": lambda x: x.astype(np.int32),
    "bytes": lambda x: x.astype(np.uint8),
}


def bytes_of(counts):
    parts = [counts] if isinstance(counts, np.ndarray) else [counts.data, counts.indices]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


def with_rare(b=9):
    """Few cells of type B, and columns of every kind that are no labels."""
    cells = make_cells()
    cells = cells[np.append(np.flatnonzero(cells.obs["cell_type"] == "B")[:b], np.flatnonzero(cells.obs["cell_type"] != "B"))].copy()
    n = cells.n_obs
    cells.obs = cells.obs.assign(depth=np.arange(n), flag=True, share=np.arange(n) / n, text=[f"t{i}" for i in range(n)])
    cells.var["length"] = range(30)
    return cells


@pytest.fixture(scope="module")
def learnt():
    """Three types far apart, learnt well enough to tell; of one there are 5 cells."""
    random, cell = np.random.default_rng(0), np.repeat([0, 1, 2], [150, 150, 5])
    means = 8.0 * np.repeat(np.eye(4)[:3], 10, axis=1) + 0.5  # ten markers each, and ten genes that are no markers
    counts = random.poisson(means[cell] * random.gamma(20, 0.05, (305, 1))).astype(np.float32)
    counts[:, 0] += 1
    obs = pd.DataFrame(
        {"cell_type": np.array(["a", "b", "rare"])[cell], "batch": np.array(["x", "y"])[np.arange(305) % 2]}, index=[f"c{i}" for i in range(305)]
    )
    cells = ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(40)]))
    return cells, Synthesizer(["cell_type", "batch"], config=Config.from_dict(SMALL)).fit(cells, progress=False)


def shares(cells):
    """Mean composition of some cells."""
    return np.asarray(cells.X.sum(axis=0)).ravel() / cells.X.sum()


def nearest_type(cells, real):
    """For each cell, the type whose mean composition is nearest."""
    names = sorted(set(real.obs["cell_type"]))
    centres = np.log1p(1e4 * np.stack([shares(real[(real.obs["cell_type"] == name).to_numpy()]) for name in names]))
    counts = cells.X.toarray()
    return np.array(names)[np.linalg.norm(np.log1p(1e4 * counts / counts.sum(1, keepdims=True))[:, None] - centres, axis=2).argmin(axis=1)]


# Rare types


def test_cells_of_a_type_with_five_cells_are_nearest_to_that_type(learnt):
    real, synth = learnt
    made = synth.sample(300, where={"cell_type": "rare"}, progress=False)
    assert (nearest_type(made, real) == "rare").mean() > 0.95
    assert (nearest_type(real, real) == real.obs["cell_type"]).mean() > 0.95


# Augment


def augmented(synth, *args, **more):
    return synth.augment(*args, progress=False, **more)


@pytest.mark.parametrize("form", FORMS)
def test_the_originals_come_first_and_as_they_were(synth, form):
    cells = with_rare()
    cells.X = FORMS[form](cells.X)
    cells = cells[:, ::-1].copy()
    before = cells.copy()
    result = augmented(synth, cells, "cell_type", 30)
    first = result[: cells.n_obs]
    assert type(result.X) is type(cells.X)
    assert result.X.dtype == cells.X.dtype
    assert bytes_of(first.X) == bytes_of(cells.X) == bytes_of(before.X)
    assert first.obs_names.equals(cells.obs_names)
    pd.testing.assert_frame_equal(result.var, cells.var)
    for name in cells.obs:
        assert first.obs[name].tolist() == cells.obs[name].tolist()
        assert name in synth.labels or result.obs[name][cells.n_obs :].isna().all()
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    assert result.obs["synthetic"].tolist() == [i >= cells.n_obs for i in range(result.n_obs)]
    assert result.obs_names.is_unique


@pytest.mark.parametrize(
    ("to", "reached"),
    [(20, [20, 40, 40]), ("balance", [40, 40, 40]), (45, [45, 45, 45]), ({"B": 12, "T": 50}, [12, 40, 50]), ({"NK": 3}, [9, 40, 40]), (1, [9, 40, 40])],
)
def test_the_stated_numbers_are_reached(synth, to, reached):
    result = augmented(synth, with_rare(), "cell_type", to)
    assert result.obs["cell_type"].value_counts()[TYPES].tolist() == reached
    assert result.obs["synthetic"].dtype == bool
    assert int(result.obs["synthetic"].sum()) == sum(reached) - 89
    assert result.obs["donor"].notna().all()


def test_new_cells_are_those_of_a_sample_in_the_order_of_the_originals_genes(synth):
    cells = with_rare()
    result = augmented(synth, cells[:, ::-1].copy(), "cell_type", {"B": 309}, seed=4, guidance=2.0)
    expected = synth.sample(obs=pd.DataFrame({"cell_type": ["B"] * 300}), seed=4, guidance=2.0, progress=False)
    np.testing.assert_array_equal(result[89:].X.toarray(), expected.X.toarray()[:, ::-1])
    assert result.obs["donor"][89:].tolist() == expected.obs["donor"].tolist()


def test_a_category_the_originals_lack_can_be_added(synth):
    cells = with_rare(0)
    cells.obs["cell_type"] = cells.obs["cell_type"].cat.remove_unused_categories()
    assert augmented(synth, cells, "cell_type", 45).obs["cell_type"].value_counts().to_dict() == {"NK": 45, "T": 45}
    assert augmented(synth, cells, "cell_type", {"B": 7}).obs["cell_type"].value_counts()["B"] == 7


def test_augmented_cells_can_be_augmented_again(synth):
    once = augmented(synth, with_rare(), "cell_type", 20)
    twice = augmented(synth, once, "cell_type", 30)
    assert twice.obs_names.is_unique
    assert twice.obs["synthetic"][: once.n_obs].tolist() == once.obs["synthetic"].tolist()
    assert twice.obs["cell_type"].value_counts()["B"] == 30


def test_counts_that_do_not_fit_the_number_type_widen_it(synth, monkeypatch):
    cells = with_rare()
    cells.X = cells.X.astype(np.uint8)
    usual = Generator.page
    monkeypatch.setattr(Generator, "page", lambda self, *args: usual(self, *args) * np.float32(300))
    result = augmented(synth, cells, "cell_type", 20)
    assert result.X.dtype == np.float32
    np.testing.assert_array_equal(result.X[:89].toarray(), cells.X.toarray())
    assert result.X.max() > 255


def test_a_layer_a_file_and_labels_of_other_kinds(synth, tmp_path):
    cells = with_rare()
    cells.layers["raw"], cells.X = cells.X.copy(), sp.csr_matrix(np.log1p(cells.X.toarray()))
    cells.write_h5ad(tmp_path / "a.h5ad")
    for source in (cells, tmp_path / "a.h5ad"):
        np.testing.assert_array_equal(augmented(synth, source, "cell_type", 20, layer="raw").X[:89].toarray(), cells.layers["raw"].toarray())
    cells = with_rare()
    cells.obs["donor"] = cells.obs["donor"].astype(str)
    assert set(augmented(synth, cells, "cell_type", 20).obs["donor"]) == {"0", "1"}
    del cells.obs["donor"]
    result = augmented(synth, cells, "cell_type", 20)
    assert result.obs["donor"].isna().tolist() == [True] * 89 + [False] * 11


def spoilt(change):
    cells = with_rare()
    change(cells)
    return cells


@pytest.mark.parametrize(
    ("cells", "args", "words"),
    [
        (with_rare(), ("type", 20), ["label: 'type' is not a label of this model"]),
        (with_rare(), ("cell_type", 0), ["to: got 0", "from 1"]),
        (with_rare(), ("cell_type", "all"), ["to: got 'all'", "'balance'"]),
        (with_rare(), ("cell_type", 2.5), ["to: got 2.5"]),
        (with_rare(), ("cell_type", {"b cell": 5}), ["no category 'b cell'"]),
        (with_rare(), ("cell_type", {"B": -5}), ["to: 'B': got -5"]),
        (spoilt(lambda cells: cells.obs.__setitem__("cell_type", "Q")), ("cell_type", 20), ["no category 'Q' in training"]),
        (spoilt(lambda cells: cells.obs.__delitem__("cell_type")), ("cell_type", 20), ["label 'cell_type': 0 obs columns"]),
        (
            spoilt(lambda cells: setattr(cells, "obs", cells.obs.assign(cell_type=cells.obs["cell_type"].where(np.arange(89) != 3)))),
            ("cell_type", 20),
            ["1 cells have none", "real_9"],
        ),
        (with_rare()[:, :20].copy(), ("cell_type", 20), ["10 of the model's genes are missing", "'gene_20'"]),
        (spoilt(lambda cells: setattr(cells, "var_names", [f"x{i}" for i in range(30)])), ("cell_type", 20), ["30 are not its own", "'x0'"]),
        (spoilt(lambda cells: setattr(cells, "X", cells.X * 0.5)), ("cell_type", 20), ["not whole numbers"]),
        (spoilt(lambda cells: cells.obs.__setitem__("synthetic", "no")), ("cell_type", 20), ["column 'synthetic'", "rename it"]),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_augmented_is_one_clear_line(synth, cells, args, words):
    with pytest.raises(DataError) as caught:
        augmented(synth, cells, *args)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


# Transfer


def moved(synth, *args, **more):
    return synth.transfer(*args, progress=False, **more)


def test_at_full_strength_a_transfer_is_a_sample(synth):
    """Nothing is kept of a cell but its other labels: byte for byte."""
    cells = make_cells(300)
    made = moved(synth, cells, {"cell_type": "NK"}, strength=1.0, seed=2)
    expected = synth.sample(obs=cells.obs.assign(cell_type="NK"), seed=2, progress=False)
    assert (made.X != expected.X).nnz == 0
    pd.testing.assert_frame_equal(made.obs, expected.obs)


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_it_is_the_same_cells_in_order_under_the_new_label(synth, strength):
    cells = make_cells(300)
    cells = cells[:, np.random.default_rng(0).permutation(30)].copy()
    made = moved(synth, cells, {"donor": 1}, strength=strength)
    assert made.obs_names.equals(cells.obs_names)
    assert set(made.obs["donor"]) == {1}
    assert made.obs["cell_type"].astype(str).tolist() == cells.obs["cell_type"].astype(str).tolist()
    assert made.var_names.tolist() == synth.genes["gene"].tolist()
    assert (made.X != moved(synth, make_cells(300), {"donor": 1}, strength=strength).X).nnz == 0


def test_a_little_strength_keeps_a_cell_and_full_strength_does_not(learnt):
    """Types are far apart, so what a cell was shows in the counts; under its own label it stays what it was."""
    real, synth = learnt
    sizes = np.log(np.asarray(real.X.sum(axis=1)).ravel())
    kept, lost = (moved(synth, real, {"batch": "x"}, strength=strength) for strength in (0.05, 1.0))
    assert (nearest_type(kept, real) == real.obs["cell_type"]).mean() > 0.95
    depth = lambda made: np.corrcoef(sizes[:150], np.log(np.asarray(made.X.sum(axis=1)).ravel())[:150])[0, 1]  # noqa: E731
    assert depth(kept) > 0.2 + abs(depth(lost))


@pytest.mark.parametrize("strength", [0.05, 0.9])
@pytest.mark.parametrize("own", ["known", "not known"])
def test_a_type_can_be_changed_at_any_strength(learnt, strength, own):
    real, synth = learnt
    cells = real[(real.obs["cell_type"] == "a").to_numpy()].copy()
    if own == "not known":
        del cells.obs["cell_type"]
    assert (nearest_type(moved(synth, cells, {"cell_type": "b"}, strength=strength), real) == "b").mean() > 0.9


def test_a_combination_that_training_never_saw_is_marked(config):
    cells = make_cells()
    cells.obs["donor"] = (cells.obs["cell_type"] == "B").astype(int)
    synth = Synthesizer(["cell_type", "donor"], config=config).fit(cells, progress=False)
    made = moved(synth, cells, {"donor": 1}).obs
    assert made["seen_in_training"].tolist() == (cells.obs["cell_type"] == "B").tolist()
    assert "seen_in_training" not in moved(synth, cells[:1].copy(), {"donor": 1}).obs


def test_labels_that_are_missing_stay_open(synth):
    cells = make_cells()
    del cells.obs["cell_type"]
    made = moved(synth, cells, {"donor": 0}).obs
    assert made["cell_type"].isna().all()
    assert list(made) == ["cell_type", "donor"]


def test_the_settings_of_a_transfer_go_with_it(synth):
    noted = moved(synth, make_cells(), {"donor": 0}, strength=0.5, steps=10, seed=3).uns["scld"]
    assert (noted["strength"], noted["steps"], noted["seed"]) == (0.5, 5, 3)
    assert json.loads(noted["to"]) == {"donor": 0}


@pytest.mark.parametrize(
    ("to", "more", "words"),
    [
        ({}, {}, ["to: got {}"]),
        ({"cell_type": ["B", "T"]}, {}, ["to: got", "one category"]),
        ({"cell_type": None}, {}, ["to: got"]),
        ({"celltype": "B"}, {}, ["to: 'celltype' is not a label", "did you mean 'cell_type'?"]),
        ({"cell_type": "b"}, {}, ["no category 'b'"]),
        ("cell_type=B", {}, ["to: got str"]),
        ({"cell_type": "B"}, {"strength": 0.0}, ["strength: got 0.0", "above 0, up to 1"]),
        ({"cell_type": "B"}, {"strength": 1.5}, ["strength: got 1.5"]),
        ({"cell_type": "B"}, {"strength": float("nan")}, ["strength: got nan"]),
        ({"cell_type": "B"}, {"strength": "much"}, ["strength: got 'much'"]),
        ({"cell_type": "B"}, {"guidance_interval": (3, 1)}, ["guidance_interval: got (3, 1)"]),
    ],
    ids=str,
)
def test_what_cannot_be_transferred_is_one_clear_line(synth, to, more, words):
    with pytest.raises(RequestError) as caught:
        moved(synth, make_cells(), to, **more)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_cell_with_counts_only_in_genes_training_never_saw_is_refused(synth):
    cells = make_cells()
    counts = cells.X.toarray()
    counts[7], counts[7, 4] = 0, 5
    cells.X = sp.csr_matrix(counts)
    with pytest.raises(DataError, match=r"1 cells have counts only in genes that training never saw \(first: 'real_7'\)"):
        moved(synth, cells, {"donor": 1})


# Interpolate


def path_between(synth, *args, **more):
    return synth.interpolate(*args, progress=False, **more)


def test_positions_and_labels_of_a_path(synth):
    """What a cell on the way is cannot be said; the ends were asked for, and are what all of their population share."""
    made = path_between(synth, {"cell_type": "B", "donor": 1}, {"cell_type": ["T", "NK"], "donor": 1}, 300)
    np.testing.assert_allclose(made.obs["position"], np.linspace(0, 1, 300))
    assert made.obs[["cell_type", "donor"]].iloc[0].tolist() == ["B", 1]
    assert made.obs["cell_type"][1:].isna().all()
    assert made.obs["donor"].iloc[-1] == 1
    assert made.obs["donor"][1:-1].isna().all()
    assert json.loads(made.uns["scld"]["ends"])[0] == {"cell_type": "B", "donor": 1}


@pytest.mark.parametrize("kind", ["labels", "cells"])
def test_a_path_begins_in_one_population_and_ends_in_the_other(learnt, kind):
    real, synth = learnt
    a, b = ({"cell_type": name} if kind == "labels" else real[(real.obs["cell_type"] == name).to_numpy()].copy() for name in "ab")
    made = path_between(synth, a, b, 200, seed=1)
    found = nearest_type(made, real)
    assert (found[:40] == "a").mean() > 0.8
    assert (found[-40:] == "b").mean() > 0.8
    back = nearest_type(path_between(synth, b, a, 200, seed=1), real)
    assert (back[:40] == "b").mean() > 0.8
    if kind == "cells":
        assert made.obs["cell_type"].isna().all()


def test_a_path_goes_through_the_cells_in_between():
    """Cells along a bend, of which only the ends are named: the middle of the path has the programme of the middle of the bend."""
    random = np.random.default_rng(0)
    time = random.uniform(0, 1, 600)
    programmes = np.stack([np.clip(1 - 2.5 * time, 0, 1), np.clip(1 - 2.5 * abs(time - 0.5), 0, 1), np.clip(2.5 * time - 1.5, 0, 1)], axis=1)
    means = np.repeat(20 * programmes + 0.3, 10, axis=1)
    obs = pd.DataFrame({"stage": np.array(["early", "middle", "late"])[np.digitize(time, [0.25, 0.75])]}, index=[f"c{i}" for i in range(600)])
    cells = ad.AnnData(sp.csr_matrix(random.poisson(means).astype(np.float32)), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(30)]))
    synth = Synthesizer("stage", config=Config.from_dict(SMALL)).fit(cells, progress=False)
    made = path_between(synth, {"stage": "early"}, {"stage": "late"}, 150)
    shares = made.X.toarray().reshape(150, 3, 10).sum(axis=2)
    shares = shares / shares.sum(axis=1, keepdims=True)
    assert shares[60:90, 1].mean() > 0.7
    assert shares[:15, 0].mean() > 0.5 > 0.25 > shares[:15, 2].mean()
    assert shares[-15:, 2].mean() > 0.5 > 0.25 > shares[-15:, 0].mean()


@pytest.mark.parametrize(
    "call", [lambda synth: moved(synth, make_cells(600), {"cell_type": "B"}, guidance=2.0), lambda synth: path_between(synth, {"donor": 0}, make_cells(), 600)]
)
def test_any_number_of_threads_gives_the_same_bytes(synth, call):
    before, made = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        made.append(call(synth))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert bytes_of(made[0].X) == bytes_of(made[1].X)
    pd.testing.assert_frame_equal(made[0].obs, made[1].obs)


def test_a_population_that_training_never_saw_can_be_an_end_when_told(config):
    cells = make_cells()
    cells.obs["donor"] = (cells.obs["cell_type"] == "B").astype(int)
    synth = Synthesizer(["cell_type", "donor"], config=config).fit(cells, progress=False)
    ends = {"cell_type": "B", "donor": 0}, {"cell_type": "T"}
    with pytest.raises(RequestError, match="unseen=True"):
        path_between(synth, *ends, 5)
    assert path_between(synth, *ends, 5, unseen=True).obs["seen_in_training"].tolist() == [False, True, True, True, True]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (({"cell_type": "B"}, {"cell_type": "T"}, 1), "n: got 1"),
        (({"cell_type": "B"}, {"cell_typ": "T"}, 5), "did you mean 'cell_type'"),
        (({"cell_type": "B"}, "nowhere.h5ad", 5), "nowhere.h5ad: no such file"),
        (({"cell_type": "B"}, 3, 5), "source: got int"),
        ((make_cells()[:, :3].copy(), {"cell_type": "B"}, 5), "27 of the model's genes are missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_path_that_cannot_be_is_one_clear_line(synth, args, words):
    with pytest.raises(DataError, match=words):
        path_between(synth, *args)


def test_before_a_fit_there_is_nothing_to_edit_with():
    synth = Synthesizer("cell_type")
    for call in (
        lambda: synth.augment(make_cells(), "cell_type", 5),
        lambda: synth.transfer(make_cells(), {"cell_type": "B"}),
        lambda: synth.interpolate({}, {}, 5),
    ):
        with pytest.raises(RequestError, match="not fitted yet"):
            call()


def test_a_model_without_labels(config):
    synth = Synthesizer(config=config).fit(make_cells(), progress=False)
    for call in (lambda: augmented(synth, make_cells(), "cell_type", 50), lambda: moved(synth, make_cells(), {"cell_type": "B"})):
        with pytest.raises(RequestError, match="not a label of this model"):
            call()
    assert path_between(synth, make_cells()[:50].copy(), make_cells()[50:].copy(), 5).obs.columns.tolist() == ["position"]


def test_a_saved_model_edits_alike(synth, saved):
    loaded = scld.load(saved)
    assert (moved(loaded, make_cells(), {"donor": 1}).X != moved(synth, make_cells(), {"donor": 1}).X).nnz == 0
