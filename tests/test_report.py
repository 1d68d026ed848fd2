"""The evaluation as a whole: floors, traps, graded corruption, bad input, and the files it writes."""

from __future__ import annotations

import json
from itertools import pairwise

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scld
from scld import metrics
from scld.judge import BASELINES, common_sizes, draw, halve
from scld.metrics.catalogue import FIGURES

TYPES = ["B cell", "T cell", "monocyte"]
QUICK = {"label": "cell_type", "halvings": 1, "progress": False, "max_cells": 147}  # 49 of a type: one short of a two-sample test by type


def population(n, seed, genes=150, donors=None):
    """Cells of three types with depth, programmes that join genes, and noise: a small world where the truth is known."""
    world, rng = np.random.default_rng(7), np.random.default_rng(seed)
    level = world.gamma(0.6, 1.5, genes)
    markers = np.exp(1.2 * world.normal(size=(3, genes)) * (world.random((3, genes)) < 0.25))
    programmes = world.normal(size=(3, 4, genes)) * (world.random((3, 4, genes)) < 0.2)
    codes = rng.permutation(np.arange(n) % 3)
    activity = np.einsum("np,npg->ng", rng.normal(size=(n, 4)), programmes[codes])
    depth = rng.lognormal(0, 0.35, (n, 1))
    counts = rng.poisson(depth * level * markers[codes] * np.exp(0.5 * activity)).astype(np.float32)
    counts[:, 0] += 1  # no empty cell
    obs = pd.DataFrame({"cell_type": np.array(TYPES)[codes]}, index=[f"c{i}" for i in range(n)])
    if donors is not None:
        obs["donor"] = rng.choice(donors, n)
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(genes)]))


def rebuilt(adata, fake, seed=0):
    """A set made type by type by a trivial fake."""
    rng, types = np.random.default_rng(seed), adata.obs["cell_type"].to_numpy()
    parts = [fake(adata.X[types == t], int((types == t).sum()), rng) for t in TYPES]
    obs = pd.DataFrame({"cell_type": np.repeat(TYPES, [part.shape[0] for part in parts])}).set_index(pd.RangeIndex(adata.n_obs).astype(str))
    return ad.AnnData(sp.vstack(parts, format="csr"), obs=obs, var=adata.var)


def noise_free(adata):
    """Every cell the rounded mean of its type, times its depth: no variation but of depth."""
    dense, types = adata.X.toarray(), adata.obs["cell_type"].to_numpy()
    mean = np.stack([dense[types == t].mean(axis=0) for t in types])
    depth = dense.sum(axis=1, keepdims=True) / mean.sum(axis=1, keepdims=True)
    copy = adata.copy()
    copy.X = sp.csr_matrix(np.rint(mean * depth).astype(np.float32))
    return copy


def mixed(a, b, share, seed=0):
    """``a`` with a share of its cells replaced by those of ``b``, of the same types."""
    rows = np.random.default_rng(seed).random(a.n_obs) < share
    wanted = a.obs["cell_type"][rows].value_counts()
    taken = [row for t, n in wanted.items() for row in np.flatnonzero(b.obs["cell_type"] == t)[:n]]
    return ad.concat([a[~rows], b[taken]], index_unique="-")


@pytest.fixture(scope="module")
def train():
    return population(600, 1)


@pytest.fixture(scope="module")
def test():
    return population(600, 2)


@pytest.fixture(scope="module")
def fresh():
    return population(600, 3)


@pytest.fixture(scope="module")
def report(train, test, fresh):
    """Truth, and the traps, in one evaluation."""
    sets = {
        "truth": fresh,
        "noise-free": noise_free(train),
        "shuffled": rebuilt(train, metrics.shuffle),
        "copies": rebuilt(train, metrics.bootstrap),
    }
    return scld.evaluate(train, test, sets, **{**QUICK, "halvings": 2})


# --- fairness


