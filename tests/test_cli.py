import re
import shlex
import subprocess
import sys
from functools import partialmethod

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from small import TINY, make_cells

import scld
from scld.cli import main


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


@pytest.fixture
def tiny(monkeypatch):
    """The command line fits with the defaults; here these are small."""
    usual = scld.Synthesizer.__init__
    monkeypatch.setattr(scld.Synthesizer, "__init__", partialmethod(usual, config=scld.Config.from_dict(TINY)))


@pytest.fixture
def source(tmp_path):
    make_cells().write_h5ad(tmp_path / "real.h5ad")
    return tmp_path / "real.h5ad"


def test_fit_is_the_fit_of_python(tiny, source, tmp_path, synth):
    said = done("fit", source, "-l", "cell_type", "--label", "donor", "-o", tmp_path / "a.scld")
    assert "Fitted 120 cells" in said
    made = scld.load(tmp_path / "a.scld")
    assert (made.sample(30, progress=False).X != synth.sample(30, progress=False).X).nnz == 0


def test_a_fit_first_says_what_it_will_take(tiny, source, tmp_path, monkeypatch):
    for free, more in ((10**15, ""), (0, r", but only \d+\.\d GB are free: .*")):
        monkeypatch.setattr("scld.cost._free", lambda free=free: free)
        result = run("fit", source, "-l", "cell_type", "--device", "cpu", "-o", tmp_path / "a.scld", "--overwrite")
        assert result.exit_code == 0, result.output
        first, *rest = result.stderr.splitlines()
        assert re.fullmatch(rf"fit: 120 cells x 30 genes: about \d+ s \(at most \d+\), \d+\.\d GB of memory on cpu{more}", first)
        assert "1/3 autoencoder" in "".join(rest)


