import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from toy import make_cells

import scld
from scld import Config, DataError, NotFittedError, RequestError, Synthesizer
from scld.generation.generator import Generator

TYPES = ["B", "NK", "T"]
SHORT = {
    "intervals": 4,
    "steps": 600,
    "epochs": 1,
    "learning_rate": 0.01,
    "batch": 64,
    "average": 0.95,
}
SMALL = {
    "autoencoder": {"latent": 4, "width": 32},
    "denoiser": {"width": 64},
    "discriminator": {"components": 10, "generated": 1, "trees": 20},
    "autoencoder_training": SHORT,
    "denoiser_training": {**SHORT, "steps": 400},
}
FORMS = {
    "CSR": lambda counts: counts,
    "CSC": sp.csc_matrix,
    "dense": lambda counts: counts.toarray(),
    "integers": lambda counts: counts.astype(np.int32),
    "bytes": lambda counts: counts.astype(np.uint8),
}


def bytes_of(counts):
    parts = [counts] if isinstance(counts, np.ndarray) else [counts.data, counts.indices]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


def with_rare(b=9):
    """Few cells of type B, and obs columns of every kind that are no labels."""
    cells = make_cells()
    is_b = (cells.obs["cell_type"] == "B").to_numpy()
    cells = cells[np.append(np.flatnonzero(is_b)[:b], np.flatnonzero(~is_b))].copy()
    n = cells.n_obs
    texts = [f"t{i}" for i in range(n)]
    depth = np.arange(n)
    cells.obs = cells.obs.assign(depth=depth, flag=True, share=depth / n, text=texts)
    cells.var["length"] = range(30)
    return cells


@pytest.fixture(scope="module")
def learnt():
    """Three types far apart, learnt well enough to separate; of one there are 5 cells."""
    random, cell = np.random.default_rng(0), np.repeat([0, 1, 2], [150, 150, 5])
    markers = np.repeat(np.eye(4)[:3], 10, axis=1)  # ten of each type, and ten other genes
    means = 8.0 * markers + 0.5
    counts = random.poisson(means[cell] * random.gamma(20, 0.05, (305, 1))).astype(np.float32)
    counts[:, 0] += 1
    obs = pd.DataFrame(
        {
            "cell_type": np.array(["a", "b", "rare"])[cell],
            "batch": np.array(["x", "y"])[np.arange(305) % 2],
        },
        index=[f"c{i}" for i in range(305)],
    )
    var = pd.DataFrame(index=[f"g{i}" for i in range(40)])
    cells = ad.AnnData(sp.csr_matrix(counts), obs=obs, var=var)
    synth = Synthesizer(["cell_type", "batch"], config=Config.from_dict(SMALL))
    return cells, synth.fit(cells, progress=False)


def proportions(cells):
    """Mean composition of some cells."""
    return np.asarray(cells.X.sum(axis=0)).ravel() / cells.X.sum()


def nearest_type(cells, real):
    """For each cell, the type with the nearest mean composition."""
    names = np.unique(real.obs["cell_type"])
    of_types = [proportions(real[(real.obs["cell_type"] == name).to_numpy()]) for name in names]
    counts = cells.X.toarray()
    logs = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    distances = np.linalg.norm(logs[:, None] - np.log1p(1e4 * np.stack(of_types)), axis=2)
    return names[distances.argmin(axis=1)]


# Rare types


def test_cells_of_a_type_with_five_cells_are_nearest_to_that_type(learnt):
    real, synth = learnt
    made = synth.sample(300, where={"cell_type": "rare"}, seed=0, progress=False)
    assert (nearest_type(made, real) == "rare").mean() > 0.95
    assert (nearest_type(real, real) == real.obs["cell_type"]).mean() > 0.95


# Augment


def augmented(synth, *args, **more):
    return synth.augment(*args, **{"progress": False, "seed": 0} | more)


@pytest.mark.parametrize("form", FORMS)
def test_the_real_cells_come_first_and_unchanged(synth, form):
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


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("kind", [">f4", ">i4", "float16", ">f2"])
def test_number_types_that_scipy_does_not_know_become_native(synth, kind, form):
    cells = with_rare()
    counts = form(cells.X.toarray())
    if sp.issparse(counts):
        counts.data = counts.data.astype(kind)
    cells.X = counts if sp.issparse(counts) else counts.astype(kind)
    result = augmented(synth, cells, "cell_type", 30)
    assert type(result.X) is type(cells.X)
    assert result.X.dtype in (np.float32, np.int32)
    first = result.X[: cells.n_obs]
    assert (first != with_rare().X).sum() == 0