def test_halves_are_disjoint_and_of_the_composition_asked_for():
    codes = np.repeat([0, 1, 2], [10, 20, 31])
    sizes = {0: 5, 2: 7}
    first, second = halve(codes, sizes, np.random.default_rng(0))
    assert not set(first) & set(second)
    for rows in (first, second, draw(codes, sizes, np.random.default_rng(1))):
        assert dict(zip(*np.unique(codes[rows], return_counts=True), strict=True)) == sizes


def test_common_sizes_are_what_every_set_can_give():
    assert common_sizes([np.array([5, 9, 0]), np.array([7, 4, 3])], 100) == {0: 5, 1: 4}
    scaled = common_sizes([np.array([1000, 100])], 110)
    assert scaled == {0: 100, 1: 10}


def test_real_cells_lie_at_the_floor_in_every_figure(report):
    """Cells from the same source as the test cells, 147 a side: no figure is far off, and nearly all are where real cells are."""
    truth = report.table[(report.table["set"] == "truth") & (report.table["scope"] == "overall")].dropna(subset=["position"]).set_index("figure")
    assert len(truth) > 20
    assert truth["position"].max() < 0.4
    assert truth["position"].median() < 0.05


def test_the_floor_is_fair_where_a_training_subset_is_not(report):
    assert report.value("floor", "c2st") == pytest.approx(0.5, abs=0.08)
    assert report.value("floor", "nearer_training") == pytest.approx(0.5, abs=0.08)


# --- traps


def test_trap_of_the_noise_free_fake(report):
    """It mixes and lies precisely among real cells; the two-sample test, density and gene variances expose it."""
    assert report.value("noise-free", "precision") > 0.9
    assert report.value("noise-free", "c2st") > 0.95
    assert report.value("noise-free", "gene_variance") > 2 * report.value("floor", "gene_variance")
    assert report.value("noise-free", "recall") < 0.5 * report.value("floor", "recall")


def test_trap_of_the_shuffle(report):
    """Every gene right, no two together: gene-wise figures and train-on-synthetic are content; correlations and the boosted test are not."""
    assert report.value("shuffled", "gene_zeros") < 1.5 * report.value("floor", "gene_zeros")
    assert report.value("shuffled", "tstr_f1") > report.value("floor", "tstr_f1") - 0.05
    assert abs(report.value("shuffled", "correlation")) < 0.3 * report.value("floor", "correlation")
    assert report.value("shuffled", "c2st") > report.value("floor", "c2st") + 0.15


def test_trap_of_the_copies(report):
    """As good as real in quality, exposed by every figure of privacy."""
    assert report.value("copies", "exact_copies") == 1
    assert report.value("copies", "repeated_cells") > 0.2
    assert report.value("copies", "nearer_training") > 0.95
    assert report.value("copies", "membership_auc") > report.value("truth", "membership_auc") + 0.05
    assert report.value("copies", "gene_mean") < 1.5 * report.value("floor", "gene_mean")
    assert report.value("truth", "exact_copies") == 0


def test_the_verdict_names_what_is_wrong(report):
    from scld import verdict

    assert any("exact copies" in text for text in verdict.warnings(report.table, "copies"))
    words = {one.figure.name: one.word for one in verdict.findings(report.table, "shuffled")}
    assert words["correlation"] in ("far off", "as bad as the worst fake")
    assert verdict.headline(report.table, "truth").count("%") >= 4


def test_worst_genes_finds_the_gene_that_was_spoilt(train, test, fresh):
    spoilt = fresh.copy()
    dense = spoilt.X.toarray()
    gene = int(np.argmax((dense > 0)[:, 1:].mean(axis=0))) + 1
    dense[:, gene] = 0
    spoilt.X = sp.csr_matrix(dense)
    found = scld.evaluate(train, test, spoilt, baselines=False, **QUICK)
    from scld import verdict

    assert verdict.worst_genes(found.genes, "synthetic").iloc[0]["gene"] == f"g{gene}"


# --- graded corruption


