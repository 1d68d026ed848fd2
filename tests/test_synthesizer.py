import copy
import json
import os
import pickle
import threading
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
import zarr
from toy import QUICK, TINY, make_cells

import scld
from scld import Config, DataError, NotFittedError, RequestError, SCLDError, Synthesizer
from scld.io.write import write
from scld.kernels.trees import Trees

LABELS = ["cell_type", "donor"]
POSTS = ["off", "select"]


def fit(source, labels=LABELS, config=None, seed=0, **more):
    synth = Synthesizer(labels, config=config or Config.from_dict(TINY), seed=seed)
    return synth.fit(source, progress=False, **more)


def sample(synth, *args, **more):
    return synth.sample(*args, **{"progress": False, "seed": 0} | more)


def stream(synth, *args, **more):
    return synth.stream(*args, **{"progress": False, "seed": 0} | more)


def model(synth):
    """All that a fit gives, as bytes."""
    parts = synth._model.generator.parts()
    tensors = [tensor for part in parts.values() for tensor in part.values()]
    content = b"".join(tensor.numpy().tobytes() for tensor in tensors)
    return content, synth.genes.to_dict(), synth.schema.to_json()


def check_same(one, other):
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(one.X, part), getattr(other.X, part))
    pd.testing.assert_frame_equal(one.obs, other.obs)
    pd.testing.assert_frame_equal(one.var, other.var)
    assert one.uns == other.uns


def differ(one, other):
    return (one.X != other.X).nnz > 0


# Fitting


@pytest.fixture(scope="module")
def expected(synth):
    return model(synth)


def test_the_same_seed_gives_the_same_model_and_it_is_0_by_default(cells, expected):
    assert model(fit(cells)) == expected
    assert model(fit(cells, seed=1))[0] != expected[0]
    assert Synthesizer().seed == 0


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_a_file_gives_the_same_model(cells, expected, tmp_path, ending):
    path = tmp_path / f"my cells{ending}"
    if ending == ".h5ad":
        cells.write_h5ad(path)
    else:
        ad.io.write_elem(zarr.open_group(path, mode="w", zarr_format=2), "/", cells)
    assert model(fit(path)) == expected
    assert model(fit(str(path))) == expected


@pytest.mark.parametrize(
    "form",
    [np.asarray, lambda dense: sp.csc_matrix(dense.astype(np.int64))],
    ids=["dense", "CSC of integers"],
)
def test_a_layer_gives_the_same_model(cells, expected, form):
    cells.layers["counts"] = form(cells.X.toarray())
    cells.X = sp.csr_matrix(np.log1p(cells.X.toarray()))
    assert model(fit(cells, layer="counts")) == expected


def test_the_source_and_the_state_of_the_process_are_left_alone(cells):
    before = cells.copy()
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    state, environment = np.random.get_state()[1].copy(), dict(os.environ)  # noqa: NPY002
    torch_state, threads = torch.get_rng_state(), torch.get_num_threads()
    synth = fit(cells)
    sample(synth, 5, seed=None)
    synth.encode(cells)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    assert torch.get_num_threads() == threads
    assert dict(os.environ) == environment
    assert torch.is_grad_enabled()
    check_same(cells, before)


def test_settings_reach_the_networks():
    config = Config.from_dict({**TINY, "autoencoder": {"latent": 5, "width": 24}})
    synth = fit(make_cells(), config=config)
    assert len(synth._model.generator.centre) == 6
    assert synth._model.generator.autoencoder.gene_weights.shape[1] == 24
    assert synth.config.autoencoder.latent == 5


def test_the_summary_has_the_history_of_each_network(synth):
    assert synth.summary["cells"] == 120
    for name in ("autoencoder", "denoiser"):
        history = synth.summary[name]
        assert len(history["validation"]) == 2
        assert history["steps"] == QUICK["steps"]
        assert history["best_interval"] in (0, 1)


class Stop(Exception):
    pass


@pytest.mark.parametrize("part", ["autoencoder", "denoiser"])
def test_an_interrupted_fit_continues(cells, tmp_path, monkeypatch, part):
    """In the middle of any training; it ends as an uninterrupted fit does, and leaves no trace."""
    training = {**QUICK, "intervals": 4, "save_seconds": 0.0}
    trainings = dict.fromkeys(["autoencoder_training", "denoiser_training"], training)
    config = Config.from_dict({**TINY, **trainings})
    whole = fit(cells, config=config)
    usual, intervals = scld.training.stages.train, []

    def training_that_stops(stop):
        def train(*args):
            *args, resume, update, recorded, processes = args

            def watched(done, text):
                intervals.append((resume.name, done))
                if stop and (resume.name, done) == (part, 3):
                    raise Stop
                update(done, text)

            return usual(*args, resume, watched, recorded, processes)

        return train

    path = tmp_path / "a.scld"
    monkeypatch.setattr("scld.training.stages.train", training_that_stops(True))
    with pytest.raises(Stop):
        fit(cells, config=config, checkpoint=path)
    with pytest.raises(scld.CheckpointError, match="interrupted"):
        scld.load(path)
    intervals.clear()
    monkeypatch.setattr("scld.training.stages.train", training_that_stops(False))
    resumed = fit(cells, config=config, checkpoint=path)
    assert (part, 1) not in intervals
    assert (part, 3) in intervals
    assert model(resumed) == model(whole)
    assert model(scld.load(path)) == model(whole)
    assert not (path / "resume").exists()


def stopped(*args):
    raise Stop


def test_an_unfinished_fit_of_other_cells_is_not_continued(cells, tmp_path, monkeypatch):
    path = tmp_path / "a.scld"
    monkeypatch.setattr("scld.training.stages.train", stopped)
    for other in (cells, cells):
        with pytest.raises(Stop):
            fit(other, checkpoint=path)
    shuffled = cells[np.random.default_rng(0).permutation(cells.n_obs)].copy()
    with pytest.raises(RequestError, match="unfinished fit of other data"):
        fit(shuffled, checkpoint=path)
    with pytest.raises(RequestError, match="unfinished fit of other data"):
        fit(cells, checkpoint=path, seed=1)