@pytest.mark.parametrize("to", [1, 30])
def test_names_of_cells_and_genes_that_are_numbers_become_text(config, to):
    cells = make_cells()
    cells.obs_names, cells.var_names = pd.Index(range(120)), pd.Index(range(30))
    synth = Synthesizer("cell_type", config=config).fit(cells, progress=False)
    result = augmented(synth, cells, "cell_type", to)
    assert list(result.var_names) == [str(i) for i in range(30)]
    assert list(result.obs_names[:120]) == [str(i) for i in range(120)]


@pytest.mark.parametrize(
    ("to", "reached"),
    [
        (20, [20, 40, 40]),
        ("balance", [40, 40, 40]),
        (45, [45, 45, 45]),
        ({"B": 12, "T": 50}, [12, 40, 50]),
        ({"NK": 3}, [9, 40, 40]),
        (1, [9, 40, 40]),
    ],
)
def test_each_category_has_the_number_of_cells_asked_for(synth, to, reached):
    result = augmented(synth, with_rare(), "cell_type", to)
    assert result.obs["cell_type"].value_counts()[TYPES].tolist() == reached
    assert result.obs["synthetic"].dtype == bool
    assert int(result.obs["synthetic"].sum()) == sum(reached) - 89
    assert result.obs["donor"].notna().all()


def test_synthetic_cells_are_those_of_a_sample_in_the_gene_order_of_the_real_ones(synth):
    cells = with_rare()
    options = {"seed": 4, "guidance": 2.0}
    result = augmented(synth, cells[:, ::-1].copy(), "cell_type", {"B": 309}, **options)
    table = pd.DataFrame({"cell_type": ["B"] * 300})
    expected = synth.sample(obs=table, progress=False, **options)
    np.testing.assert_array_equal(result[89:].X.toarray(), expected.X.toarray()[:, ::-1])
    assert result.obs["donor"][89:].tolist() == expected.obs["donor"].tolist()


def test_a_category_without_real_cells_can_be_added(synth):
    cells = with_rare(0)
    cells.obs["cell_type"] = cells.obs["cell_type"].cat.remove_unused_categories()
    result = augmented(synth, cells, "cell_type", 45)
    assert result.obs["cell_type"].value_counts().to_dict() == {"NK": 45, "T": 45}
    result = augmented(synth, cells, "cell_type", {"B": 7})
    assert result.obs["cell_type"].value_counts()["B"] == 7


def test_the_same_cells_are_not_appended_twice(synth):
    once = augmented(synth, with_rare(), "cell_type", {"B": 20})
    with pytest.raises(RequestError, match="seed: 11 of the synthetic cells are in the source"):
        augmented(synth, once, "cell_type", {"B": 31})
    other = augmented(synth, once, "cell_type", {"B": 31}, seed=1)
    assert other.obs_names.is_unique


def test_augmented_cells_can_be_augmented_again(synth):
    once = augmented(synth, with_rare(), "cell_type", 20)
    twice = augmented(synth, once, "cell_type", 30)
    assert twice.obs_names.is_unique
    assert twice.obs["synthetic"][: once.n_obs].tolist() == once.obs["synthetic"].tolist()
    assert twice.obs["cell_type"].value_counts()["B"] == 30


def test_counts_that_do_not_fit_the_number_type_widen_it(synth, monkeypatch):
    cells = with_rare()
    cells.X = cells.X.astype(np.uint8)
    usual = Generator.generate

    def larger(self, *args):
        drawn = usual(self, *args)
        return drawn._replace(counts=drawn.counts * np.float32(300))

    monkeypatch.setattr(Generator, "generate", larger)
    result = augmented(synth, cells, "cell_type", 20)
    assert result.X.dtype == np.float32
    np.testing.assert_array_equal(result.X[:89].toarray(), cells.X.toarray())
    assert result.X.max() > 255


def test_cells_of_a_layer_or_a_file_and_labels_of_other_kinds(synth, tmp_path):
    cells = with_rare()
    cells.layers["raw"] = cells.X.copy()
    cells.X = sp.csr_matrix(np.log1p(cells.X.toarray()))
    cells.write_h5ad(tmp_path / "a.h5ad")
    for source in (cells, tmp_path / "a.h5ad"):
        result = augmented(synth, source, "cell_type", 20, layer="raw")
        np.testing.assert_array_equal(result.X[:89].toarray(), cells.layers["raw"].toarray())
    cells = with_rare()
    cells.obs["donor"] = cells.obs["donor"].astype(str)
    assert set(augmented(synth, cells, "cell_type", 20).obs["donor"]) == {"0", "1"}
    del cells.obs["donor"]
    result = augmented(synth, cells, "cell_type", 20)
    assert result.obs["donor"].isna().tolist() == [True] * 89 + [False] * 11