def test_what_is_said_next_can_be_typed(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = make_cells()
    cells.obs["it's a type"] = cells.obs["cell_type"].cat.rename_categories({"B": 'B "cell" $HOME'})
    cells.write_h5ad("my cells.h5ad")
    said = done("fit", "my cells.h5ad", "-l", "it's a type", "-o", "my model")
    words = shlex.split(said.splitlines()[-1].removeprefix("Next: scld "))
    said = done(*words)
    assert "Wrote 1,000 cells x 30 genes" in said
    assert set(ad.read_h5ad("cells.h5ad").obs["it's a type"]) == {'B "cell" $HOME'}
    assert "--label=it's a type" in shlex.split(said.splitlines()[-1])


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_sample_is_the_sample_of_python(saved, synth, tmp_path, ending):
    path = tmp_path / f"cells{ending}"
    words = ["-n", 300, "--where", "cell_type=B", "-w", "cell_type=NK", "-w", "donor=1", "--steps", 5, "--seed", 8]
    words += ["-g", "donor=3", "--guidance", "cell_type=1.5"]
    assert "Wrote 300 cells x 30 genes" in done("sample", saved, *words, "-o", path)
    made = ad.read_h5ad(path) if ending == ".h5ad" else ad.read_zarr(path)
    expected = synth.sample(300, where={"cell_type": ["B", "NK"], "donor": ["1"]}, guidance={"cell_type": 1.5, "donor": 3.0}, steps=5, seed=8, progress=False)
    np.testing.assert_array_equal(made.X.toarray(), expected.X.toarray())
    pd.testing.assert_frame_equal(made.obs, expected.obs)
    assert made.uns["scld"] == expected.uns["scld"]


def test_guidance_of_one_number_is_for_all_labels(saved, synth, tmp_path):
    done("sample", saved, "-n", 40, "-g", "2.5", "-o", tmp_path / "cells.h5ad")
    assert (ad.read_h5ad(tmp_path / "cells.h5ad").X != synth.sample(40, guidance=2.5, progress=False).X).nnz == 0


@pytest.mark.parametrize("post", ["off", "correct", "select", "both"])
def test_post_guidance_of_each_kind(saved, synth, source, tmp_path, post):
    """For all commands that sample."""
    ends = {"cell_type": "B"}, {"cell_type": "T"}
    for words, expected in {
        ("sample", saved, "-n", 40): synth.sample(40, post=post, progress=False),
        ("augment", saved, source, "-l", "cell_type", "--to", 60): synth.augment(source, "cell_type", 60, post=post, progress=False),
        ("transfer", saved, source, "--set", "donor=1"): synth.transfer(source, {"donor": 1}, post=post, progress=False),
        ("interpolate", saved, "--from", "cell_type=B", "--to", "cell_type=T", "-n", 40): synth.interpolate(*ends, 40, post=post, progress=False),
    }.items():
        done(*words, "--post", post, "--overwrite", "-o", tmp_path / "cells.h5ad")
        made = ad.read_h5ad(tmp_path / "cells.h5ad")
        assert (made.X != expected.X).nnz == 0
        for noted in ("correction", "candidates"):
            assert made.uns["scld"][noted] == expected.uns["scld"][noted]


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
    cells = make_cells()
    cells.obs["donor"] = np.array(["001", "NA", "1e3"])[np.arange(120) % 3]
    cells.write_h5ad(tmp_path / "real.h5ad")
    done("fit", tmp_path / "real.h5ad", "-l", "donor", "-o", tmp_path / "a.scld")
    (tmp_path / "table.csv").write_text("donor\n001\nNA\n1e3\n")
    done("sample", tmp_path / "a.scld", "--obs", tmp_path / "table.csv", "-o", tmp_path / "cells.h5ad")
    assert ad.read_h5ad(tmp_path / "cells.h5ad").obs["donor"].tolist() == ["001", "NA", "1e3"]


def test_labels_and_categories_may_hold_an_equals_sign(tiny, tmp_path):
    cells = make_cells()
    cells.obs["a=b"] = np.array(["x=1", "y"])[np.arange(120) % 2]
    cells.obs["a"] = np.array(["b=y", "z"])[np.arange(120) % 2]
    cells.write_h5ad(tmp_path / "real.h5ad")
    done("fit", tmp_path / "real.h5ad", "-l", "a", "-l", "a=b", "-o", tmp_path / "a.scld")
    done("sample", tmp_path / "a.scld", "-n", 9, "-w", "a=b=x=1", "-g", "a=b=2", "-o", tmp_path / "cells.h5ad")
    made = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert set(made.obs["a=b"]) == {"x=1"}
    assert '"a=b": 2.0' in made.uns["scld"]["guidance"]


def test_guidance_within_an_interval_and_combinations_that_training_never_saw(tiny, tmp_path):
    cells = make_cells()
    cells.obs["donor"] = (cells.obs["cell_type"] == "B").astype(int)
    cells.write_h5ad(tmp_path / "real.h5ad")
    done("fit", tmp_path / "real.h5ad", "-l", "cell_type", "-l", "donor", "-o", tmp_path / "a.scld")
    where, how = ("-w", "cell_type=B", "-w", "donor=0"), ("-g", 3, "--guidance-interval", 0.1, 5)
    words = ("sample", tmp_path / "a.scld", "-n", 30, *where, *how, "-o", tmp_path / "cells.h5ad")
    assert "--unseen" in refused(*words)
    done(*words, "--unseen")
    made = ad.read_h5ad(tmp_path / "cells.h5ad")
    expected = scld.load(tmp_path / "a.scld").sample(
        30, where={"cell_type": "B", "donor": 0}, guidance=3.0, guidance_interval=(0.1, 5.0), unseen=True, progress=False
    )
    assert (made.X != expected.X).nnz == 0
    assert made.obs["seen_in_training"].tolist() == [False] * 30


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
@pytest.mark.parametrize(
    ("words", "to"), [(["--to", 50], 50), (["--to", "balance"], "balance"), (["--to", "B=60", "--to", "T=45"], {"B": 60, "T": 45})], ids=str
)
def test_augment_is_the_augment_of_python(saved, synth, source, tmp_path, ending, words, to):
    cells = ad.read_h5ad(source)
    cells.obs["name"], cells.X = cells.obs_names.astype(str), cells.X.toarray()
    cells.write_h5ad(source)
    path = tmp_path / f"more{ending}"
    done("augment", saved, source, "--label", "cell_type", *words, "--seed", 3, "-o", path)
    made = ad.read_h5ad(path) if ending == ".h5ad" else ad.read_zarr(path)
    expected = synth.augment(source, "cell_type", to, seed=3, progress=False)
    np.testing.assert_array_equal(made.X, expected.X)
    pd.testing.assert_frame_equal(made.obs, expected.obs, check_index_type=False, check_column_type=False, check_dtype=False, check_categorical=False)


def test_transfer_is_the_transfer_of_python(saved, synth, source, tmp_path):
    words = ("--set", "donor=1", "--set", "cell_type=NK", "--strength", 0.3, "-g", 2, "--seed", 3, "--steps", 9)
    assert "Wrote 120 cells x 30 genes" in done("transfer", saved, source, *words, "-o", tmp_path / "cells.h5ad")
    made = ad.read_h5ad(tmp_path / "cells.h5ad")
    expected = synth.transfer(make_cells(), {"donor": 1, "cell_type": "NK"}, strength=0.3, guidance=2.0, seed=3, steps=9, progress=False)
    assert (made.X != expected.X).nnz == 0
    pd.testing.assert_frame_equal(made.obs, expected.obs)


def test_interpolate_is_the_interpolate_of_python(saved, synth, tmp_path):
    words = ("--from", "cell_type=B", "--from", "donor=0", "--to", "cell_type=T", "--to", "cell_type=NK", "-n", 20)
    assert "Wrote 20 cells x 30 genes" in done("interpolate", saved, *words, "-o", tmp_path / "cells.h5ad")
    made = ad.read_h5ad(tmp_path / "cells.h5ad")
    expected = synth.interpolate({"cell_type": "B", "donor": 0}, {"cell_type": ["T", "NK"]}, 20, progress=False)
    assert (made.X != expected.X).nnz == 0
    pd.testing.assert_frame_equal(made.obs, expected.obs)


def test_info_says_what_is_inside(saved):
    said = run("info", saved).stdout
    parts = ["autoencoder:", "denoiser:", "critic:"]
    for words in ["120 training cells", "30 genes (1 never seen)", "cell_type: B (40), NK (40), T (40)", "donor: 0 (60), 1 (60)", *parts]:
        assert words in said


OUT = ("-o", "cells.h5ad")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("fit", "nowhere.h5ad", "-o", "a.scld"), "nowhere.h5ad: no such file"),
        (("fit", "{source}", "-l", "celltype", "-o", "a.scld"), "did you mean 'cell_type'?"),
        (("fit", "{source}", "--layer", "counts", "-o", "a.scld"), "layer 'counts'"),
        (("fit", "{source}", "-o", "{saved}"), "exists already"),
        (("fit", "{source}", "-o", "{source}", "--overwrite"), "not a checkpoint, so it is not replaced"),
        (("fit", "{source}", "-o", "no/a.scld"), "does not exist; make it first"),
        (("fit", "{source}", "--seed", "-1", "-o", "a.scld"), "seed: got -1"),
        (("fit", "{source}", "--device", "warp", "-o", "a.scld"), "device: 'warp'"),
        (("sample", "nowhere.scld", "-n", "3", *OUT), "no such checkpoint"),
        (("sample", "{source}", "-n", "3", *OUT), "not a checkpoint"),
        (("sample", "{saved}", *OUT), "-n: missing"),
        (("sample", "{saved}", "-n", "0", *OUT), "n: got 0"),
        (("sample", "{saved}", "-n", "-5", *OUT), "n: got -5"),
        (("sample", "{saved}", "-n", "3", "-o", "cells.csv"), "allowed are .h5ad and .zarr"),
        (("sample", "{saved}", "-n", "3", "-o", "{source}"), "exists already; choose another name, or replace it"),
        (("sample", "{saved}", "-n", "3", "-o", "no/cells.h5ad"), "does not exist; make it first"),
        (("sample", "{saved}", "-n", "3", "-w", "cell_type", *OUT), "--where: got 'cell_type'; write LABEL=CATEGORY"),
        (("sample", "{saved}", "-n", "3", "-w", "=B", *OUT), "--where: got '=B'"),
        (("sample", "{saved}", "-n", "3", "-w", "cell_type=", *OUT), "--where: got 'cell_type='"),
        (("sample", "{saved}", "-n", "3", "-w", "cell_type=nk", *OUT), "did you mean 'NK'?"),
        (("sample", "{saved}", "-n", "3", "-w", "type=B", *OUT), "where: 'type' is not a label"),
        (("sample", "{saved}", "-n", "3", "-g", "much", *OUT), "--guidance: got 'much'"),
        (("sample", "{saved}", "-n", "3", "-g", "donor=", *OUT), "--guidance: got 'donor='"),
        (("sample", "{saved}", "-n", "3", "-g", "nan", *OUT), "guidance: got nan"),
        (("sample", "{saved}", "-n", "3", "-g", "2", "-g", "donor=1", *OUT), "--guidance: got 2 and donor=1"),
        (("sample", "{saved}", "-n", "3", "-g", "2", "-g", "3", *OUT), "--guidance: got 2 and 3"),
        (("sample", "{saved}", "-n", "3", "-g", "type=1", *OUT), "guidance: 'type' is not a label"),
        (("sample", "{saved}", "-n", "3", "--post", "selct", *OUT), "allowed are 'off', 'correct', 'select', 'both'; did you mean 'select'?"),
        (("transfer", "{saved}", "{source}", "--set", "donor=1", "--post", "", *OUT), "post: got ''"),
        (("sample", "{saved}", "-n", "3", "--steps", "0", *OUT), "steps: got 0"),
        (("sample", "{saved}", "--obs", "no.csv", *OUT), "--obs: no.csv: no such file"),
        (("sample", "{saved}", "--obs", "{source}", *OUT), "not a readable CSV"),
        (("sample", "{saved}", "--obs", "empty.csv", *OUT), "not a readable CSV"),
        (("sample", "{saved}", "--obs", ".", *OUT), "--obs: .: not a readable CSV"),
        (("sample", "{saved}", "-n", "3", "--guidance-interval", "3", "1", *OUT), "guidance_interval: got (3.0, 1.0)"),
        (("augment", "{saved}", "{source}", "-l", "type", "--to", "9", *OUT), "label: 'type' is not a label"),
        (("augment", "{saved}", "{source}", "-l", "cell_type", "--to", "many", *OUT), "--to: got many; write one number"),
        (("augment", "{saved}", "{source}", "-l", "cell_type", "--to", "9", "--to", "B=9", *OUT), "--to: got 9 and B=9"),
        (("augment", "{saved}", "{source}", "-l", "cell_type", "--to", "B=-9", *OUT), "--to: got B=-9"),
        (("augment", "{saved}", "{source}", "-l", "cell_type", "--to", "0", *OUT), "to: got 0"),
        (("augment", "{saved}", "nowhere.h5ad", "-l", "cell_type", "--to", "9", *OUT), "nowhere.h5ad: no such file"),
        (("augment", "nowhere", "nowhere.h5ad", "-l", "cell_type", "--to", "9", "-o", "{source}"), "exists already"),
        (("transfer", "{saved}", "{source}", "--set", "donor", *OUT), "--set: got 'donor'; write LABEL=CATEGORY"),
        (("transfer", "{saved}", "{source}", "--set", "donor=7", *OUT), "no category '7'"),
        (("transfer", "{saved}", "{source}", "--set", "donor=1", "--strength", "2", *OUT), "strength: got 2.0"),
        (("transfer", "{saved}", "{source}", "--set", "donor=1", "--layer", "raw", *OUT), "layer 'raw'"),
        (("interpolate", "{saved}", "--from", "cell_type=B", "--to", "cell_type=Q", "-n", "5", *OUT), "no category 'Q'"),
        (("interpolate", "{saved}", "--from", "cell_type", "--to", "cell_type=B", "-n", "5", *OUT), "--from: got 'cell_type'"),
        (("interpolate", "{saved}", "--from", "cell_type=B", "--to", "donor=1", "-n", "1", *OUT), "n: got 1"),
        (("info", "nowhere"), "no such checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_one_line(words, expected, saved, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").touch()
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