def test_a_failed_second_fit_leaves_the_first_model_whole(cells, monkeypatch):
    synth = fit(cells)
    before, drawn = model(synth), sample(synth, 9)
    with pytest.raises(DataError, match="needs at least 20"):
        synth.fit(cells[:5].copy(), progress=False)
    assert model(synth) == before
    monkeypatch.setattr("scld.training.stages.train", stopped)
    with pytest.raises(Stop):
        synth.fit(make_cells(60, 7), progress=False)
    assert model(synth) == before
    check_same(sample(synth, 9), drawn)


def test_an_existing_checkpoint_is_refused_before_anything_is_read(saved):
    with pytest.raises(RequestError, match="exists already"):
        fit("no such file.h5ad", checkpoint=saved)


def test_too_few_cells(cells):
    with pytest.raises(DataError, match=r"X: 19 cells; a fit needs at least 20"):
        fit(cells[:19].copy())


def test_a_training_that_diverges_is_one_clear_error(cells):
    diverging = {**QUICK, "learning_rate": 1e30}
    config = Config.from_dict({**TINY, "autoencoder_training": diverging})
    with pytest.raises(RequestError, match=r"validation loss is not a number; lower learning_rate"):
        fit(cells, config=config)


# Before a fit


@pytest.mark.parametrize(
    "call",
    [
        lambda synth, path: synth.schema,
        lambda synth, path: synth.genes,
        lambda synth, path: synth.summary,
        lambda synth, path: synth.sample(3),
        lambda synth, path: synth.sample(0, guidance="much"),
        lambda synth, path: synth.stream(3),
        lambda synth, path: synth.encode(make_cells()),
        lambda synth, path: synth.augment(make_cells(), "cell_type", 5),
        lambda synth, path: synth.transfer(make_cells(), {"cell_type": "B"}),
        lambda synth, path: synth.save(path),
    ],
    ids=["schema", "genes", "summary", *("sample", "guidance", "stream", "encode"), *"at", "save"],
)
def test_before_a_fit_every_method_says_what_to_do(call, tmp_path):
    with pytest.raises(NotFittedError, match=r"not fitted yet; call fit\(source\), or scld.load"):
        call(Synthesizer(["cell_type"]), tmp_path / "a.scld")
    assert not list(tmp_path.iterdir())


def test_attributes_of_a_fit_are_missing_before_it(synth):
    unfitted = Synthesizer(["cell_type"])
    for name in ("schema", "genes", "summary"):
        assert not hasattr(unfitted, name)
        assert hasattr(synth, name)


def test_the_representation_says_whether_it_is_fitted(synth, saved):
    assert repr(Synthesizer("a")) == "Synthesizer(labels=['a'], not fitted)"
    fitted = "Synthesizer(labels=['cell_type', 'donor'], fitted on 120 cells x 30 genes)"
    assert repr(synth) == repr(scld.load(saved)) == fitted


def test_the_representation_in_a_notebook_says_what_is_next(synth, cells):
    assert "Next: <code>synth.fit(adata)</code>" in Synthesizer(["a<b"])._repr_html_()
    assert "&#x27;a&lt;b&#x27;" in Synthesizer(["a<b"])._repr_html_()
    shown = synth._repr_html_()
    for words in (
        "fitted on 120 cells x 30 genes",
        "<th>donor</th>",
        "B (40)",
        "synth.sample(1000",
    ):
        assert words in shown
    assert "<table>" not in fit(cells, labels=[])._repr_html_()


@pytest.mark.parametrize("seed", [-1, 1.5, "a", None, 2**64, True])
def test_the_seed_of_a_fit_is_an_integer(seed):
    with pytest.raises(RequestError, match="seed: got"):
        Synthesizer(seed=seed)


@pytest.mark.parametrize(
    "device", ["warp", "meta", "mps", "xpu", "cuda:99", "", None, 3.5, torch.device("meta")]
)
def test_a_device_that_is_not_supported_is_refused_in_one_line(saved, device):
    if isinstance(device, str) and device.startswith("cuda") and torch.cuda.device_count() > 99:
        pytest.fail("this machine has a hundred GPUs")
    for make in (lambda: scld.load(saved, device=device), lambda: Synthesizer(device=device)):
        with pytest.raises(RequestError, match=r"device: .*; allowed are 'auto', 'cpu'") as caught:
            make()
        assert "\n" not in str(caught.value)
        assert not isinstance(caught.value, scld.CheckpointError)


def test_a_device_may_be_a_torch_device():
    assert Synthesizer(device=torch.device("cpu")).device == torch.device("cpu")


# Saving, loading, pickling


def test_saved_and_loaded_it_samples_the_same_bytes(synth, saved):
    loaded = scld.load(saved)
    assert model(loaded) == model(synth)
    check_same(sample(loaded, 300, guidance=1.5), sample(synth, 300, guidance=1.5))
    assert (loaded.labels, loaded.seed, loaded.config) == (synth.labels, synth.seed, synth.config)
    assert json.dumps(loaded.summary) == json.dumps(synth.summary)


