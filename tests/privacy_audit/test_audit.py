"""Audits of simulated donors: laws of the controls, disjoint donors, errors, what is written."""

from __future__ import annotations

import json
from itertools import chain, combinations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from scipy.stats import nbinom
from toy import make_cells

import scld
from scld.errors import DataError, RequestError
from scld.privacy_audit import likelihood, replicate, results
from scld.privacy_audit.donors import Cells, split_donors
from scld.privacy_audit.study import _about_controls, _tabulated, audit

FEW = {"replicates": 2, "cells_per_donor": [1, 30], "progress": False}


def make_donors(donors=6, shift=0.3, n=90, genes=30, seed=0):
    """Cells of two types, of donors that differ by random factors of each gene."""
    rates = np.random.default_rng(0).gamma(2, 1, (2, genes))
    rng = np.random.default_rng(seed + 1)
    factors = np.exp(rng.normal(0, shift, (donors, genes)))
    donor, kind = np.repeat(np.arange(donors), n), np.arange(donors * n) % 2
    counts = rng.poisson(rates[kind] * factors[donor]).astype(np.float32)
    counts[:, 0] += 1
    names = [f"cell_{i}" for i in range(len(kind))]
    obs = {"cell_type": np.array(["B", "T"])[kind], "donor": [f"d{i}" for i in donor]}
    return AnnData(sp.csr_matrix(counts), obs=pd.DataFrame(obs, index=names))


class NoReport:
    """In place of the two-sample test, which takes most of the time of a small audit."""

    def value(self, name, metric):
        return 0.5


@pytest.fixture(scope="module", autouse=True)
def without_fidelity():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replicate, "evaluate", lambda *given, **options: NoReport())
        yield


def same_cells(training):
    return training