def falling(values):
    return all(a > b for a, b in pairwise(values))


def graded(train, test, sets):
    found = scld.evaluate(train, test, sets, baselines=False, **QUICK)
    return lambda figure, scope="overall": [found.value(name, figure, scope) for name in sets]


def test_more_poisson_cells_are_worse(train, test, fresh):
    poisson = rebuilt(train, metrics.poisson)
    score = graded(train, test, {f"{share:.0%}": mixed(fresh, poisson, share) for share in (0, 0.4, 0.8)})
    for figure in ("c2st", "c2st_boosting", "gene_variance"):
        assert falling(score(figure)[::-1]), figure
    for figure in ("mmd2", "energy_distance", "density", "detected_ks", "library_ks"):  # less sharp: in 147 cells they see most Poisson cells, not some
        assert score(figure)[0] < score(figure)[-1], figure
    for figure in ("recall", "correlation"):
        assert falling(score(figure)), figure
    assert score("ilisi")[0] > score("ilisi")[-1]


def test_more_swapped_labels_are_worse(train, test, fresh):
    def swapped(share):
        copy, rng = fresh.copy(), np.random.default_rng(0)
        rows = rng.random(copy.n_obs) < share
        copy.obs.loc[rows, "cell_type"] = rng.permutation(copy.obs["cell_type"][rows].to_numpy())
        return copy

    score = graded(train, test, {f"{share:.0%}": swapped(share) for share in (0, 0.4, 0.9)})
    for figure in ("label_accuracy", "marker_slope", "tstr_f1"):
        assert falling(score(figure)), figure
    assert falling(score("w2", "T cell")[::-1])  # in its type a cell of another is plain to see
    assert max(score("c2st")) < 0.62  # without labels nothing is wrong: that is why types are scored apart


def test_thinner_counts_are_worse(train, test, fresh):
    def thinned(share):
        copy = fresh.copy()
        copy.X = copy.X.copy()
        copy.X.data = np.random.default_rng(0).binomial(copy.X.data.astype(int), 1 - share).astype(np.float32)
        copy.X.eliminate_zeros()
        return copy

    score = graded(train, test, {f"{share:.0%}": thinned(share) for share in (0, 0.3, 0.7)})
    for figure in ("library_ks", "detected_ks", "gene_zeros", "gene_mean", "detection_gap", "c2st", "w1", "w2"):
        assert falling(score(figure)[::-1]), figure


def test_more_training_cells_among_them_are_worse(train, test, fresh):
    score = graded(train, test, {f"{share:.0%}": mixed(fresh, train, share) for share in (0, 0.4, 0.9)})
    for figure in ("exact_copies", "nearer_training", "membership_auc"):
        assert falling(score(figure)[::-1]), figure


# --- the table


def test_the_table_is_tidy(report):
    table = report.table
    assert not table.duplicated(["set", "scope", "figure"]).any()
    assert set(table["set"]) == {"truth", "noise-free", "shuffled", "copies", "floor", *BASELINES}
    assert set(table["scope"]) == {"overall", *TYPES}
    assert set(table["better"]) == {"lower", "higher", "target"}
    assert (table["lower"].dropna() <= table["value"][table["lower"].notna()] + 1e-12).all()
    scored = set(table["figure"][table["floor"].notna()])
    assert scored == {figure.name for figure in FIGURES} - {"donor_membership_auc"}


def test_positions_run_from_the_floor_to_the_worst_fake(report):
    overall = report.table[(report.table["scope"] == "overall") & report.table["set"].isin(list(BASELINES))]
    worst = overall.groupby("figure")["position"].max().dropna()
    np.testing.assert_allclose(worst, 1)
    assert (report.table.loc[report.table["set"] == "floor", "position"] == 0).all()