def test_the_home_folder_and_spaces_in_paths(synth, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    synth.save("~/my model.scld")
    assert (tmp_path / "my model.scld" / "manifest.json").exists()
    assert model(scld.load("~/my model.scld")) == model(synth)


class Somewhere:
    """A path of another library."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


def test_every_path_may_be_any_path_like(cells, synth, tmp_path):
    cells.write_h5ad(tmp_path / "a.h5ad")
    source, checkpoint = Somewhere(tmp_path / "a.h5ad"), Somewhere(tmp_path / "a.scld")
    fitted = fit(source, checkpoint=checkpoint)
    assert model(scld.load(checkpoint)) == model(fitted) == model(synth)
    synth.save(checkpoint, overwrite=True)
    np.testing.assert_array_equal(synth.encode(source), synth.encode(cells))
    options = {"seed": 0, "progress": False}
    for edit in (
        lambda given: synth.augment(given, "cell_type", 45, **options),
        lambda given: synth.transfer(given, {"donor": 1}, **options),
    ):
        assert not differ(edit(source), edit(cells))


@pytest.mark.parametrize(
    "make_copy", [lambda synth: pickle.loads(pickle.dumps(synth)), copy.deepcopy]
)
def test_it_can_be_pickled_before_and_after_a_sample(config, cells, make_copy):
    unfitted = Synthesizer(LABELS, config=config)
    assert repr(make_copy(unfitted)) == repr(unfitted)
    synth = unfitted.fit(cells, progress=False)
    before = make_copy(synth)
    request = {"where": {"cell_type": "B", "donor": 0}, "unseen": True, "post": "select"}
    drawn = sample(synth, 300, **request)
    next(stream(synth, 300, batch_size=10))
    synth.encode(cells)
    after = make_copy(synth)
    for other in (before, after):
        assert model(other) == model(synth)
        check_same(sample(other, 300, **request), drawn)


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
    assert list(cells.obs) == [*LABELS, "synthetic"]
    assert cells.obs["synthetic"].tolist() == [True] * 500
    for label, categories in {"cell_type": ["B", "NK", "T"], "donor": [0, 1]}.items():
        assert list(cells.obs[label].cat.categories) == categories


def test_a_gene_that_training_never_saw_has_no_counts(synth):
    cells = sample(synth, 500)
    assert cells.X[:, 4].nnz == 0
    assert (np.delete(np.asarray(cells.X.sum(axis=0)).ravel(), 4) > 0).all()
    assert synth.genes["seen"].tolist() == [i != 4 for i in range(30)]


def test_the_same_seed_gives_the_same_cells_and_another_does_not(synth):
    check_same(sample(synth, 20, seed=3), sample(synth, 20, seed=3))
    assert differ(sample(synth, 20, seed=3), sample(synth, 20, seed=4))


@pytest.mark.parametrize(
    "draw",
    [
        lambda synth, **more: synth.sample(50, progress=False, **more),
        lambda synth, **more: next(synth.stream(50, progress=False, **more)),
        lambda synth, **more: synth.augment(
            make_cells(60), "cell_type", 45, progress=False, **more
        ),
        lambda synth, **more: synth.transfer(make_cells(60), {"donor": 1}, progress=False, **more),
    ],
    ids=["sample", "stream", "augment", "transfer"],
)
def test_two_calls_without_a_seed_differ_and_the_recorded_seed_gives_the_same_cells(synth, draw):
    one, other = draw(synth), draw(synth)
    assert differ(one, other)
    seeds = [cells.uns["scld"]["seed"] for cells in (one, other)]
    assert seeds[0] != seeds[1]
    assert [type(seed) for seed in seeds] == [int, int]
    for cells, seed in zip((one, other), seeds, strict=True):
        again = draw(synth, seed=seed)
        assert not differ(again, cells)
        pd.testing.assert_frame_equal(again.obs, cells.obs)


def test_calls_without_a_seed_give_no_duplicates_when_put_together(synth):
    parts = [synth.sample(200, progress=False) for _ in range(2)]
    rows = np.concatenate([part.X.toarray() for part in parts])
    assert len(np.unique(rows, axis=0)) == 400


@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("size", [1, 64, 257, 700, 4096])
def test_a_stream_gives_the_cells_of_a_sample_for_any_batch_size(synth, size, post):
    options = {"guidance": 2.0, "post": post}
    batches = list(stream(synth, 700, batch_size=size, **options))
    whole = sample(synth, 700, **options)
    assert [batch.n_obs for batch in batches[:-1]] == [size] * (len(batches) - 1)
    stacked = sp.vstack([batch.X for batch in batches], format="csr")
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(stacked, part), getattr(whole.X, part))
    pd.testing.assert_frame_equal(pd.concat([batch.obs for batch in batches]), whole.obs)
    assert all(batch.uns == whole.uns for batch in batches)


def test_all_batches_of_a_stream_without_a_seed_have_the_same(synth):
    batches = list(synth.stream(30, batch_size=10, progress=False))
    seeds = {batch.uns["scld"]["seed"] for batch in batches}
    assert len(seeds) == 1
    whole = sample(synth, 30, seed=seeds.pop())
    assert (sp.vstack([batch.X for batch in batches]) != whole.X).nnz == 0


@pytest.mark.parametrize("post", POSTS)
def test_any_number_of_threads_gives_the_same_bytes(synth, post, threads):
    """And whether there are more cells or not."""
    whole = sample(synth, 700, post=post, seed=2)
    for number, size, n in [(1, 64, 700), (2, 300, 700), (2, 1, 3), (3, 50, 700)]:
        threads(number)
        batches = stream(synth, n, post=post, seed=2, batch_size=size)
        some = sp.vstack([batch.X for batch in batches])
        assert (whole.X[:n] != some).nnz == 0
        assert torch.get_num_threads() == number


def test_two_open_streams_give_what_each_gives_alone(synth):
    threads = torch.get_num_threads()
    streams = (stream(synth, 600, seed=seed, batch_size=200) for seed in (0, 1))
    pairs = list(zip(*streams, strict=True))
    for seed, batches in enumerate(zip(*pairs, strict=True)):
        stacked = sp.vstack([batch.X for batch in batches])
        assert (stacked != sample(synth, 600, seed=seed).X).nnz == 0
    assert torch.get_num_threads() == threads


def in_a_new_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def test_while_a_stream_is_open_new_threads_have_the_usual_number_of_torch_threads(
    synth, threads, monkeypatch
):
    """And the threads that generate cells use one each."""
    workers, usual = [], scld.generation.generator.Generator.generate

    def watched(self, *args):
        workers.append(torch.get_num_threads())
        return usual(self, *args)

    monkeypatch.setattr("scld.generation.generator.Generator.generate", watched)
    threads(3)
    batches = stream(synth, 3000, batch_size=100)
    next(batches)
    assert in_a_new_thread(torch.get_num_threads) == 3
    assert torch.get_num_threads() == 3
    assert sum(batch.n_obs for batch in batches) == 2900
    assert set(workers) == {1}


def test_hints_for_arguments_that_are_often_mixed_up(synth, cells):
    with pytest.raises(DataError, match=r"labels: got AnnData; .*fit: Synthesizer\(.*\.fit\(adata"):
        Synthesizer(cells)
    with pytest.raises(
        RequestError, match=r"n: got 100\.0; allowed are integers from 1, such as 100"
    ):
        sample(synth, 1e2)
    with pytest.raises(DataError, match=r"one by one: labels=\['cell_type', 'donor'\]"):
        fit(cells, labels="cell_type,donor")


def test_a_guidance_weight_that_is_hardly_meant_is_warned_of(synth):
    with pytest.warns(UserWarning, match="guidance: 30 is so large") as caught:
        synth.sample(3, guidance={"donor": 30}, progress=False)
    assert caught[0].filename == __file__  # where the user's own call is


def test_categories_that_look_like_missing_values_or_have_one_cell_are_warned_of(cells):
    types = cells.obs["cell_type"].astype(str)
    types.iloc[:30], types.iloc[30] = "nan", "rare"
    cells.obs["cell_type"] = types
    with pytest.warns(UserWarning, match="^label 'cell_type': ") as caught:
        fit(cells, labels="cell_type")
    said = [str(warning.message) for warning in caught]
    assert "30 cells have the category 'nan', as text" in said[0]
    assert "categories with a single cell: 'rare'" in said[1]


# Conditioning on labels


def test_cells_of_different_calls_have_different_names(synth, saved, cells):
    calls = [
        sample(synth, 20),
        sample(synth, 20, seed=1),
        sample(synth, 20, where={"cell_type": "B"}),
        sample(synth, 20, guidance=2.0),
        sample(synth, 20, steps=9),
        sample(synth, obs=pd.DataFrame({"cell_type": ["B", "T"]})),
        sample(synth, obs=pd.DataFrame({"cell_type": ["T", "B"]})),
        synth.transfer(cells, {"donor": 1}, seed=0, progress=False),
        synth.transfer(cells, {"donor": 1}, seed=0, progress=False, strength=1),
        synth.transfer(cells, {"donor": 0}, seed=0, progress=False),
        fit(cells, seed=1).sample(20, seed=0, progress=False),
        cells,
    ]
    together = ad.concat(calls)
    assert together.obs_names.is_unique
    again = sample(scld.load(saved), 20)
    assert again.obs_names.tolist() == calls[0].obs_names.tolist()
    assert sample(synth, 9).obs_names.tolist() == calls[0].obs_names[:9].tolist()
    effect = scld.Effect({"gene_1": 1.0})
    twins = sample(synth, 20, effects=[effect], post="off", depth=0.5)
    assert twins.obs_names.equals(sample(synth, 20, post="off").obs_names)


def test_fixed_labels_are_those_asked_for(synth):
    assert set(sample(synth, 50, where={"cell_type": "NK"}).obs["cell_type"]) == {"NK"}
    two = sample(synth, 100, where={"cell_type": ["NK", "B"]}).obs
    assert set(two["cell_type"]) == {"NK", "B"}
    both = sample(synth, 50, where={"cell_type": "T", "donor": 1}).obs
    assert (set(both["cell_type"]), set(both["donor"])) == ({"T"}, {1})
    assert set(sample(synth, 50, where={"donor": "1"}).obs["donor"]) == {1}


def test_unspecified_labels_follow_their_frequencies_given_the_others():
    cells = make_cells(120)
    is_b, some = cells.obs["cell_type"] == "B", np.arange(120) % 12 == 0
    cells.obs["donor"] = np.where(is_b, some, True).astype(int)
    synth = fit(cells)
    real = cells.obs["donor"][is_b].mean()
    drawn = sample(synth, 2000, where={"cell_type": "B"}).obs["donor"].astype(int).mean()
    assert real == 0.25
    assert abs(drawn - real) < 5 * np.sqrt(real * (1 - real) / 2000)
    types = sample(synth, 2000).obs["cell_type"].value_counts(normalize=True)
    assert (types - 1 / 3).abs().max() < 5 * np.sqrt(2 / 9 / 2000)


def test_a_table_is_followed_row_by_row(synth):
    table = pd.DataFrame(
        {
            "donor": [1, 0, np.nan, 1, np.nan],
            "other": 0,
            "cell_type": ["T", None, "NK", "B", None],
        },
        index=["v", "w", "x", "y", "z"],
    )
    cells = sample(synth, obs=table)
    assert list(cells.obs_names) == list("vwxyz")
    assert list(cells.obs) == [*LABELS, "other", "synthetic"]
    for label in LABELS:
        given = table[label].notna()
        asked = [str(value).removesuffix(".0") for value in table[label][given]]
        assert cells.obs[label][given].astype(str).tolist() == asked
        assert cells.obs[label].notna().all()
    check_same(cells, sample(synth, obs=table))


@pytest.mark.parametrize("post", POSTS)
def test_the_first_rows_of_a_table_give_the_same_cells_as_these_rows_alone(synth, post):
    """With unspecified labels: one draw per row, of labels and of noise."""
    random = np.random.default_rng(0)
    types = random.choice(["B", "T", "NK", None], 100)
    table = pd.DataFrame({"cell_type": types, "donor": random.choice([0, 1, np.nan], 100)})
    whole, some = (sample(synth, obs=rows, post=post) for rows in (table, table[:40]))
    assert (whole.X[:40] != some.X).nnz == 0
    pd.testing.assert_frame_equal(whole.obs[:40].set_axis(some.obs_names), some.obs)


def test_a_cell_depends_on_its_own_labels_and_not_on_those_of_others(synth):
    """Where two tables agree, so do the cells."""
    one = pd.DataFrame({"cell_type": "B", "donor": 0}, index=map(str, range(100)))
    other = one.assign(cell_type=["B"] * 30 + ["T"] * 70)
    first, second = (sample(synth, obs=table, guidance=20).X for table in (one, other))
    difference = first - second
    assert difference[:30].nnz == 0
    assert difference[30:].nnz > 0


def test_a_table_may_leave_a_whole_label_out(synth):
    cells = sample(synth, obs=pd.DataFrame({"cell_type": ["B", "T"] * 100}))
    assert cells.obs["cell_type"].tolist() == ["B", "T"] * 100
    assert set(cells.obs["donor"]) == {0, 1}


# Combinations that training never saw


@pytest.fixture
def unseen_b():
    """No cell of type B is of donor 0."""
    cells = make_cells()
    cells.obs["donor"] = (cells.obs["cell_type"] == "B").astype(int)
    is_nk = cells.obs["cell_type"] == "NK"
    cells.obs["treated"] = np.where(is_nk, False, np.arange(120) % 2 == 0)
    return cells


def test_a_table_may_ask_for_unseen_combinations(unseen_b):
    synth = fit(unseen_b)
    words = r"no training cell has cell_type=B and donor=0; .*unseen=True"
    with pytest.raises(RequestError, match=words):
        sample(synth, 3, where={"cell_type": "B", "donor": 0})
    table = pd.DataFrame({"cell_type": ["B", "B"], "donor": [0, 1]})
    made = sample(synth, obs=table).obs
    assert made.iloc[0].tolist() == ["B", 0, False, True]
    assert made["seen_in_training"].tolist() == [False, True]


def test_a_condition_may_be_an_unseen_combination_when_allowed(unseen_b):
    synth = fit(unseen_b)
    made = sample(synth, 40, where={"cell_type": "B", "donor": 0}, unseen=True).obs
    assert (set(made["cell_type"]), set(made["donor"])) == ({"B"}, {0})
    assert set(made["seen_in_training"]) == {False}
    assert made["seen_in_training"].dtype == bool
    seen = {"where": {"cell_type": "B", "donor": 1}}
    check_same(sample(synth, 9, **seen), sample(synth, 9, **seen, unseen=True))
    assert "seen_in_training" not in sample(synth, 9, **seen, unseen=True).obs


def test_unseen_cells_are_marked_in_every_batch(unseen_b):
    table = pd.DataFrame({"cell_type": ["B"] * 4 + ["T"], "donor": [1, 1, 1, 1, 1]})
    batches = stream(fit(unseen_b), obs=table, batch_size=2)
    marks = [batch.obs["seen_in_training"].tolist() for batch in batches]
    assert marks == [[True, True], [True, True], [False]]


def test_unspecified_labels_follow_the_cells_that_have_most_of_the_fixed_ones(unseen_b):
    """B (half of them treated) and donor 0 (half of T, no NK) were never together.

    The unspecified label is drawn from all cells that have one of the two.
    """
    synth = fit(unseen_b, labels=["cell_type", "donor", "treated"])
    made = sample(synth, 2000, where={"cell_type": "B", "donor": 0}, unseen=True).obs
    real = unseen_b.obs["treated"].mean()  # every cell has one of the two
    found = made["treated"].astype(int).mean()
    assert abs(found - real) < 5 * np.sqrt(real * (1 - real) / 2000)
    assert set(made["cell_type"]) == {"B"}
    assert set(made["donor"]) == {0}
    listed = {"cell_type": ["B"], "donor": [0], "treated": [True]}
    assert set(sample(synth, 200, where=listed, unseen=True).obs["treated"]) == {True}


def test_a_label_with_the_name_of_the_mark_does_not_clash(unseen_b):
    is_b = unseen_b.obs["cell_type"] == "B"
    unseen_b.obs["seen_in_training"] = np.where(is_b, "yes", "no")
    synth = fit(unseen_b, labels=["cell_type", "seen_in_training"])
    made = sample(synth, 3, where={"cell_type": "B", "seen_in_training": "no"}, unseen=True).obs
    assert made.iloc[0].tolist() == ["B", "no", False, True]
    assert list(made) == ["cell_type", "seen_in_training", "seen_in_training_", "synthetic"]


def test_a_label_with_the_name_of_the_mark_of_generated_cells_does_not_clash(cells):
    cells.obs["synthetic"] = np.arange(120) % 2 == 0
    synth = fit(cells, labels=["synthetic"])
    made = sample(synth, 30, where={"synthetic": False}).obs
    assert set(made["synthetic"]) == {False}
    assert made["synthetic_"].all()
    more = synth.augment(cells, "synthetic", 70, seed=0, progress=False).obs
    assert more["synthetic"].value_counts().tolist() == [70, 70]
    assert more["synthetic_"].tolist() == [False] * 120 + [True] * 20


@pytest.mark.parametrize(
    "labels", [[], "treated", ["treated"], ["donor", "cell_type", "treated"]], ids=str
)
def test_any_number_and_kind_of_labels(cells, labels, tmp_path):
    synth = fit(cells, labels=labels)
    made = sample(synth, 200, guidance=None)
    assert synth.labels == ([labels] if isinstance(labels, str) else labels)
    assert list(made.obs) == [*synth.labels, "synthetic"]
    for label in synth.schema.labels:
        assert set(made.obs[label.name]) == set(cells.obs[label.name])
        kinds = [type(value) for value in made.obs[label.name].cat.categories]
        assert kinds == [type(value) for value in label.categories]
        value = cells.obs[label.name].iloc[0]
        assert set(sample(synth, 5, where={label.name: value}).obs[label.name]) == {value}
    made.write_h5ad(tmp_path / "made.h5ad")
    pd.testing.assert_frame_equal(ad.read_h5ad(tmp_path / "made.h5ad").obs, made.obs)


def test_cells_without_a_label_are_learnt_from_and_come_back(cells):
    cells.obs["donor"] = cells.obs["donor"].astype("Int64").mask(np.arange(120) % 3 == 0)
    synth = fit(cells)
    donors = sample(synth, 1000).obs["donor"]
    assert abs(donors.isna().mean() - 1 / 3) < 5 * np.sqrt(2 / 9 / 1000)
    assert set(donors.dropna()) == {0, 1}
    without = sample(synth, 20, where={"donor": None})
    assert without.obs["donor"].isna().all()
    assert without.uns["scld"]["where"] == {"donor": ["unspecified"]}


# What is recorded in uns


def plain(value):
    """As it was before it was written: lists come back as arrays, numbers as those of NumPy."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
@pytest.mark.parametrize("writer", ["scld", "anndata"])
def test_settings_are_recorded_as_nested_plain_values_that_survive_files(
    synth, tmp_path, ending, writer
):
    where = {"cell_type": ["B", "T"], "donor": np.int64(1)}
    options = {"guidance": {"donor": 3}, "guidance_interval": (0.5, 2), "steps": 6, "seed": 9}
    cells = sample(synth, 4, where=where, **options)
    expected = {
        "version": scld.__version__,
        "seed": 9,
        "steps": 6,
        "guidance": {"cell_type": 1.0, "donor": 3.0},
        "guidance_interval": [0.5, 2.0],
        "candidates": 3,
        "where": {"cell_type": ["B", "T"], "donor": ["1"]},
    }
    assert cells.uns["scld"] == expected == json.loads(json.dumps(cells.uns["scld"]))
    path = tmp_path / f"cells{ending}"
    if writer == "scld":
        write([cells], path)
    elif ending == ".h5ad":
        cells.write_h5ad(path)
    else:
        ad.io.write_elem(zarr.open_group(path, mode="w", zarr_format=2), "/", cells)
    back = ad.read_h5ad(path) if ending == ".h5ad" else ad.read_zarr(path)
    assert plain(back.uns["scld"]) == expected


def test_what_is_recorded_gives_the_same_cells(synth):
    cells = synth.sample(40, where={"donor": 1}, guidance={"donor": 3}, progress=False)
    recorded = cells.uns["scld"]
    names = ("guidance", "guidance_interval", "steps", "seed", "where")
    again = synth.sample(40, **{name: recorded[name] for name in names}, progress=False)
    check_same(again, cells)


def test_one_candidate_is_recorded_where_one_is_generated(synth, saved):
    assert sample(synth, 5, post="select").uns["scld"]["candidates"] == 3
    assert sample(synth, 5, post="off").uns["scld"]["candidates"] == 1
    other = scld.load(saved)
    generator = other._model.generator
    trees = Trees(*(array[:0] for array in generator.discriminator.trees))
    inactive = replace(generator.discriminator, trees=trees)
    assert not inactive.active
    other._model = replace(other._model, generator=replace(generator, discriminator=inactive))
    made = sample(other, 5, post="select")
    assert made.uns["scld"]["candidates"] == 1
    check_same(made, sample(synth, 5, post="off"))


# Guidance, post-guidance, steps


def test_guidance_of_one_label_leaves_the_others_at_the_default(synth):
    usual, made = sample(synth, 200), lambda guidance: sample(synth, 200, guidance=guidance)
    for same in (1.0, {"donor": 1}, {}):
        assert not differ(made(same), usual)
    assert differ(made({"donor": 3}), usual)
    assert differ(made({"donor": 3}), made(3))


def test_post_guidance_is_refused_where_the_fit_left_it_out():
    config = Config.from_dict({**TINY, "sampling": {"steps": 4, "post": "off"}})
    off = fit(make_cells(), config=config)
    assert sample(off, 5).uns["scld"]["candidates"] == 1
    with pytest.raises(RequestError) as caught:
        sample(off, 5, post="select")
    for part in ("post: this model was fitted without", "leave post out", "--post select"):
        assert part in str(caught.value)


def test_guidance_within_an_interval(synth):
    """All noise levels are no restriction, none of them no guidance; it may be the default."""
    made = lambda **options: sample(synth, 200, **options)  # noqa: E731
    infinite = float("inf")
    whole = made(guidance=3.0)
    assert not differ(whole, made(guidance=3.0, guidance_interval=(0, infinite)))
    assert not differ(made(guidance=3.0, guidance_interval=(1.0, 1.0)), made(guidance=1.0))
    assert differ(whole, made(guidance=3.0, guidance_interval=(0.05, 1.0)))
    assert made(guidance_interval=(0.5, 2)).uns["scld"]["guidance_interval"] == [0.5, 2.0]
    low_and_high = {"guidance_low": 1.0, "guidance_high": 1.0}
    sampling = {**TINY["sampling"], "guidance": 3.0, **low_and_high}
    within = fit(make_cells(), config=Config.from_dict({**TINY, "sampling": sampling}))
    assert not differ(sample(within, 200), made())


@pytest.fixture
def adjusted(saved):
    """The same model with other settings of sampling."""

    def adjust(**settings):
        loaded = scld.load(saved)
        sampling = replace(loaded.config.sampling, **settings)
        config = replace(loaded.config, sampling=sampling)
        loaded._model = replace(loaded._model, config=config)
        return loaded

    return adjust


def test_post_guidance_changes_cells_and_not_their_labels(synth):
    off, select = (sample(synth, 100, post=post) for post in POSTS)
    assert differ(off, select)
    pd.testing.assert_frame_equal(off.obs, select.obs.set_axis(off.obs_names))


def test_without_post_guidance_there_is_a_single_candidate(synth, adjusted):
    off = sample(synth, 300, post="off")
    check_same(off, sample(adjusted(candidates=1), 300, post="select"))
    assert differ(off, sample(synth, 300, post="select"))


@pytest.mark.parametrize("post", POSTS)
def test_the_default_is_the_post_guidance_of_the_model(adjusted, post):
    model_ = adjusted(post=post)
    check_same(sample(model_, 50), sample(model_, 50, post=post))


@pytest.mark.parametrize("post", POSTS)
def test_saved_and_loaded_post_guidance_is_the_same(synth, saved, post):
    check_same(sample(scld.load(saved), 300, post=post), sample(synth, 300, post=post))


@pytest.mark.parametrize("post", POSTS)
def test_post_guidance_reaches_all_methods_that_generate_cells(synth, adjusted, post):
    cells, own = make_cells(90), adjusted(post=post)
    options = {"seed": 0, "progress": False}
    to = {"cell_type": "B"}
    for made, expected in [
        (
            synth.augment(cells, "cell_type", 60, post=post, **options),
            own.augment(cells, "cell_type", 60, **options),
        ),
        (
            synth.transfer(cells, to, post=post, **options),
            own.transfer(cells, to, **options),
        ),
        (
            next(synth.stream(60, post=post, **options)),
            next(own.stream(60, **options)),
        ),
    ]:
        check_same(made, expected)
        candidates = {"off": 1, "select": synth.config.sampling.candidates}[post]
        assert made.uns["scld"]["candidates"] == candidates


def test_the_number_of_steps_matters(synth):
    assert differ(sample(synth, 50, steps=1), sample(synth, 50, steps=8))


def test_the_largest_seeds_are_taken(cells):
    synth = fit(cells, seed=2**63 - 1)
    assert sample(synth, 3, seed=2**63 - 1).n_obs == 3


# Requests that cannot be met; tests/generation has all of them


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, ["n: got None", "from 1"]),
        ({"n": 0}, ["n: got 0", "from 1"]),
        ({"n": 3, "where": {"cell_typ": "B"}}, ["where: 'cell_typ'", "did you mean 'cell_type'?"]),
        ({"n": 3, "where": {"cell_type": "nk"}}, ["no category 'nk'", "did you mean 'NK'?"]),
        ({"n": 3, "guidance": {"donors": 2}}, ["guidance: 'donors'", "did you mean 'donor'?"]),
        ({"n": 3, "guidance_interval": (2.0, 1.0)}, ["guidance_interval: got (2.0, 1.0)"]),
        ({"n": 3, "post": "selct"}, ["post: got 'selct'", "did you mean 'select'?"]),
        ({"n": 3, "steps": 0}, ["steps: got 0", "from 1"]),
        ({"n": 3, "seed": -1}, ["seed: got -1", "from 0"]),
        ({"obs": {"cell_type": ["B"]}}, ["obs: got dict", "DataFrame"]),
        ({"obs": pd.DataFrame({"cell_type": [["B"]]})}, ["cell_type", "cannot be categories"]),
        (
            {"n": 1, "obs": pd.DataFrame({"cell_type": ["B"]})},
            ["obs: got n or where as well"],
        ),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("method", ["sample", "stream"])