def test_home_in_a_path_that_the_shell_left(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    done("sample", saved, "-n", 3, "--output=~/cells.h5ad")
    assert (tmp_path / "cells.h5ad").exists()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")])
def test_too_little_memory_is_said_in_one_line(saved, tmp_path, monkeypatch, error):
    def failing(*args, **more):
        raise error

    monkeypatch.setattr("scld.generator.Generator.page", failing)
    result = run("sample", saved, "-n", 3, "-o", tmp_path / "cells.h5ad", "--quiet")
    assert result.exit_code == 2
    assert result.stderr.startswith("scld: not enough memory; ")
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_interruption_says_how_to_go_on(saved, tmp_path, monkeypatch):
    def interrupted(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("scld.generator.Generator.page", interrupted)
    result = run("sample", saved, "-n", 3, "-o", tmp_path / "cells.h5ad", "--quiet")
    assert result.exit_code == 130
    assert result.stderr == "scld: interrupted; an unfinished fit goes on where it stopped when the same command is run again\n"
    assert not list(tmp_path.iterdir())


def test_a_damaged_disk_is_one_line_too(saved, tmp_path, monkeypatch):
    def full(*args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scld.output._write", full)
    assert "No space left on device" in refused("sample", saved, "-n", 3, "-o", tmp_path / "cells.h5ad", "--quiet")
    assert not list(tmp_path.iterdir())


def test_more_cells_than_memory_holds_is_one_line_too(saved, tmp_path):
    assert "Unable to allocate" in refused("sample", saved, "-n", 10**17, "-o", tmp_path / "cells.h5ad", "--quiet")


@pytest.mark.parametrize("command", ["", "fit", "sample", "augment", "transfer", "interpolate", "info", "demo"])
def test_help_has_examples_that_parse(command):
    words = [command] * bool(command)
    said = run(*words, "--help").output
    if not command:
        assert all(name in said for name in ("fit", "sample", "augment", "transfer", "interpolate", "info", "demo"))
        return
    examples = [line.strip() for line in said.splitlines() if line.strip().startswith("scld ")]
    assert examples
    for example in examples:
        command = main.commands[shlex.split(example)[1]]
        command.make_context("scld", shlex.split(example)[2:], resilient_parsing=False).close()


def test_version():
    assert run("--version").stdout == f"scld, version {scld.__version__}\n"


# Whole processes


def process(*words):
    """Output, errors and exit code of the command line in a process of its own."""
    ran = subprocess.run([sys.executable, "-c", "from scld.cli import main; main()", *map(str, words)], capture_output=True, text=True, check=False)
    return ran.stdout, ran.stderr, ran.returncode


@pytest.mark.parametrize("words", [["--help"], ["sample", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(words):
    code = f"import sys; sys.argv = ['scld', *{words}]\nfrom scld.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in ran.stderr.split()}
    assert not {"torch", "anndata", "numpy", "pandas", "scipy", "numba", "rich", "sklearn", "matplotlib"} & loaded


def test_a_whole_process(saved, tmp_path):
    """Cells, progress on standard error, the same bytes as in this process."""
    words = ("sample", saved, "-n", 5, "-o", tmp_path / "five cells.h5ad")
    out, err, code = process(*words)
    assert code == 0, err
    assert "Wrote 5 cells" in out
    assert "5/5" in err
    expected = scld.load(saved).sample(5, progress=False)
    assert (ad.read_h5ad(tmp_path / "five cells.h5ad").X != expected.X).nnz == 0
    out, err, code = process(*words)
    assert (out, code, err.count("\n")) == ("", 2, 1)
    assert "exists already" in err