def test_augmented_cells_can_be_written_and_keep_their_settings(synth, tmp_path):
    result = augmented(synth, with_rare(), "cell_type", 20, seed=4)
    result.write_h5ad(tmp_path / "more.h5ad")
    back = ad.read_h5ad(tmp_path / "more.h5ad")
    assert back.obs["synthetic"].tolist() == result.obs["synthetic"].tolist()
    assert back.uns["scld"]["seed"] == 4


def spoilt(change):
    cells = with_rare()
    change(cells)
    return cells


def without_a_label(cells):
    cells.obs["cell_type"] = cells.obs["cell_type"].where(np.arange(89) != 3)


@pytest.mark.parametrize(
    ("cells", "args", "words"),
    [
        (with_rare(), ("type", 20), ["label: 'type' is not a label of this model"]),
        (with_rare(), ("cell_type", 0), ["to: got 0", "from 1"]),
        (with_rare(), ("cell_type", "all"), ["to: got 'all'", "'balance'"]),
        (with_rare(), ("cell_type", 2.5), ["to: got 2.5"]),
        (with_rare(), ("cell_type", {"b cell": 5}), ["no category 'b cell'"]),
        (with_rare(), ("cell_type", {"B": -5}), ["to: 'B': got -5"]),
        (
            spoilt(lambda cells: cells.obs.__setitem__("cell_type", "Q")),
            ("cell_type", 20),
            ["no category 'Q' in training"],
        ),
        (
            spoilt(lambda cells: cells.obs.__delitem__("cell_type")),
            ("cell_type", 20),
            ["label 'cell_type': no such obs column"],
        ),
        (spoilt(without_a_label), ("cell_type", 20), ["missing for 1 of 89 cells", "real_9"]),
        (
            with_rare()[:, :20].copy(),
            ("cell_type", 20),
            ["10 of the model's genes are missing", "'gene_20'"],
        ),
        (
            spoilt(lambda cells: setattr(cells, "var_names", [f"x{i}" for i in range(30)])),
            ("cell_type", 20),
            ["30 are not its genes", "'x0'"],
        ),
        (
            spoilt(lambda cells: setattr(cells, "X", cells.X * 0.5)),
            ("cell_type", 20),
            ["not integers"],
        ),
        (
            spoilt(lambda cells: cells.obs.__setitem__("synthetic", "no")),
            ("cell_type", 20),
            ["column 'synthetic'", "rename it"],
        ),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, tuple) else "",
)
def test_cells_that_cannot_be_augmented_are_one_clear_line(synth, cells, args, words):
    with pytest.raises(DataError) as caught:
        augmented(synth, cells, *args)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


# Transfer


def transferred(synth, *args, **more):
    return synth.transfer(*args, **{"progress": False, "seed": 0} | more)


def check_names(made, cells):
    """The names of the real cells, after one prefix: no cell has the name of a real one."""
    names = zip(made.obs_names, cells.obs_names, strict=True)
    (prefix,) = {name.removesuffix(f"_{of}") for name, of in names}
    assert prefix.startswith("scld_")


def check_same_cells(made, expected):
    """Labels and marks are those of a sample with a table; its names come after a prefix."""
    check_names(made, expected)
    columns = expected.obs[made.obs.columns].set_axis(made.obs_names)
    pd.testing.assert_frame_equal(made.obs, columns)


def without_labels(cells):
    """Some cells lack a donor; all lack a type."""
    obs = cells.obs.drop(columns="cell_type")
    cells.obs = obs.assign(donor=obs["donor"].astype("Int64").mask(np.arange(cells.n_obs) % 3 == 0))
    return cells


def unseen_together(cells):
    cells.obs["donor"] = (cells.obs["cell_type"] == "B").astype(int)
    return cells