def test_a_request_that_cannot_be_met_is_one_clear_line_at_once(synth, method, request_, words):
    with pytest.raises(DataError) as caught:
        getattr(synth, method)(**{"progress": False} | request_)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_batch_size_of_nothing_is_refused_at_once(synth):
    with pytest.raises(RequestError, match="batch_size: got 0"):
        synth.stream(5, batch_size=0)


def test_a_misspelled_option_is_a_type_error(synth):
    with pytest.raises(TypeError, match=r"'step'.*did you mean 'steps'"):
        synth.sample(3, step=4)


def test_a_model_without_labels_takes_no_conditions(cells):
    synth = fit(cells, labels=[])
    for wrong in (
        {"where": {"cell_type": "B"}},
        {"guidance": {"cell_type": 2}},
        {"guidance": 2.0},
        {"guidance_interval": (0.0, 1.0)},
    ):
        with pytest.raises(RequestError, match="labels"):
            sample(synth, 3, **wrong)
    with pytest.raises(RequestError, match="without labels"):
        sample(synth, obs=pd.DataFrame({"cell_type": ["B"]}))
    assert list(sample(synth, 3).obs) == ["synthetic"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda synth: sample(synth, 3),
        lambda synth: list(stream(synth, 3)),
        lambda synth: synth.augment(make_cells(), "cell_type", 60, progress=False),
        lambda synth: synth.transfer(make_cells(), {"donor": 1}, progress=False),
    ],
    ids=["sample", "stream", "augment", "transfer"],
)
@pytest.mark.parametrize("network", ["autoencoder", "denoiser"])
def test_weights_that_are_not_a_number_are_one_clear_error(saved, network, draw):
    broken = scld.load(saved)
    with torch.no_grad():
        getattr(broken._model.generator, network).output.weight.fill_(float("nan"))
    with pytest.raises(SCLDError, match=r"non-finite.*fit again") as caught:
        draw(broken)
    assert "\n" not in str(caught.value)


