import json
import shlex
import subprocess
import sys
import time
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from toy import TINY, make_cells

import scld
from scld.cli import main
from scld.config import PRESETS

COMMANDS = [
    "fit",
    "sample",
    "augment",
    "transfer",
    "split",
    "evaluate",
    "power",
    "audit",
    "info",
    "demo",
]


def run(*words):
    return CliRunner().invoke(main, list(map(str, words)))


def refused(*words):
    """The one line on standard error of a command that ends with 2."""
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("scld: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def done(*words):
    result = run(*words, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def next_command(said):
    """The line with the command that is suggested."""
    return next(line for line in said.splitlines() if line.startswith("Next: "))


def read(path):
    return ad.read_h5ad(path) if path.suffix == ".h5ad" else ad.read_zarr(path)


def plain(value):
    """As it was before it was written: lists come back as arrays, numbers as those of NumPy."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


@pytest.fixture
def tiny(monkeypatch):
    """The command line fits with the default settings, which this lists; here they are small."""
    usual, configs = scld.Synthesizer.__init__, []

    def small(self, labels, config, **more):
        configs.append(config)
        return usual(self, labels, config=scld.Config.from_dict(TINY), **more)

    monkeypatch.setattr(scld.Synthesizer, "__init__", small)
    return configs


@pytest.fixture
def source(tmp_path):
    make_cells().write_h5ad(tmp_path / "real.h5ad")
    return tmp_path / "real.h5ad"


# Fit


@pytest.mark.parametrize(("options", "post"), [((), "off"), (("--post", "select"), "select")])
def test_fit_trains_post_guidance_if_asked(tiny, source, tmp_path, options, post):
    done("fit", source, "-l", "cell_type", *options, "-o", tmp_path / "a.scld")
    expected = scld.Config.from_dict({"sampling": {"post": post}})
    assert tiny == [expected]


def test_fit_is_the_fit_of_python(tiny, source, tmp_path, synth):
    said = done("fit", source, "-l", "cell_type", "--label", "donor", "-o", tmp_path / "a.scld")
    assert "Fitted 120 cells" in said
    made, expected = (
        some.sample(30, seed=0, progress=False) for some in (scld.load(tmp_path / "a.scld"), synth)
    )
    assert (made.X != expected.X).nnz == 0


def test_a_fit_shows_its_size_memory_and_progress(tiny, source, tmp_path):
    result = run("fit", source, "-l", "cell_type", "-o", tmp_path / "a.scld")
    assert result.exit_code == 0, result.output
    first, *rest = result.stderr.splitlines()
    assert first.startswith("fit: 120 cells x 30 genes, about 1 MB")
    assert first.endswith(" MB of memory")
    for stage in ("1/4 autoencoder", "2/4 denoiser", "3/4 calibration"):
        assert stage in "".join(rest)


def test_a_fit_that_cannot_have_its_memory_is_refused_before_training(
    tiny, source, tmp_path, monkeypatch
):
    def trained(*args):
        raise AssertionError("training started")

    monkeypatch.setattr("scld.training.memory.memory_left", lambda: 0)
    monkeypatch.setattr("scld.training.stages.train", trained)
    error = refused("fit", source, "-o", tmp_path / "a.scld", "--device", "cpu", "--load")
    assert "MB are left; leave stream=False (--load) out" in error
    monkeypatch.setattr("scld.training.fit.check_loading", lambda stored: None)
    error = refused("fit", source, "-o", tmp_path / "a.scld", "--device", "cpu", "--load")
    assert "fit: needs about" in error
    assert not (tmp_path / "a.scld").exists()


def test_settings_come_from_a_preset_a_file_and_an_option(tiny, source, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text("[sampling]\nsteps = 9\n[autoencoder_training]\nintervals = 5\n")
    words = ("--preset", "quick", "--config", settings, "--post", "select")
    done("fit", source, "-l", "cell_type", *words, "-o", tmp_path / "a.scld")
    quick = PRESETS["quick"]["autoencoder_training"] | {"intervals": 5}
    expected = scld.Config.preset("quick").to_dict()
    expected["autoencoder_training"] |= quick
    expected["sampling"] |= {"steps": 9, "post": "select"}
    assert [config.to_dict() for config in tiny] == [expected]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[sampling]\nstep = 9", "settings.toml: config.sampling: no setting 'step'"),
        ("[sampling]\nsteps = -9", "settings.toml: config: SamplingConfig.steps: got -9"),
        ("sampling = 3", "settings.toml: config.sampling: got 3"),
        ("steps", "settings.toml: not a TOML file"),
        (None, "settings.toml: no such file"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(source, tmp_path, text, words):
    settings = tmp_path / "settings.toml"
    if text is not None:
        settings.write_text(text)
    assert words in refused("fit", source, "--config", settings, "-o", tmp_path / "a.scld")


def test_threads_are_an_option(saved, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("scld.machine.set_threads", asked.append)
    done("sample", saved, "-n", 3, "--threads", 2, "-o", tmp_path / "cells.h5ad")
    assert asked == [2]
    monkeypatch.undo()
    error = refused("sample", saved, "-n", 3, "--threads", 0, "-o", tmp_path / "cells.h5ad")
    assert "threads: got 0; allowed are integers from 1" in error
    for command in ("fit", "sample", "augment", "transfer", "evaluate"):
        assert "--threads" in run(command, "--help").output


def test_the_command_that_is_suggested_next_can_be_typed(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = make_cells()
    types = cells.obs["cell_type"].cat.rename_categories({"B": 'B "cell" $HOME'})
    cells.obs["it's a type"] = types
    cells.write_h5ad("my cells.h5ad")
    said = done("fit", "my cells.h5ad", "-l", "it's a type", "-o", "my model")
    words = shlex.split(said.splitlines()[-1].removeprefix("Next: scld "))
    said = done(*words)
    assert "Wrote 1,000 cells x 30 genes" in said
    assert set(ad.read_h5ad("cells.h5ad").obs["it's a type"]) == {'B "cell" $HOME'}
    assert "--label=it's a type" in shlex.split(next_command(said))


def test_what_is_suggested_next_names_the_layer_of_the_counts(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = make_cells()
    cells.layers["umi"] = cells.X.copy()
    cells.X = np.log1p(cells.X)
    cells.write_h5ad("cells.h5ad")
    for command in (("info", "cells.h5ad"), ("split", "cells.h5ad", "-l", "cell_type")):
        words = shlex.split(next_command(run(*command).stdout).removeprefix("Next: "))
        assert words[:2] == ["scld", "fit"]
        assert {"--label=cell_type", "--layer=umi"} <= set(words)
    done(*words[1:])
    said = done("sample", "model.scld", "-n", "100", "-o", "synthetic.h5ad")
    assert "--layer=umi" in next_command(said)
    assert "Next" not in done("sample", "model.scld", "-n", "5", "-o", "few.h5ad")


# Sample


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_sample_is_the_sample_of_python(saved, synth, tmp_path, ending):
    path = tmp_path / f"cells{ending}"
    words = ["-n", 300, "--where", "cell_type=B", "-w", "cell_type=NK", "-w", "donor=1"]
    words += ["--steps", 5, "--seed", 8, "-g", "donor=3", "--guidance", "cell_type=1.5"]
    assert "Wrote 300 cells x 30 genes" in done("sample", saved, *words, "-o", path)
    made = read(path)
    expected = synth.sample(
        300,
        where={"cell_type": ["B", "NK"], "donor": ["1"]},
        guidance={"cell_type": 1.5, "donor": 3.0},
        steps=5,
        seed=8,
        progress=False,
    )
    np.testing.assert_array_equal(made.X.toarray(), expected.X.toarray())
    pd.testing.assert_frame_equal(made.obs, expected.obs)
    assert plain(made.uns["scld"]) == expected.uns["scld"]


def test_guidance_of_one_number_is_for_all_labels(saved, synth, tmp_path):
    path = tmp_path / "cells.h5ad"
    done("sample", saved, "-n", 40, "-g", "2.5", "--seed", 0, "-o", path)
    expected = synth.sample(40, guidance=2.5, seed=0, progress=False)
    assert (ad.read_h5ad(path).X != expected.X).nnz == 0
    recorded = plain(ad.read_h5ad(path).uns["scld"]["guidance"])
    assert recorded == {"cell_type": 2.5, "donor": 2.5}


def test_without_a_seed_each_call_has_its_own_kept_in_the_output(saved, tmp_path):
    made = []
    for name in ("a.h5ad", "b.h5ad"):
        done("sample", saved, "-n", 40, "-o", tmp_path / name)
        made.append(ad.read_h5ad(tmp_path / name))
    seeds = [int(cells.uns["scld"]["seed"]) for cells in made]
    assert seeds[0] != seeds[1]
    assert (made[0].X != made[1].X).nnz
    done("sample", saved, "-n", 40, "--seed", seeds[0], "-o", tmp_path / "again.h5ad")
    assert (ad.read_h5ad(tmp_path / "again.h5ad").X != made[0].X).nnz == 0


@pytest.mark.parametrize("post", ["off", "select"])
def test_post_guidance_of_every_command_that_generates_cells(saved, synth, source, tmp_path, post):
    options = {"post": post, "seed": 0, "progress": False}
    for words, expected in {
        ("sample", saved, "-n", 40): synth.sample(40, **options),
        ("augment", saved, source, "-l", "cell_type", "--to", 60): synth.augment(
            source, "cell_type", 60, **options
        ),
        ("transfer", saved, source, "--set", "donor=1"): synth.transfer(
            source, {"donor": 1}, **options
        ),
    }.items():
        out = ("--overwrite", "-o", tmp_path / "cells.h5ad")
        done(*words, "--post", post, "--seed", 0, *out)
        made = ad.read_h5ad(tmp_path / "cells.h5ad")
        assert (made.X != expected.X).nnz == 0
        assert made.uns["scld"]["candidates"] == expected.uns["scld"]["candidates"]


@pytest.mark.parametrize(("name", "separator"), [("table.csv", ","), ("table.tsv", "\t")])
def test_cells_listed_in_a_table(saved, tmp_path, name, separator):
    table = pd.DataFrame({"cell_type": ["T", "B", None, "NK"], "donor": [1, None, 0, 1]})
    table.to_csv(tmp_path / name, index=False, sep=separator)
    done("sample", saved, "--obs", tmp_path / name, "-o", tmp_path / "cells.h5ad")
    made = ad.read_h5ad(tmp_path / "cells.h5ad").obs
    assert made["cell_type"].astype(str).tolist()[:2] == ["T", "B"]
    assert made["cell_type"].notna().all()
    assert made["donor"].tolist()[2:] == [0, 1]


def test_a_table_keeps_texts_as_they_are(tiny, tmp_path):
    cells, texts = make_cells(), ["001", "NA", "1e3"]
    cells.obs["donor"] = np.array(texts)[np.arange(120) % 3]
    cells.write_h5ad(tmp_path / "real.h5ad")
    done("fit", tmp_path / "real.h5ad", "-l", "donor", "-o", tmp_path / "a.scld")
    table, path = tmp_path / "table.csv", tmp_path / "cells.h5ad"
    table.write_text("donor\n001\nNA\n1e3\n")
    done("sample", tmp_path / "a.scld", "--obs", table, "-o", path)
    assert ad.read_h5ad(path).obs["donor"].tolist() == texts


def test_labels_and_categories_may_hold_an_equals_sign(tiny, tmp_path):
    cells, model, path = make_cells(), tmp_path / "a.scld", tmp_path / "cells.h5ad"
    cells.obs["a=b"] = np.array(["x=1", "y"])[np.arange(120) % 2]
    cells.obs["a"] = np.array(["b=y", "z"])[np.arange(120) % 2]
    cells.write_h5ad(tmp_path / "real.h5ad")
    done("fit", tmp_path / "real.h5ad", "-l", "a", "-l", "a=b", "-o", model)
    done("sample", model, "-n", 9, "-w", "a=b=x=1", "-g", "a=b=2", "-o", path)
    made = ad.read_h5ad(path)
    assert set(made.obs["a=b"]) == {"x=1"}
    assert made.uns["scld"]["guidance"]["a=b"] == 2.0


def test_guidance_within_an_interval_and_unseen_combinations(tiny, tmp_path):
    cells, model, path = make_cells(), tmp_path / "a.scld", tmp_path / "cells.h5ad"
    cells.obs["donor"] = (cells.obs["cell_type"] == "B").astype(int)
    cells.write_h5ad(tmp_path / "real.h5ad")
    done("fit", tmp_path / "real.h5ad", "-l", "cell_type", "-l", "donor", "-o", model)
    where = ("-w", "cell_type=B", "-w", "donor=0")
    guidance = ("-g", 3, "--guidance-interval", 0.1, 5, "--seed", 0)
    words = ("sample", model, "-n", 30, *where, *guidance, "-o", path)
    assert "--unseen" in refused(*words)
    done(*words, "--unseen")
    made = ad.read_h5ad(path)
    expected = scld.load(model).sample(
        30,
        where={"cell_type": "B", "donor": 0},
        guidance=3.0,
        guidance_interval=(0.1, 5.0),
        unseen=True,
        seed=0,
        progress=False,
    )
    assert (made.X != expected.X).nnz == 0
    assert made.obs["seen_in_training"].tolist() == [False] * 30


# Augment, transfer, info


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
@pytest.mark.parametrize(
    ("words", "to"),
    [
        (["--to", 50], 50),
        (["--to", "balance"], "balance"),
        (["--to", "B=60", "--to", "T=45"], {"B": 60, "T": 45}),
    ],
    ids=str,
)
def test_augment_is_the_augment_of_python(saved, synth, source, tmp_path, ending, words, to):
    cells = ad.read_h5ad(source)
    cells.obs["name"], cells.X = cells.obs_names.astype(str), cells.X.toarray()
    cells.write_h5ad(source)
    path = tmp_path / f"more{ending}"
    done("augment", saved, source, "--label", "cell_type", *words, "--seed", 3, "-o", path)
    made = read(path)
    expected = synth.augment(source, "cell_type", to, seed=3, progress=False)
    np.testing.assert_array_equal(made.X, expected.X)
    kinds = ("index_type", "column_type", "dtype", "categorical")
    loose = {f"check_{kind}": False for kind in kinds}
    pd.testing.assert_frame_equal(made.obs, expected.obs, **loose)


def test_transfer_is_the_transfer_of_python(saved, synth, source, tmp_path):
    words = ("--set", "donor=1", "--set", "cell_type=NK", "--strength", 0.3)
    options = ("-g", 2, "--seed", 3, "--steps", 9, "-o", tmp_path / "cells.h5ad")
    said = done("transfer", saved, source, *words, *options)
    assert "Wrote 120 cells x 30 genes" in said
    made = ad.read_h5ad(tmp_path / "cells.h5ad")
    to = {"donor": 1, "cell_type": "NK"}
    options = {"strength": 0.3, "guidance": 2.0, "seed": 3, "steps": 9}
    expected = synth.transfer(make_cells(), to, **options, progress=False)
    assert (made.X != expected.X).nnz == 0
    pd.testing.assert_frame_equal(made.obs, expected.obs)


def test_info_describes_a_checkpoint(saved):
    said = run("info", saved).stdout
    for words in (
        "120 training cells",
        "30 genes (1 unseen)",
        "cell_type: B (40), NK (40), T (40)",
        "donor: 0 (60), 1 (60)",
        "autoencoder:",
        "denoiser:",
        "settings 'own'",
    ):
        assert words in said


def test_info_as_json(saved, source):
    model = json.loads(run("info", saved, "--json").stdout)
    assert model["labels"]["cell_type"] == {"B": 40, "NK": 40, "T": 40}
    assert (model["cells"], model["genes"], model["version"]) == (120, 30, scld.__version__)
    cells = json.loads(run("info", source, "--json").stdout)
    assert cells["matrices"] == {"X": {"counts": True}}
    assert set(cells["labels"]) == {"cell_type", "donor", "treated"}


def test_info_describes_a_checkpoint_of_format_2(pytestconfig):
    result = run("info", pytestconfig.rootpath / "tests" / "data" / "format2.scld")
    assert result.exit_code == 0, result.output
    assert "training cells, 30 genes" in result.stdout
    assert "denoiser:" in result.stdout


# Designed cells


def written_by_sample(saved, tmp_path, *words):
    output = tmp_path / "cells.h5ad"
    done("sample", saved, "--seed", 3, "--post", "off", *words, "-o", output, "--overwrite")
    return read(output)


def test_a_design_and_its_effects_come_from_csv_files(saved, tmp_path):
    table = pd.DataFrame({"cell_type": ["B", "T"] * 50, "group": ["01", "01", "02", "02"] * 25})
    table.to_csv(tmp_path / "design.csv", index=False)
    (tmp_path / "effects.csv").write_text("gene,log2fc,group\ngene_1,2,01\ngene_2,-1,\n")
    design = ("--obs", tmp_path / "design.csv")
    effects = (*design, "--effects", tmp_path / "effects.csv", "--mean")
    usual = written_by_sample(saved, tmp_path, *design, "--mean")
    cells = written_by_sample(saved, tmp_path, *effects)
    ratio = cells.layers["mean"][:, 1] / usual.layers["mean"][:, 1]
    assert cells.obs["group"].tolist() == ["01", "01", "02", "02"] * 25
    np.testing.assert_allclose(ratio, np.where(cells.obs["group"] == "01", 4.0, 1.0), rtol=1e-5)
    assert cells.uns["scld"]["effects"]["group"].tolist() == ["01", ""]


@pytest.mark.parametrize("words", [("--depth", "0.5"), ("--one-population",), ("--ambient", "0.2")])
def test_options_of_designed_cells_change_the_counts(saved, tmp_path, words):
    usual = written_by_sample(saved, tmp_path, "-n", 60)
    changed = written_by_sample(saved, tmp_path, "-n", 60, *words)
    assert (usual.X != changed.X).nnz > 0


def test_artefacts_and_other_labels_are_options(saved, tmp_path):
    artefacts = ("--doublets", "0.5", "--ambient", "0.1", "--empty", "7")
    cells = written_by_sample(saved, tmp_path, "-n", 60, *artefacts, "--set", "donor=1")
    assert cells.n_obs == 67
    assert cells.obs["is_empty"].sum() == 7
    assert cells.obs["is_doublet"].any()
    assert (cells.obs["donor"][:60] == 1).all()


# Studies


def test_planned_studies_are_simulated_from_a_design_in_a_file(saved, tmp_path):
    design = tmp_path / "design.yaml"
    parts = "expression: null\ncomposition: null\nrare: {cells: 10, replicates: 3}\ndonor: null\n"
    design.write_text(f"donors: [2, 3]\ncells: 40\n{parts}")
    outputs = [tmp_path / name for name in ("power.html", "power.json", "power.csv")]
    words = ["--quiet", *(word for output in outputs for word in ("-o", output))]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = run(
            "power", saved, "--design", design, "--cache", tmp_path / "c", *words, "--quiet"
        )
    said = result.stdout
    assert result.stderr.startswith("scld: warning: donor: the design ignores donors")
    assert result.stderr.count("\n") == 1
    assert "at least 10 cells in the study" in said
    assert [f"Wrote {output}" in said for output in outputs] == [True] * 3
    assert set(pd.read_csv(outputs[2])["donors"]) == {2, 3}
    assert "Wrote" not in refused("power", saved, "--design", design, *words)


def test_audit(tmp_path):
    cells = make_cells(300)
    cells.obs["patient"] = [f"p{i % 5}" for i in range(300)]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    outputs = [tmp_path / name for name in ("audit.html", "audit.json", "audit.csv")]
    words = [word for output in outputs for word in ("-o", output)]
    options = ["--donor", "patient", "--replicates", 1, "--cells-per-donor", 5, "--quick"]
    said = done("audit", tmp_path / "cells.h5ad", *options, *words)
    assert "Fidelity: C2ST AUC" in said
    assert [f"Wrote {output}" in said for output in outputs] == [True] * 3
    assert set(pd.read_csv(outputs[2])["cells_per_donor"]) == {0, 5}
    assert "exists already" in refused("audit", tmp_path / "cells.h5ad", *options, *words)


# What cannot be done

OUT = ("-o", "cells.h5ad")
SAMPLE = ("sample", "{saved}", "-n", "3")
AUGMENT = ("augment", "{saved}", "{source}", "-l", "cell_type")
TRANSFER = ("transfer", "{saved}", "{source}")
EVALUATE = ("evaluate", "--train", "{source}")
REFUSED = [
    (("fit", "nowhere.h5ad", "-o", "a.scld"), "nowhere.h5ad: no such file"),
    (("fit", "{source}", "-l", "celltype", "-o", "a.scld"), "did you mean 'cell_type'?"),
    (("fit", "{source}", "--layer", "counts", "-o", "a.scld"), "layer 'counts'"),
    (("fit", "{source}", "-o", "{saved}"), "exists already"),
    (
        ("fit", "{source}", "-o", "{source}", "--overwrite"),
        "not a checkpoint, so it is not replaced",
    ),
    (("fit", "{source}", "-o", "no/a.scld"), "does not exist; make it first"),
    (("fit", "{source}", "--seed", "-1", "-o", "a.scld"), "seed: got -1"),
    (("fit", "{source}", "--device", "warp", "-o", "a.scld"), "device: 'warp'"),
    (("fit", "{source}", "--device", "mps", "-o", "a.scld"), "device: 'mps'"),
    ((*SAMPLE, "--device", "meta", *OUT), "device: 'meta'"),
    (("sample", "nowhere.scld", "-n", "3", *OUT), "no such checkpoint"),
    (("sample", "{source}", "-n", "3", *OUT), "not a checkpoint"),
    (("sample", "{saved}", *OUT), "-n: missing"),
    (("sample", "{saved}", "-n", "0", *OUT), "n: got 0"),
    (("sample", "{saved}", "-n", "-5", *OUT), "n: got -5"),
    ((*SAMPLE, "-o", "cells.csv"), "allowed are .h5ad and .zarr"),
    ((*SAMPLE, "-o", "{source}"), "exists already; choose another name, or replace it"),
    ((*SAMPLE, "-o", "no/cells.h5ad"), "does not exist; make it first"),
    ((*SAMPLE, "-w", "cell_type", *OUT), "--where: got 'cell_type'; write LABEL=CATEGORY"),
    ((*SAMPLE, "-w", "=B", *OUT), "--where: got '=B'"),
    ((*SAMPLE, "-w", "cell_type=", *OUT), "--where: got 'cell_type='"),
    ((*SAMPLE, "-w", "cell_type=nk", *OUT), "did you mean 'NK'?"),
    ((*SAMPLE, "-w", "type=B", *OUT), "where: 'type' is not a label"),
    ((*SAMPLE, "-g", "much", *OUT), "--guidance: got 'much'"),
    ((*SAMPLE, "-g", "donor=", *OUT), "--guidance: got 'donor='"),
    ((*SAMPLE, "-g", "nan", *OUT), "guidance: got nan"),
    ((*SAMPLE, "-g", "500", *OUT), "guidance: got 500"),
    ((*SAMPLE, "-g", "2", "-g", "donor=1", *OUT), "--guidance: got 2 and donor=1"),
    ((*SAMPLE, "-g", "2", "-g", "3", *OUT), "--guidance: got 2 and 3"),
    ((*SAMPLE, "-g", "type=1", *OUT), "guidance: 'type' is not a label"),
    (
        (*SAMPLE, "--post", "selct", *OUT),
        "allowed are 'select', 'off'; did you mean 'select'?",
    ),
    ((*SAMPLE, "--post", "both", *OUT), "--post: got 'both'; allowed are 'select', 'off'"),
    (("fit", "{source}", "--preset", "quik", "-o", "a.scld"), "did you mean 'quick'?"),
    (("fit", "{source}", "--genes", "all", "-o", "a.scld"), "--genes: got 'all'"),
    (("fit", "{source}", "-l", "cell_type,donor", "-o", "a.scld"), "(-l cell_type -l donor)"),
    ((*TRANSFER, "--set", "donor=1", "--post", "", *OUT), "post: got ''"),
    ((*SAMPLE, "--steps", "0", *OUT), "steps: got 0"),
    ((*SAMPLE, "--guidance-interval", "3", "1", *OUT), "guidance_interval: got (3.0, 1.0)"),
    (("sample", "{saved}", "--obs", "no.csv", *OUT), "--obs: no.csv: no such file"),
    (("power", "{saved}", "--design", "no.yaml"), "design: no.yaml: No such file"),
    (("power", "{saved}", "--design", "bad.csv"), "design: bad.csv: unknown ending"),
    (("audit", "{source}"), "donor: 'donor' has 2 donors"),
    (("audit", "{source}", "--donor", "patient"), "label 'patient': no such obs column"),
    (("audit", "{source}", "--cells-per-donor", "0"), "cells_per_donor: got 0"),
    (("audit", "{source}", "-o", "a.txt"), "a.txt"),
    ((*SAMPLE, "--effects", "no.csv", *OUT), "--effects: no.csv: no such file"),
    ((*SAMPLE, "--effects", "empty.csv", *OUT), "--effects: empty.csv: not a readable CSV"),
    ((*SAMPLE, "--effects", "bad.csv", *OUT), "--effects: bad.csv: 1 rows with columns"),
    ((*SAMPLE, "--depth", "0", *OUT), "depth: got 0.0"),
    ((*SAMPLE, "--doublets", "2", *OUT), "artefacts: doublets: got 2.0"),
    ((*SAMPLE, "--new-donors", "donor", *OUT), "new_donors: label 'donor' has"),
    ((*SAMPLE, "--mean", "--shard-cells", "2048", *OUT), "--mean: not possible with shards"),
    ((*SAMPLE, "--set", "donor", *OUT), "--set: got 'donor'"),
    (("sample", "{saved}", "--obs", "{source}", *OUT), "not a readable CSV"),
    (("sample", "{saved}", "--obs", "empty.csv", *OUT), "not a readable CSV"),
    (("sample", "{saved}", "--obs", ".", *OUT), "--obs: .: not a readable CSV"),
    (("augment", "{saved}", "{source}", "-l", "type", "--to", "9", *OUT), "'type' is not a label"),
    ((*AUGMENT, "--to", "many", *OUT), "--to: got many; write one number"),
    ((*AUGMENT, "--to", "9", "--to", "B=9", *OUT), "--to: got 9 and B=9"),
    ((*AUGMENT, "--to", "B=-9", *OUT), "--to: got B=-9"),
    ((*AUGMENT, "--to", "0", *OUT), "to: got 0"),
    (
        ("augment", "{saved}", "nowhere.h5ad", "-l", "cell_type", "--to", "9", *OUT),
        "nowhere.h5ad: no such file",
    ),
    (
        ("augment", "nowhere", "nowhere.h5ad", "-l", "a", "--to", "9", "-o", "{source}"),
        "exists already",
    ),
    ((*TRANSFER, "--set", "donor", *OUT), "--set: got 'donor'; write LABEL=CATEGORY"),
    ((*TRANSFER, "--set", "donor=7", *OUT), "no category '7'"),
    ((*TRANSFER, "--set", "donor=1", "--strength", "2", *OUT), "strength: got 2.0"),
    ((*TRANSFER, "--set", "donor=1", "--strength", "1e-50", *OUT), "strength: got 1e-50"),
    ((*TRANSFER, "--set", "donor=1", "--layer", "raw", *OUT), "layer 'raw'"),
    ((*EVALUATE, "a/x.h5ad", "b/x.h5ad"), "must differ without folder and ending"),
    ((*EVALUATE, "{source}", "-o", "report.pdf"), "allowed are .html and .json and .csv"),
    ((*EVALUATE, "nowhere.h5ad"), "nowhere.h5ad: no such file"),
    (("info", "nowhere"), "nowhere: no such file"),
]


@pytest.mark.parametrize(
    ("words", "expected"),
    REFUSED,
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_one_line(words, expected, saved, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "bad.csv").write_text("gene,fold\ngene_1,2\n")
    before = sorted(entry.name for entry in tmp_path.iterdir())
    assert expected in refused(*(word.format(saved=saved, source=source) for word in words))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before


def test_overwriting_when_told(tiny, saved, source, tmp_path):
    out = tmp_path / "cells.h5ad"
    for n in (3, 4):
        done("sample", saved, "-n", n, "-o", out, "--overwrite")
    assert ad.read_h5ad(out).n_obs == 4
    for labels in ((), ("-l", "donor")):
        done("fit", source, *labels, "-o", tmp_path / "a.scld", "--overwrite")
    assert scld.load(tmp_path / "a.scld").labels == ["donor"]


def test_the_home_folder_in_a_path_that_the_shell_left(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    done("sample", saved, "-n", 3, "--output=~/cells.h5ad")
    assert (tmp_path / "cells.h5ad").exists()


ALLOCATION = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(f"[enforce fail] {ALLOCATION}")])
def test_too_little_memory_is_one_line(saved, tmp_path, monkeypatch, error):
    def failing(*args, **more):
        raise error

    monkeypatch.setattr("scld.generation.generator.Generator.generate", failing)
    result = run("sample", saved, "-n", 3, "-o", tmp_path / "cells.h5ad", "--quiet")
    assert result.exit_code == 2
    assert result.stderr.startswith("scld: not enough memory; ")
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_another_error_is_not_hidden(saved, tmp_path, monkeypatch):
    def failing(*args, **more):
        raise RuntimeError("a bug")

    monkeypatch.setattr("scld.generation.generator.Generator.generate", failing)
    result = run("sample", saved, "-n", 3, "-o", tmp_path / "cells.h5ad", "--quiet")
    assert str(result.exception) == "a bug"
    assert not list(tmp_path.iterdir())


def test_an_interruption_says_how_to_continue(saved, tmp_path, monkeypatch):
    def interrupted(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("scld.generation.generator.Generator.generate", interrupted)
    result = run("sample", saved, "-n", 3, "-o", tmp_path / "cells.h5ad", "--quiet")
    assert result.exit_code == 130
    assert result.stderr == "scld: interrupted\n"
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("scld.synthesizer.fit_model", interrupted)
    result = run("fit", saved, "-o", tmp_path / "a.scld", "--quiet")
    advice = "an interrupted fit continues when the same command is run again"
    assert result.stderr == f"scld: interrupted; {advice}\n"


def test_a_command_that_is_terminated_leaves_nothing(saved, tmp_path):
    output = tmp_path / "cells.h5ad"
    words = ["sample", str(saved), "-n", "400000", "-o", str(output), "--quiet"]
    command = [sys.executable, "-c", "from scld.cli import main; main()", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(".scld-*/*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.communicate(timeout=60)[1] == "scld: interrupted\n"
    assert process.returncode == 130
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(saved, tmp_path, monkeypatch):
    def full(*args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scld.io.write._write", full)
    words = ("sample", saved, "-n", 3, "-o", tmp_path / "cells.h5ad", "--quiet")
    assert "cells.h5ad: no space left on its disk; free some" in refused(*words)
    assert not list(tmp_path.iterdir())


def test_more_cells_than_fit_into_memory_is_one_line(saved, tmp_path):
    words = ("sample", saved, "-n", 10**17, "-o", tmp_path / "cells.h5ad", "--quiet")
    assert "Unable to allocate" in refused(*words)


def test_weights_that_are_not_a_number_are_one_line(saved, tmp_path, monkeypatch):
    usual = scld.generation.fitted.FittedModel.load

    def broken(path, device):
        model = usual(path, device)
        model.generator.denoiser.output.bias.data.fill_(float("nan"))
        return model

    monkeypatch.setattr("scld.generation.fitted.FittedModel.load", broken)
    words = ("sample", saved, "-n", 3, "-o", tmp_path / "cells.h5ad", "--quiet")
    assert "non-finite" in refused(*words)
    assert not list(tmp_path.iterdir())


# Evaluate


def test_evaluate_is_the_evaluate_of_python(source, tmp_path, monkeypatch):
    """Options reach `scld.evaluate` under their names; outputs are written by their endings."""
    calls = []

    class Report:
        table = pd.DataFrame({"dataset": ["a"], "metric": ["c2st"], "value": [0.5]})

        def summary(self, *, full):
            return "a full summary" if full else "a summary"

        def to_html(self, path):
            path.write_text("html")

        def to_json(self, path):
            path.write_text("json")

        def to_csv(self, path):
            self.table.to_csv(path, index=False)

    def evaluate(*args, **options):
        calls.append((args, options))
        return Report()

    monkeypatch.setattr("scld.evaluation.report.evaluate", evaluate)
    words = ["--train", source, "--test", source, "-l", "cell_type", "--donor", "donor"]
    words += ["--log-normalised", "b", "--genes", "intersection", "--max-cells", 500]
    words += ["--no-controls", "--seed", 3]
    outputs = [tmp_path / f"report.{ending}" for ending in ("html", "json", "csv")]
    for output in outputs:
        words += ["-o", output]
    said = done("evaluate", "x/a.h5ad", "y/b.h5ad", *words)
    assert said.startswith("a summary\n")
    assert [f"Wrote {output}" in said for output in outputs] == [True] * 3
    (args, options), text = calls[0], str(source)
    assert args == (text, text, {"a": "x/a.h5ad", "b": "y/b.h5ad"}, ["cell_type"])
    assert options == {
        "donor": "donor",
        "layer": None,
        "log_normalised": ("b",),
        "genes": "intersection",
        "controls": False,
        "max_cells": 500,
        "seed": 3,
        "progress": False,
    }
    assert outputs[2].read_text().splitlines() == ["dataset,metric,value", "a,c2st,0.5"]


def test_evaluate_prints_scores_beside_the_baseline(saved, synth, source, tmp_path):
    test = make_cells(150, seed=0)
    test.write_h5ad(tmp_path / "test.h5ad")
    synth.sample(150, seed=0, progress=False).write_h5ad(tmp_path / "mine.h5ad")
    real = ("--train", source, "--test", tmp_path / "test.h5ad")
    words = (*real, "--no-controls", "--max-cells", 60)
    said = done("evaluate", tmp_path / "mine.h5ad", *words, "-o", tmp_path / "a.csv", "--full")
    assert "Given one real and one synthetic cell" in said
    assert "C2ST AUC, random forest" in said
    table = pd.read_csv(tmp_path / "a.csv")
    assert {"dataset", "group", "category", "metric", "value", "baseline"} <= set(table)
    assert {"mine", "baseline"} == set(table["dataset"])


# Split


def test_split_writes_what_split_of_python_gives(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run("split", source, "-l", "cell_type", "--test", "0.25", "--seed", 4).output
    expected = scld.split(source, "cell_type", test=0.25, seed=4)
    for name, cells in zip(("train", "test"), expected, strict=True):
        written = ad.read_h5ad(f"{name}.h5ad")
        assert list(written.obs_names) == list(cells.obs_names)
        assert f"Wrote {cells.n_obs:,} cells: {name}.h5ad" in said
    assert "Next: scld fit train.h5ad --label=cell_type" in said
    again = run("split", source, "-l", "cell_type")
    assert again.exit_code == 2
    assert "exists already" in again.output


def test_split_keeps_donors_whole(source, tmp_path):
    outputs = ("--train-output", tmp_path / "a.zarr", "--test-output", tmp_path / "b.h5ad")
    run("split", source, "-l", "cell_type", "--by", "donor", *outputs)
    one, other = ad.read_zarr(tmp_path / "a.zarr"), ad.read_h5ad(tmp_path / "b.h5ad")
    assert not set(one.obs["donor"]) & set(other.obs["donor"])


def test_evaluate_prints_json(saved, synth, source, tmp_path):
    synth.sample(150, seed=0, progress=False).write_h5ad(tmp_path / "mine.h5ad")
    words = ("--train", source, "--no-controls", "--max-cells", 60, "--json")
    result = run("evaluate", tmp_path / "mine.h5ad", *words, "-o", tmp_path / "a.csv", "--quiet")
    assert result.exit_code == 0, result.output
    assert {row["dataset"] for row in json.loads(result.stdout)["metrics"]} == {"mine", "baseline"}
    assert result.stderr == f"Wrote {tmp_path / 'a.csv'}\n"


def test_the_shell_completes_choices():
    env = {
        "_SCLD_COMPLETE": "bash_complete",
        "COMP_WORDS": "scld fit --preset q",
        "COMP_CWORD": "3",
    }
    completed = CliRunner(env=env).invoke(main, prog_name="scld")
    assert completed.stdout.split() == ["plain,quick"]


# Demo


def test_the_demo_makes_its_folder_atomically(tmp_path, monkeypatch):
    """Its parts are tested on their own; here none of them takes long."""
    made = []

    def fill(folder, config, progress, say):
        made.append(config)
        (folder / "report.html").write_text("scores")
        if len(made) == 3:
            raise KeyboardInterrupt
        say("Real cells")

    monkeypatch.setattr("scld.demo._fill", fill)
    path = tmp_path / "my demo"
    said = done("demo", "--quick", "-o", path)
    assert "Real cells" in said
    commands = [line.strip() for line in said.splitlines() if line.strip().startswith("scld ")]
    assert [shlex.split(command)[1] for command in commands] == ["sample", "fit"]
    assert shlex.split(commands[0])[2] == f"{path}/pbmc.scld"
    assert "exists already" in refused("demo", "-o", path)
    done("demo", "--overwrite", "-o", path)
    assert made == [scld.Config.preset("quick"), scld.Config()]
    result = run("demo", "--overwrite", "-o", path, "--quiet")
    assert result.exit_code == 130
    assert [entry.name for entry in path.iterdir()] == ["report.html"]


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_that_parse(command):
    said = run(command, "--help").output
    examples = [line.strip() for line in said.splitlines() if line.strip().startswith("scld ")]
    assert examples
    for example in examples:
        name, *words = shlex.split(example)[1:]
        assert name == command
        main.commands[name].make_context("scld", words, resilient_parsing=False).close()


def test_help_lists_the_commands():
    said = run("--help").output
    assert "..." not in said.replace("[ARGS]...", "")
    assert all(command in said for command in COMMANDS)
    assert sorted(main.commands) == sorted(COMMANDS)


WORDS = ["critic", "floor", "fake", "silent", "steer", "judge", "court", "verdict", "left open"]
WORDS += ["top up", "told apart", "new cells", "halving", "interpolate"]


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_uses_the_words_of_the_field(command):
    said = " ".join(run(*[command] * bool(command), "--help").output.lower().split())
    assert [word for word in WORDS if word in said] == []


def test_version():
    assert run("--version").stdout == f"scld, version {scld.__version__}\n"


# Whole processes


def process(code, *words):
    """Output, errors and exit code of some code in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.stdout, ran.stderr, ran.returncode


LOADED = """
import sys
from scld.cli import main
try:
    main(prog_name="scld")
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["sample", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(words):
    _, loaded, code = process(LOADED, *words)
    assert code == 0
    heavy = {"torch", "anndata", "numpy", "pandas", "scipy", "numba", "rich", "sklearn"}
    assert not (heavy | {"matplotlib"}) & {name.split(".")[0] for name in loaded.split()}


def test_a_whole_process(saved, tmp_path):
    """Cells, progress on standard error, the same bytes as in this process."""
    code = "from scld.cli import main; main()"
    words = ("sample", saved, "-n", 5, "--seed", 0, "-o", tmp_path / "five cells.h5ad")
    out, err, status = process(code, *words)
    assert status == 0, err
    assert "Wrote 5 cells" in out
    assert "5/5" in err
    expected = scld.load(saved).sample(5, seed=0, progress=False)
    assert (ad.read_h5ad(tmp_path / "five cells.h5ad").X != expected.X).nnz == 0
    out, err, status = process(code, *words)
    assert (out, status, err.count("\n")) == ("", 2, 1)
    assert "exists already" in err