def unrelated(training):
    """Cells of a population without donors."""
    return make_donors(2, 0.0, training.n_obs // 2, seed=9)


@pytest.fixture(scope="module")
def cells():
    return make_donors()


@pytest.fixture(scope="module")
def copied(cells):
    return audit(cells, generate=same_cells, **FEW)


def test_copies_are_found(copied):
    for attack in (results.COPULA, results.DOMIAS, results.DISTANCE):
        assert copied.value("synthetic", attack, 30) > 0.95
        assert copied.value("copies", attack, 30) > 0.95
        assert copied.value("copies", attack, 1) < copied.value("copies", attack, 30)
    assert copied.value("synthetic", results.COPULA, 30, "tpr_10") > 0.9


def test_donors_without_differences_are_not_found(cells):
    """Neither in cells of other donors, nor in cells that no donor was used for.

    Sets of 30 of 90 cells of a donor are alike, so the AUC of one replicate varies a lot.
    """
    found = audit(make_donors(12, 0.0), generate=unrelated, **{**FEW, "replicates": 4})
    for released in ("synthetic", "same donors", "other donors"):
        for cells_per_donor, most in ((1, 0.08), (30, 0.25)):
            rows = found.values(released=released, metric="auc", cells_per_donor=cells_per_donor)
            assert (rows["value"] - 0.5).abs().max() < most
    assert found.value("copies", results.COPULA, 30) > 0.9


def test_other_cells_of_the_training_donors_tell_of_their_shift(copied):
    """No cell is copied, but its donor is found."""
    assert copied.value("same donors", results.COPULA, 30) > 0.8


@pytest.mark.parametrize("number", [5, 6, 7, 13])
def test_donors_are_disjoint(number):
    names = [str(i) for i in range(number)]
    split = split_donors(names, np.random.default_rng(1))
    assert sorted(chain(*split)) == sorted(names)
    assert len(split.training) == len(split.held_out) == 2 * number // 5
    assert len(split.auxiliary) >= 1
    assert all(not set(a) & set(b) for a, b in combinations(split, 2))


def test_no_attacker_sees_an_attacked_donor(cells, monkeypatch):
    """Released, auxiliary and held-out cells are of different donors, in controls too."""
    seen, scores_of_cells = [], replicate.scores_of_cells

    def record(released, auxiliary, attacked):
        seen.append([set(part.donors) - {""} for part in (released, auxiliary, attacked)])
        return scores_of_cells(released, auxiliary, attacked)

    monkeypatch.setattr(replicate, "scores_of_cells", record)
    trained_on = []
    audit(cells, generate=lambda x: trained_on.append(set(x.obs["donor"])) or x, **FEW)
    assert len(seen) == 2 * len(results.RELEASED)
    for number, (released, auxiliary, attacked) in enumerate(seen):
        training = trained_on[number // len(results.RELEASED)]
        kind = list(results.RELEASED)[number % len(results.RELEASED)]
        assert training < attacked
        assert not auxiliary & (attacked | released)
        assert not released & (attacked - training)
        assert released <= training or kind == "other donors"
        assert not (kind == "other donors" and released & attacked)


def test_the_other_half_of_a_donor_is_attacked(cells, monkeypatch):
    names, scores_of_cells = [], replicate.scores_of_cells

    def record(released, auxiliary, attacked):
        rows = {row.tobytes() for row in released.counts.toarray()}
        names.append(np.mean([row.tobytes() in rows for row in attacked.counts.toarray()]))
        return scores_of_cells(released, auxiliary, attacked)

    monkeypatch.setattr(replicate, "scores_of_cells", record)
    audit(cells, generate=same_cells, **{**FEW, "replicates": 1})
    assert names[0] == 0.5  # synthetic: all training cells, none of the held-out ones
    assert 0.2 < names[1] < 0.45  # copies
    assert names[2:] == [0, 0]


def test_one_auxiliary_donor_is_halved():
    found = audit(make_donors(5), generate=same_cells, **{**FEW, "replicates": 1})
    assert not np.isnan(found.value("other donors", results.COPULA, 30))


def test_same_seed_same_results(cells):
    once = {**FEW, "replicates": 1}
    one, same, other = (audit(cells, generate=same_cells, seed=i, **once).table for i in (0, 0, 1))
    pd.testing.assert_frame_equal(one, same)
    assert not other["value"].equals(one["value"])


def test_genes_in_another_order_change_nothing(cells, copied):
    found = audit(cells, generate=lambda training: training[:, ::-1], **FEW)
    pd.testing.assert_frame_equal(found.table, copied.table)


def test_fidelity_is_beside_the_baseline(cells, monkeypatch):
    def tripled(training):
        return AnnData(training.X * 3, obs=training.obs, var=training.var)

    monkeypatch.setattr(replicate, "evaluate", scld.evaluate)
    found = audit(cells, generate=tripled, **{**FEW, "replicates": 1})
    assert found.value("synthetic", "", 0, "c2st") > 0.95
    assert found.value("baseline", "", 0, "c2st") < 0.7
    fidelity = "Fidelity: C2ST AUC, largest of three classifiers, 1.00; real cells 0."
    assert fidelity in found.summary()


def test_too_few_cells_are_a_dash_with_its_reason(cells):
    found = audit(cells, generate=same_cells, **{**FEW, "cells_per_donor": [30, 60, 91]})
    assert np.isnan(found.value("synthetic", results.COPULA, 91))
    notes = " ".join(found.notes)
    assert "synthetic, 91 cells: a dash, since too few donors have so many" in notes
    assert "same donors, 60 cells: a dash" in notes
    assert "–" in found.summary()


def test_weak_attacks_and_chance_are_named():
    rows = [
        dict(zip(results.KEYS, (name, results.COPULA, 10, "auc"), strict=True), value=value)
        for name, values in (("copies", (0.6, 0.7)), ("other donors", (0.8, 0.8)))
        for value in values
    ]
    notes = list(_about_controls(_tabulated(rows).to_dict("records")))
    assert any("copies: the attack has an AUC of 0.65 even here" in note for note in notes)
    assert any("other donors: an AUC of 0.80 where nothing can be found" in n for n in notes)


@pytest.fixture(scope="module")
def fitted(config):
    """Of the default generator, from cells of five donors."""
    cells = make_cells(300)
    cells.obs["donor"] = [f"d{i % 5}" for i in range(300)]
    return audit(cells, config=config, replicates=1, cells_per_donor=[5], progress=False)


def test_the_default_generator_is_attacked_with_its_likelihood(fitted):
    found = fitted.values(released="synthetic", metric="auc")
    assert list(found["attack"]) == list(results.ATTACKS)
    assert found["value"].between(0, 1).all()
    assert set(fitted.values(attack=results.LIKELIHOOD)["released"]) == {"synthetic"}
    assert not any("likelihood" in note for note in fitted.notes)


def test_the_likelihood_is_negative_binomial(synth):
    """Its difference from that at given proportions, computed by SciPy."""
    import torch

    from scld.model.autoencoder import Batch

    model, counts = synth._fitted, make_cells(12).X
    counts = sp.csr_matrix(counts[:, model.genes["seen"].to_numpy()])
    codes, proportions = np.zeros((12, 2), np.int64), np.full(29, 1 / 29)
    found = likelihood._difference(model, counts, codes, proportions)
    autoencoder, batch = model.generator.autoencoder, Batch.of(counts, codes)
    with torch.inference_mode():
        logits = autoencoder.logits(autoencoder.encode(batch)[0], batch.labels)
        log_mean, log_r = autoencoder.nb_parameters(logits, batch.log_library[:, None])
    mean, r = log_mean.double().exp().numpy(), log_r.double().exp().numpy()
    x = counts.toarray()
    at = [nbinom.logpmf(x, r, r / (r + m)) for m in (mean, x.sum(1, keepdims=True) / 29)]
    np.testing.assert_allclose(found, (at[0] - at[1]).sum(axis=1), rtol=1e-4, atol=1e-4)


def test_types_that_the_model_lacks_have_no_likelihood(config):
    cells = make_cells(90)
    synth = scld.Synthesizer("cell_type", config=config).fit(cells, progress=False)
    kinds = cells.obs["cell_type"].to_numpy(str).astype("<U9")
    attacked = Cells(cells.X, np.where(kinds == "B", "unknown", kinds), np.full(90, "a"))
    scores = likelihood.model_scores(synth._fitted, attacked, attacked)
    assert np.isnan(scores[kinds == "B"]).all()
    assert not np.isnan(scores[kinds != "B"]).any()


REFUSED = [
    ({"donor": "patient"}, "label 'patient': no such obs column"),
    ({"donor": "cell_type"}, "donor: got 'cell_type', which is the label of types"),
    ({"label": "type"}, "label 'type': no such obs column"),
    ({"layer": "counts"}, "layer 'counts'"),
    ({"replicates": 0}, "replicates: got 0"),
    ({"seed": -1}, "seed: got -1"),
    ({"cells_per_donor": []}, "cells_per_donor: an empty list"),
    ({"cells_per_donor": [0]}, "cells_per_donor: got 0"),
    ({"generate": "scvi"}, "generate: got str; pass a function"),
    ({"generate": lambda x: x.X}, "generate: returned csr_matrix; let it return an AnnData"),
    ({"generate": lambda x: x[:, 1:]}, r"cells from generate: 1 genes are missing \('0'\)"),
    ({"config": scld.Config()}, "config: got settings and generate="),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_cannot_be_done_is_refused(cells, arguments, message):
    with pytest.raises(DataError, match=message) as raised:
        audit(cells, **{**FEW, "generate": same_cells, **arguments})
    assert "\n" not in str(raised.value)


def test_too_few_donors_are_refused():
    message = r"donor: 'donor' has 4 donors \('d0', .*allowed are 5 or more"
    with pytest.raises(DataError, match=message):
        audit(make_donors(4), generate=same_cells, **FEW)


def test_too_few_training_cells_are_refused_before_a_fit():
    message = r"cells: 80 cells of the donors 'd\d', 'd\d' to train on; allowed are 100 up"
    with pytest.raises(DataError, match=message):
        audit(make_donors(5, n=40), generate=None, **FEW)


def test_generated_cells_need_types_and_counts(cells):
    def without_types(training):
        return AnnData(training.X, var=training.var)

    def logs(training):
        return AnnData(training.X.log1p(), obs=training.obs, var=training.var)

    for generate, message in (
        (without_types, "cells from generate: label 'cell_type'"),
        (logs, "cells from generate"),
    ):
        with pytest.raises(DataError, match=message):
            audit(cells, generate=generate, **FEW)


def test_a_generator_cannot_change_the_cells(cells, copied):
    def vandal(training):
        training.X.data[:] = 1
        return same_cells(training)

    before = cells.X.copy()
    audit(cells, generate=vandal, **{**FEW, "replicates": 1})
    assert (before != cells.X).nnz == 0


def test_everything_is_written(copied, tmp_path):
    copied.to_html(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert page.count("<svg") == 1
    assert page.split("<tbody>")[1].split("</tbody>")[0].count("<tr>") == 6
    assert "http" not in page.replace("http://www.w3.org", "")
    assert ">nan<" not in page
    assert copied.fidelity() in page
    copied.to_csv(tmp_path / "a.csv")
    assert list(pd.read_csv(tmp_path / "a.csv")) == list(results.COLUMNS)
    values = json.loads(copied.to_json(tmp_path / "a.json"))
    assert values == json.loads((tmp_path / "a.json").read_text())
    assert len(values["results"]) == len(copied.table)
    assert str(copied) == copied.summary()
    assert "copula" in copied.summary()
    assert repr(copied).startswith("PrivacyAudit(6 donors, 2 replicates: copula 0.")
    keys = list(results.KEYS)
    assert not copied.table.duplicated(keys).any()


def test_progress_is_shown_only_if_asked(cells, capfd):
    audit(cells, generate=same_cells, **{**FEW, "replicates": 1, "progress": True})
    assert "audit" in capfd.readouterr().err


def test_cells_from_a_file_and_a_layer(cells, copied, tmp_path):
    stored = cells.copy()
    stored.layers["counts"], stored.X = stored.X.copy(), stored.X.log1p()
    stored.write_h5ad(tmp_path / "cells.h5ad")
    found = audit(str(tmp_path / "cells.h5ad"), layer="counts", generate=same_cells, **FEW)
    pd.testing.assert_frame_equal(found.table, copied.table)


def test_missing_donors_are_refused(cells):
    some = cells.copy()
    some.obs.loc[some.obs_names[3], "donor"] = None
    with pytest.raises(DataError, match="donor"):
        audit(some, generate=same_cells, **FEW)


def test_one_number_of_cells_needs_no_list(cells):
    found = audit(cells, generate=same_cells, **{**FEW, "cells_per_donor": 20, "replicates": 1})
    assert set(found.table["cells_per_donor"]) == {0, 20}
    assert found.table["lower"].isna().all()
    with pytest.raises(RequestError, match="cells_per_donor: got True"):
        audit(cells, generate=same_cells, **{**FEW, "cells_per_donor": True})