# Encoding


def test_encoded_cells_are_finite_points_without_the_library_size(synth, cells):
    points = synth.encode(cells)
    assert points.shape == (120, synth.config.autoencoder.latent)
    assert points.dtype == np.float32
    assert np.isfinite(points).all()
    cells.obsm["X_scld"] = points
    deeper = cells.copy()
    deeper.X = 3 * deeper.X
    np.testing.assert_allclose(synth.encode(deeper), points, atol=1e-4)
    assert np.ptp(points, axis=0).max() > 0.1


def test_encoded_cells_are_the_posterior_means_of_the_generator(synth, cells):
    seen = synth.genes["seen"].to_numpy()
    whole = synth._model.generator.encode(cells.X[:, seen])
    np.testing.assert_array_equal(synth.encode(cells), whole[:, :-1])


def test_encoding_does_not_depend_on_threads_gene_order_labels_or_other_cells(synth, threads):
    cells = make_cells(600)
    threads(1)
    alone = synth.encode(cells)
    threads(3)
    shuffled = cells[:, np.random.default_rng(0).permutation(30)].copy()
    for other in (cells, shuffled, ad.AnnData(cells.X, var=cells.var)):
        assert synth.encode(other).tobytes() == alone.tobytes()
    np.testing.assert_allclose(synth.encode(cells[5:9].copy()), alone[5:9], atol=1e-5)
    assert torch.get_num_threads() == 3