@pytest.mark.parametrize("post", ["off", "select"])
@pytest.mark.parametrize("change", [None, without_labels], ids=["complete", "labels missing"])
def test_at_strength_1_a_transfer_is_a_sample_with_a_table_byte_for_byte(synth, change, post):
    """Nothing of a cell is kept but its other labels; missing ones are drawn."""
    cells = make_cells(300)
    cells = change(cells) if change else cells
    options = {"seed": 2, "post": post, "guidance": 2.0}
    made = transferred(synth, cells, {"cell_type": "NK"}, strength=1.0, **options)
    table = cells.obs.assign(cell_type="NK")
    expected = synth.sample(obs=table, progress=False, **options)
    assert bytes_of(made.X) == bytes_of(expected.X)
    check_same_cells(made, expected)
    assert made.obs.notna().all(axis=None)


def test_at_strength_1_a_missing_label_that_is_not_changed_is_drawn(synth):
    cells = without_labels(make_cells(300))
    made = transferred(synth, cells, {"donor": 1}, strength=1)
    expected = synth.sample(obs=cells.obs[[]].assign(donor=1), seed=0, progress=False)
    assert bytes_of(made.X) == bytes_of(expected.X)
    check_same_cells(made, expected)
    assert set(made.obs["cell_type"]) == set(TYPES)


def test_at_strength_1_unseen_combinations_are_those_of_a_sample(config):
    cells = unseen_together(make_cells())
    synth = Synthesizer(["cell_type", "donor"], config=config).fit(cells, progress=False)
    made = transferred(synth, cells, {"donor": 1}, strength=1)
    expected = synth.sample(obs=cells.obs.assign(donor=1), seed=0, progress=False)
    assert bytes_of(made.X) == bytes_of(expected.X)
    check_same_cells(made, expected)
    assert not made.obs["seen_in_training"].all()


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_the_same_cells_come_back_in_order_under_the_new_label(synth, strength):
    cells = make_cells(300)
    cells = cells[:, np.random.default_rng(0).permutation(30)].copy()
    made = transferred(synth, cells, {"donor": 1}, strength=strength)
    check_names(made, cells)
    assert set(made.obs["donor"]) == {1}
    types = (some.obs["cell_type"].astype(str).tolist() for some in (made, cells))
    assert next(types) == next(types)
    assert made.var_names.tolist() == synth.genes["gene"].tolist()
    in_order = transferred(synth, make_cells(300), {"donor": 1}, strength=strength)
    assert (made.X != in_order.X).nnz == 0


def library_sizes(cells):
    return np.asarray(cells.X.sum(axis=1)).ravel()


def test_a_small_strength_keeps_a_cell_and_strength_1_does_not(learnt):
    """Types are far apart, so what a cell was shows in its counts.

    Under its own label it stays what it was.
    """
    real, synth = learnt
    kept, lost = (
        transferred(synth, real, {"batch": "x"}, strength=strength) for strength in (0.05, 1.0)
    )
    assert (nearest_type(kept, real) == real.obs["cell_type"]).mean() > 0.95
    sizes = np.log(library_sizes(real))[:150]
    of_kept, of_lost = (
        np.corrcoef(sizes, np.log(library_sizes(made))[:150])[0, 1] for made in (kept, lost)
    )
    assert of_kept > 0.2 + abs(of_lost)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_below_strength_1_library_sizes_are_kept_at_any_guidance_weight(learnt, guidance):
    real, synth = learnt
    cells = real[(real.obs["cell_type"] == "a").to_numpy()].copy()
    made = transferred(synth, cells, {"cell_type": "b"}, strength=0.5, guidance=guidance)
    logs = np.log(library_sizes(made)) - np.log(library_sizes(cells))
    assert abs(logs.mean()) < 5 * logs.std() / np.sqrt(len(logs))


@pytest.mark.parametrize("strength", [0.05, 0.9])
@pytest.mark.parametrize("own", ["known", "missing"])
def test_a_type_can_be_changed_at_any_strength(learnt, strength, own):
    real, synth = learnt
    cells = real[(real.obs["cell_type"] == "a").to_numpy()].copy()
    if own == "missing":
        del cells.obs["cell_type"]
    made = transferred(synth, cells, {"cell_type": "b"}, strength=strength)
    assert (nearest_type(made, real) == "b").mean() > 0.9


def test_an_unseen_combination_is_marked(config):
    cells = unseen_together(make_cells())
    synth = Synthesizer(["cell_type", "donor"], config=config).fit(cells, progress=False)
    made = transferred(synth, cells, {"donor": 1}).obs
    assert made["seen_in_training"].tolist() == (cells.obs["cell_type"] == "B").tolist()
    one = transferred(synth, cells[:1].copy(), {"donor": 1}).obs
    assert "seen_in_training" not in one