def test_same_seed_same_figures(train, test, fresh):
    small = {**QUICK, "baselines": False, "max_cells": 60}
    first, second = (scld.evaluate(train, test, fresh, **small).table for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    other = scld.evaluate(train, test, fresh, **small, seed=5).table
    assert not np.allclose(first["value"], other["value"])


def test_json_holds_the_table(report, tmp_path):
    path = tmp_path / "report.json"
    report.to_json(path)
    read = json.loads(path.read_text())
    assert len(read["figures"]) == len(report.table)
    assert read["figures"][0]["value"] == pytest.approx(report.table["value"][0], abs=1e-7)


def test_summary_shows_every_set_beside_the_floor(report):
    text = str(report)
    for name in ("truth", "copies", "floor", "poisson", "C2ST AUC, worst of three"):
        assert name in text


def test_costs_are_shown(train, test, fresh):
    found = scld.evaluate(train, test, {"a": fresh}, costs={"a": {"seconds": 3.5}}, **QUICK, baselines=False)
    assert found.value("a", "seconds") == 3.5
    with pytest.raises(scld.RequestError, match="'b' is not a synthetic set"):
        scld.evaluate(train, test, {"a": fresh}, costs={"b": {"seconds": 1}}, **QUICK)


def test_donors_held_out_make_a_figure(test):
    train, held_out = population(400, 1, donors=["d1", "d2", "d3"]), population(400, 2, donors=["d4", "d5"])
    copies = rebuilt(train, metrics.bootstrap)
    found = scld.evaluate(train, held_out, copies, donor="donor", **QUICK, baselines=False)
    assert found.value("synthetic", "donor_membership_auc") == 1
    assert found.value("floor", "donor_membership_auc") == 0.5


def test_donors_on_both_sides_are_left_out_and_said(test):
    train, other = population(300, 1, donors=["d1", "d2"]), population(300, 2, donors=["d1", "d2"])
    found = scld.evaluate(train, other, population(300, 3), donor="donor", **QUICK, baselines=False)
    assert np.isnan(found.value("synthetic", "donor_membership_auc"))
    assert any("at least two donors" in note for note in found.notes)


# --- what people hand in


def log_normalised(adata, target=1e4):
    copy = adata.copy()
    copy.X = metrics.log_normalise(copy.X)
    copy.X.data = np.log1p(np.expm1(copy.X.data) * target / 1e4)
    return copy


def test_log_normalised_cells_score_as_their_counts_without_the_count_figures(train, test, fresh):
    quick = {**QUICK, "baselines": False}
    of_counts = scld.evaluate(train, test, fresh, **quick)
    of_logs = scld.evaluate(train, test, log_normalised(fresh), **quick, log_normalised=True)
    assert of_logs.value("synthetic", "w2") == pytest.approx(of_counts.value("synthetic", "w2"), rel=1e-4)
    assert np.isnan(of_logs.value("synthetic", "library_ks"))
    assert of_counts.value("synthetic", "library_ks") > 0
    assert any("carry no library size" in note for note in of_logs.notes)
    assert np.isnan(of_logs.value("synthetic", "integers"))


def test_log_normalised_copies_are_found(train, test):
    found = scld.evaluate(train, test, {"logs": log_normalised(train)}, log_normalised=["logs"], **QUICK, baselines=False)
    assert found.value("logs", "exact_copies") == 1


@pytest.mark.parametrize("target", [1e6, 100])
def test_another_normalisation_is_refused(train, test, fresh, target):
    with pytest.raises(scld.DataError, match="normalised otherwise"):
        scld.evaluate(train, test, log_normalised(fresh, target), log_normalised=True, **QUICK)


def test_log_values_passed_as_counts_are_refused_with_the_way_out(train, test, fresh):
    with pytest.raises(scld.DataError, match=r"synthetic: .*say so with log_normalised"):
        scld.evaluate(train, test, log_normalised(fresh), **QUICK)


def test_the_layer_is_used_where_a_set_has_it_and_said_where_not(train, test, fresh):
    moved = []
    for cells in (train, test):
        copy = cells.copy()
        copy.layers["counts"], copy.X = copy.X, metrics.log_normalise(copy.X)
        moved.append(copy)
    found = scld.evaluate(*moved, fresh, layer="counts", **QUICK, baselines=False)
    assert found.value("synthetic", "w2") == pytest.approx(scld.evaluate(train, test, fresh, **QUICK, baselines=False).value("synthetic", "w2"))
    assert any("synthetic: has no layer 'counts', so X is used" in note for note in found.notes)
    with pytest.raises(scld.DataError, match="test: layer 'counts': not in the AnnData"):
        scld.evaluate(moved[0], test, fresh, layer="counts", **QUICK)


def test_a_label_missing_in_one_file_is_named(train, test, fresh):
    bare = fresh.copy()
    bare.obs = bare.obs.rename(columns={"cell_type": "celltype"})
    with pytest.raises(scld.DataError, match=r"synthetic: no obs column 'cell_type'; columns: 'celltype'.*did you mean 'celltype'"):
        scld.evaluate(train, test, bare, **QUICK)


def test_genes_that_differ_are_counted_and_shared_only_when_asked(train, test, fresh):
    fewer = fresh[:, 10:].copy()
    with pytest.raises(scld.DataError, match=r"synthetic: lacks 10 of the 150 genes of train.*the 140 genes that all sets share"):
        scld.evaluate(train, test, fewer, **QUICK)
    found = scld.evaluate(train, test, fewer, genes="intersection", **QUICK, baselines=False)
    assert len(found.gene_names) == 140
    assert any("140 genes" in note for note in found.notes)


def test_disjoint_genes_are_refused_even_then(train, test, fresh):
    other = fresh.copy()
    other.var_names = [f"ENSG{i}" for i in range(other.n_vars)]
    with pytest.raises(scld.DataError, match="no gene is shared"):
        scld.evaluate(train, test, other, genes="intersection", **QUICK)


def test_another_gene_order_is_put_right_and_fails_validity(train, test, fresh):
    quick = {**QUICK, "baselines": False}
    turned, straight = (scld.evaluate(train, test, cells, **quick) for cells in (fresh[:, ::-1].copy(), fresh))
    assert turned.value("synthetic", "w2") == pytest.approx(straight.value("synthetic", "w2"))
    assert (turned.value("synthetic", "gene_order"), straight.value("synthetic", "gene_order")) == (0, 1)


def test_no_test_set_is_said_and_privacy_left_out(train, fresh):
    found = scld.evaluate(train, None, fresh, **QUICK, baselines=False)
    assert any("No test set was given" in note for note in found.notes)
    assert np.isnan(found.value("synthetic", "nearer_training"))
    assert found.value("synthetic", "exact_copies") == 0
    assert found.value("floor", "w2") > 0


def test_copies_are_found_in_all_training_cells_even_without_a_test_set(train):
    found = scld.evaluate(train, None, train, **QUICK, baselines=False)
    assert found.value("synthetic", "exact_copies") == 1


def test_fewer_than_fifty_cells_are_refused(train, test, fresh):
    with pytest.raises(scld.DataError, match="synthetic: 30 cells that can be scored; at least 50"):
        scld.evaluate(train, test, fresh[:30], **QUICK)


def test_one_type_leaves_out_what_compares_types(train, test, fresh):
    sets = [cells[cells.obs["cell_type"] == "B cell"] for cells in (train, test, fresh)]
    found = scld.evaluate(*sets, **QUICK, baselines=False)
    assert any("One type only" in note for note in found.notes)
    assert np.isnan(found.value("synthetic", "label_accuracy"))
    assert found.value("synthetic", "correlation") > 0.5 * found.value("floor", "correlation") > 0


def test_without_a_label_there_are_overall_figures(train, test, fresh):
    found = scld.evaluate(train, test, fresh, progress=False, halvings=1, baselines=False)
    assert set(found.table["scope"]) == {"overall"}


def test_a_type_that_a_set_lacks_is_left_out_for_all_and_said(train, test, fresh):
    without = fresh[fresh.obs["cell_type"] != "T cell"]
    found = scld.evaluate(train, test, {"whole": fresh, "part": without}, **QUICK, baselines=False)
    assert any("part: no cells, or too few, of 'T cell'" in note for note in found.notes)
    assert np.isnan(found.value("whole", "w2", "T cell"))
    assert found.value("part", "composition") == pytest.approx(1 / 3, abs=0.02)
    assert (found.value("part", "every_label"), found.value("whole", "every_label")) == (0, 1)


def test_unknown_types_are_left_out_and_said(train, test, fresh):
    odd = fresh.copy()
    odd.obs["cell_type"] = odd.obs["cell_type"].replace("T cell", "t-cell")
    found = scld.evaluate(train, test, odd, **QUICK, baselines=False)
    assert any("'t-cell'" in note for note in found.notes)
    assert found.value("synthetic", "known_labels") == 0


def test_empty_synthetic_cells_are_left_out_and_fail_validity(train, test, fresh):
    part_empty = fresh.copy()
    dense = part_empty.X.toarray()
    dense[:5] = 0
    part_empty.X = sp.csr_matrix(dense)
    found = scld.evaluate(train, test, part_empty, **QUICK, baselines=False)
    assert any("5 cells without any count" in note for note in found.notes)
    assert found.value("synthetic", "no_empty_cell") == 0


def test_many_cells_are_subsampled_and_said(train, test, fresh):
    found = scld.evaluate(train, test, fresh, **{**QUICK, "max_cells": 40}, baselines=False)
    assert any("400 of 600 cells" in note for note in found.notes)
    assert sum(found.judgement.sizes.values()) <= 40


@pytest.mark.parametrize("name", ["floor", "real", "train", "poisson"])
def test_names_of_our_own_are_refused(train, test, fresh, name):
    with pytest.raises(scld.RequestError, match=f"the name '{name}'"):
        scld.evaluate(train, test, {name: fresh}, **QUICK)


def test_types_with_cells_enough_are_told_apart_by_type(train, test, fresh):
    bad = rebuilt(train, metrics.poisson)
    one_bad = ad.concat([fresh[fresh.obs["cell_type"] != "T cell"], bad[bad.obs["cell_type"] == "T cell"]], index_unique="-")
    found = scld.evaluate(train, test, one_bad, **{**QUICK, "max_cells": 300}, baselines=False)
    assert found.value("synthetic", "c2st", "T cell") > 0.9
    assert max(found.value("synthetic", "c2st", t) for t in ("B cell", "monocyte")) < 0.7
    from scld import verdict

    assert verdict.worst_types(found.table, "synthetic").iloc[0]["scope"] == "T cell"


# --- the page


def test_the_page_is_one_file_that_asks_for_nothing(train, test, fresh, tmp_path):
    import re
    from html.parser import HTMLParser

    found = scld.evaluate(train, test, {"<b>bold</b>": fresh}, **{**QUICK, "max_cells": 90})
    path = tmp_path / "report.html"
    found.to_html(path)
    text = path.read_text()
    assert path.stat().st_size < 10e6
    assert "<b>bold</b>" not in text
    addresses = [a or b for a, b in re.findall(r'(?:src|href|xlink:href)="([^"]*)"|url\(([^)]*)\)', text)]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append((tag, dict(attrs)))
    parser.feed(text)
    pictures = [attrs for tag, attrs in tags if tag == "svg"]
    assert len(pictures) == 7
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in pictures)
    ids = [attrs["id"] for _, attrs in tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    assert {address[1:] for address in addresses if address.startswith("#")} <= set(ids)


def test_picture_of_a_named_set(report, tmp_path):
    report.to_png(tmp_path / "map.png", "shuffled")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(scld.RequestError, match="did you mean 'shuffled'"):
        report.to_png(tmp_path / "none.png", "shufled")