def test_encoding_a_layer_or_a_file_and_after_loading(synth, saved, cells, tmp_path):
    expected = synth.encode(cells)
    cells.layers["counts"], cells.X = cells.X, cells.X * 0.5
    cells.write_h5ad(tmp_path / "a.h5ad")
    for source in (cells, tmp_path / "a.h5ad"):
        np.testing.assert_array_equal(synth.encode(source, layer="counts"), expected)
    np.testing.assert_array_equal(scld.load(saved).encode(cells, layer="counts"), expected)
    with pytest.raises(DataError, match="not integers"):
        synth.encode(cells)
    with pytest.raises(DataError, match="27 of the model's genes are missing"):
        synth.encode(cells[:, :3].copy(), layer="counts")


# Unusual cells


def unusual(counts, **obs):
    """Cells with these counts and labels."""
    table = pd.DataFrame(obs, index=[f"c{i}" for i in range(len(counts))])
    var = pd.DataFrame(index=[f"g{i}" for i in range(np.shape(counts)[1])])
    return ad.AnnData(sp.csr_matrix(np.asarray(counts, np.float32)), obs=table, var=var)


RANDOM = np.random.default_rng(0)
UNUSUAL = {
    "the fewest cells": RANDOM.poisson(2, (20, 5)) + 1,
    "a single gene": RANDOM.poisson(5, (30, 1)) + 1,
    "a single gene with counts": np.hstack([RANDOM.poisson(5, (30, 1)) + 1, np.zeros((30, 3))]),
    "all cells equal": np.ones((30, 4)),
    "one count per cell": np.eye(6)[np.arange(30) % 6],
    "one huge cell": np.vstack([np.full((1, 4), 2**24 - 1), RANDOM.poisson(2, (40, 4)) + 1]),
    "one gene takes nearly all": np.hstack(
        [RANDOM.poisson(1e6, (40, 1)), RANDOM.poisson(0.1, (40, 5))]
    ),
}