def test_below_strength_1_missing_labels_stay_unspecified(synth):
    cells = make_cells()
    del cells.obs["cell_type"]
    made = transferred(synth, cells, {"donor": 0}).obs
    assert made["cell_type"].isna().all()
    assert list(made) == ["cell_type", "donor", "synthetic"]


def test_the_settings_of_a_transfer_are_recorded(synth):
    options = {"strength": 0.5, "steps": 10, "seed": 3}
    recorded = transferred(synth, make_cells(), {"donor": 0}, **options).uns["scld"]
    assert (recorded["strength"], recorded["steps"], recorded["seed"]) == (0.5, 5, 3)
    assert recorded["to"] == {"donor": ["0"]}


@pytest.mark.parametrize(
    ("to", "more", "words"),
    [
        ({}, {}, ["to: got {}"]),
        ({"cell_type": ["B", "T"]}, {}, ["to: got", "one category"]),
        ({"cell_type": None}, {}, ["to: got"]),
        ({"celltype": "B"}, {}, ["to: 'celltype' is not a label", "did you mean 'cell_type'?"]),
        ({"cell_type": "b"}, {}, ["no category 'b'"]),
        ("cell_type=B", {}, ["to: got str"]),
        ({"cell_type": "B"}, {"strength": 0.0}, ["strength: got 0.0", "from 0.001 to 1"]),
        ({"cell_type": "B"}, {"strength": 1e-50}, ["strength: got 1e-50", "from 0.001 to 1"]),
        ({"cell_type": "B"}, {"strength": 1.5}, ["strength: got 1.5"]),
        ({"cell_type": "B"}, {"strength": float("nan")}, ["strength: got nan"]),
        ({"cell_type": "B"}, {"strength": "much"}, ["strength: got 'much'"]),
        ({"cell_type": "B"}, {"guidance_interval": (3, 1)}, ["guidance_interval: got (3, 1)"]),
    ],
    ids=str,
)
def test_a_transfer_that_cannot_be_met_is_one_clear_line(synth, to, more, words):
    with pytest.raises(RequestError) as caught:
        transferred(synth, make_cells(), to, **more)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_the_smallest_strength_gives_no_empty_cells(synth):
    made = transferred(synth, make_cells(), {"cell_type": "B"}, strength=0.001)
    assert library_sizes(made).min() >= 1


def with_unknown_counts():
    """One cell has counts only in the gene that training never saw."""
    cells = make_cells()
    counts = cells.X.toarray()
    counts[7], counts[7, 4] = 0, 5
    cells.X = sp.csr_matrix(counts)
    return cells


def test_a_cell_with_counts_only_in_unseen_genes_is_refused(synth):
    words = r"1 cells have counts only in genes that training never saw \(first: 'real_7'\)"
    for call in (
        lambda: transferred(synth, with_unknown_counts(), {"donor": 1}),
        lambda: augmented(synth, with_unknown_counts(), "cell_type", 50),
        lambda: synth.encode(with_unknown_counts()),
    ):
        with pytest.raises(DataError, match=words):
            call()


# All


@pytest.mark.parametrize(
    "edit",
    [
        lambda synth: transferred(synth, make_cells(600), {"cell_type": "B"}, guidance=2.0),
        lambda synth: augmented(synth, with_rare(), "cell_type", 300),
    ],
    ids=["transfer", "augment"],
)
def test_any_number_of_threads_gives_the_same_bytes(synth, threads, edit):
    made = []
    for number in (1, 2):
        threads(number)
        made.append(edit(synth))
        assert torch.get_num_threads() == number
    assert bytes_of(made[0].X) == bytes_of(made[1].X)
    pd.testing.assert_frame_equal(made[0].obs, made[1].obs)


def test_before_a_fit_there_is_nothing_to_edit_with():
    synth = Synthesizer("cell_type")
    for call in (
        lambda: synth.augment(make_cells(), "cell_type", 5),
        lambda: synth.transfer(make_cells(), {"cell_type": "B"}),
        lambda: synth.encode(make_cells()),
    ):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            call()


def test_a_model_without_labels(config):
    synth = Synthesizer(config=config).fit(make_cells(), progress=False)
    for call in (
        lambda: augmented(synth, make_cells(), "cell_type", 50),
        lambda: transferred(synth, make_cells(), {"cell_type": "B"}),
    ):
        with pytest.raises(RequestError, match="not a label of this model"):
            call()


def test_a_saved_model_edits_alike(synth, saved):
    loaded = scld.load(saved)
    one, other = (transferred(some, make_cells(), {"donor": 1}) for some in (loaded, synth))
    assert (one.X != other.X).nnz == 0