@pytest.mark.parametrize("genes", [12, 60])
def test_the_largest_counts_give_cells_that_can_be_read_and_models_that_can_be_loaded(
    tmp_path, genes
):
    cells = unusual(np.full((60, genes), 2**24 - 1))
    with pytest.warns(UserWarning, match=f"vary less .*: {genes} .*variance 0"):
        synth = fit(cells, labels=[], checkpoint=tmp_path / "a.scld")
    made = sample(scld.load(tmp_path / "a.scld"), 50)
    assert made.X.max() == 2**24 - 1
    check_same(made, sample(synth, 50))
    assert scld.data.count_matrix(made).nnz == made.X.nnz


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_counts(kind):
    cells = unusual(UNUSUAL[kind])
    made = sample(fit(cells, labels=[]), 50)
    assert np.isfinite(made.X.data).all()
    assert made.X.sum(axis=1).min() >= 1
    assert made.shape == (50, cells.n_vars)


NAMES = ["a=b", "X", "obs", "zelltyp ü", "two words", "n", "'quoted\"", "_index_"]
NAMES += ["labels", "0", "cell_type."]


@pytest.mark.parametrize("name", NAMES)
def test_unusual_names_of_labels_and_categories(name, tmp_path):
    counts = RANDOM.poisson(2, (30, 5)) + 1
    values = np.array(["NA", "a=b/c", "Ü\n"])[np.arange(30) % 3]
    synth = fit(unusual(counts, **{name: values}), labels=[name])
    synth.save(tmp_path / "a.scld")
    loaded = scld.load(tmp_path / "a.scld")
    for value in values[:3]:
        made = sample(loaded, 5, where={name: value}, guidance={name: 2.0})
        assert set(made.obs[name]) == {value}
        assert made.uns["scld"]["where"] == {name: [value]}


def test_a_single_category_is_a_label_too(cells):
    cells.obs["batch"] = "only"
    made = sample(fit(cells, labels=["batch"]), 10, guidance=2.0)
    assert set(made.obs["batch"]) == {"only"}


def test_categories_keep_their_order_and_those_without_cells_are_gone(cells):
    stages = np.array(["late", "early"])[np.arange(120) % 2]
    cells.obs["stage"] = pd.Categorical(stages, ["early", "mid", "late"], ordered=True)
    stage = sample(fit(cells, labels=["stage"]), 20).obs["stage"]
    assert list(stage.cat.categories) == ["early", "late"]
    assert stage.cat.ordered


# From disk, and in pieces


def weights(synth):
    return synth._model.generator.parts()


def check_same_model(one, other):
    for name, tensors in weights(one).items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, weights(other)[name][key]), (name, key)


def test_a_fit_from_disk_gives_the_model_of_a_fit_in_memory(cells, config, tmp_path, capsys):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    labels = ["cell_type", "donor"]
    memory = scld.Synthesizer(labels, config=config).fit(cells, stream=False, progress=False)
    disk = scld.Synthesizer(labels, config=config)
    disk.fit(tmp_path / "cells.h5ad", stream=True, checkpoint=tmp_path / "a.scld")
    assert "counts read from a copy on disk" in capsys.readouterr().err
    check_same_model(memory, disk)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.scld", "cells.h5ad"]


def test_pieces_give_the_model_of_the_whole(cells, config):
    pieces = [cells[:50], cells[50:, np.arange(30)[::-1]].copy()]
    whole, parts = (
        scld.Synthesizer("cell_type", config=config).fit(source, progress=False)
        for source in (cells, pieces)
    )
    check_same_model(whole, parts)


@pytest.mark.parametrize(("left", "streamed"), [(10**4, True), (10**12, False), (None, False)])
def test_what_would_fill_the_memory_is_streamed(cells, config, monkeypatch, capsys, left, streamed):
    monkeypatch.setattr("scld.training.memory.memory_left", lambda: left)
    monkeypatch.setattr("scld.training.memory.MemoryEstimate.check", lambda estimate: None)
    scld.Synthesizer("cell_type", config=config).fit(cells)
    assert ("read from a copy on disk" in capsys.readouterr().err) == streamed


def test_cells_that_would_fill_the_memory_are_said_to(synth, monkeypatch):
    monkeypatch.setattr("scld.generation.fitted.memory_left", lambda: 20_000)
    with pytest.warns(UserWarning, match=r"of memory; stream\(...\) gives them in batches"):
        sample(synth, 200)
    list(synth.stream(200, progress=False))


@pytest.mark.parametrize("values", [3.0, [1.0, 1.0, 1.0, 0.0]], ids=["constant", "present or not"])
def test_genes_that_vary_less_than_counts_do_are_named(config, values):
    cells = make_cells()
    dense = cells.X.toarray()
    dense[:, 3] = np.resize(values, len(dense))
    cells.X = sp.csr_matrix(dense)
    with pytest.warns(UserWarning, match=r"vary less .*: 1 .*'gene_3', mean .*raw counts") as seen:
        fit(cells, config=config)
    assert seen[0].filename == __file__


def test_gene_ids_come_along_to_the_cells_and_the_checkpoint(config, tmp_path):
    cells = make_cells()
    cells.var["gene_ids"] = [f"ENSG0{i}" for i in range(cells.n_vars)]
    cells.var["dispersion"] = 0.5
    cells.write_h5ad(tmp_path / "cells.h5ad")
    synth = scld.Synthesizer("cell_type", config=config).fit(
        tmp_path / "cells.h5ad", checkpoint=tmp_path / "model.scld", progress=False
    )
    for model in (synth, scld.load(tmp_path / "model.scld")):
        made = model.sample(
            3, seed=0, progress=False, effects=[scld.Effect({cells.var_names[1]: 1})]
        )
        assert list(made.var) == ["gene_ids", "log2fc_1"]
        assert made.var["gene_ids"].tolist() == cells.var["gene_ids"].tolist()
    made.write_h5ad(tmp_path / "made.h5ad")
    more = synth.augment(tmp_path / "cells.h5ad", "cell_type", "balance", progress=False)
    assert list(more.var) == ["gene_ids", "dispersion"]
