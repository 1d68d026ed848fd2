import json
import os
import shutil
import subprocess
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from toy import make_cells

import scld
from scld.errors import CheckpointError, RequestError
from scld.io import checkpoint as disk
from scld.io.atomic import _here
from scld.io.checkpoint import Checkpoint, read, read_manifest, resume_folder, write


def content(value=1.0):
    genes = {"gene": ["NA", "a,b", 'quo"te', "é"], "seen": [True, False, True, True]}
    one = {"w": torch.full((2, 3), value), "count": torch.tensor(3)}
    parts = {"one": one, "two": {"w": torch.arange(4.0)[::2]}}
    manifest = {"scld_version": "9", "config": {}}
    return Checkpoint(manifest, {"labels": []}, pd.DataFrame(genes), parts)


def value_of(path):
    return float(read(path).parts["one"]["w"][0, 0])


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "a.scld", content())
    found, expected = read(tmp_path / "a.scld"), content()
    assert expected.manifest.items() <= found.manifest.items()
    assert found.schema == expected.schema
    pd.testing.assert_frame_equal(found.genes, expected.genes)
    assert found.parts.keys() == expected.parts.keys()
    for name, tensors in expected.parts.items():
        torch.testing.assert_close(found.parts[name], tensors)


def test_the_directory_holds_the_documented_files_and_nothing_is_left_beside_it(tmp_path):
    write(tmp_path / "a.scld", content())
    assert names(tmp_path) == ["a.scld"]
    files = ["genes.csv", "manifest.json", "one.safetensors", "schema.json", "two.safetensors"]
    assert names(tmp_path / "a.scld") == ["SHA256SUMS", *files]
    assert read_manifest(tmp_path / "a.scld")["format"] == disk.FORMAT


def test_every_file_has_the_usual_permissions(tmp_path):
    write(tmp_path / "a.scld", content())
    (tmp_path / "plain").touch()
    modes = {entry.stat().st_mode for entry in (tmp_path / "a.scld").iterdir()}
    assert modes == {(tmp_path / "plain").stat().st_mode}


# Damage


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def change(file, **values):
    old = json.loads(file.read_text())
    kept = {key: value for key, value in {**old, **values}.items() if value is not None}
    file.write_text(json.dumps(kept))


def copy(source, target):
    return lambda path: shutil.copy(path / f"{source}.safetensors", path / f"{target}.safetensors")


def tensors(part, name, changed):
    """Damage one tensor of one part."""

    def harm(path):
        file = path / f"{part}.safetensors"
        values = load_file(file)
        values[name] = changed(values[name]).contiguous()
        save_file(values, file)

    return harm


def at(index, value):
    """The same tensor with another value at one place."""

    def changed(tensor):
        tensor = tensor.clone()
        tensor[index] = value
        return tensor

    return changed


def manifest(**values):
    return lambda path: change(path / "manifest.json", **values)


def replace(path, name, value):
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))


def history(**values):
    """Other entries in the training history of a network."""

    def harm(path):
        training = json.loads((path / "manifest.json").read_text())["training"]
        training["denoiser"] |= values
        replace(path, "training", training)

    return harm


def repeat_gene(path):
    lines = (path / "genes.csv").read_text().splitlines()
    (path / "genes.csv").write_text("\n".join([*lines[:2], *lines[1:2], *lines[3:]]) + "\n")


def schema(**values):
    return lambda path: change(path / "schema.json", **values)


def text(name, content):
    return lambda path: (path / name).write_text(content)


def remove(name):
    return lambda path: (path / name).unlink()


NAN = float("nan")
FILES = {
    "no such folder": (shutil.rmtree, "no such checkpoint"),
    "a file in its place": (
        lambda path: (shutil.rmtree(path), path.write_text("x")),
        "not a checkpoint",
    ),
    "an empty folder": (lambda path: (shutil.rmtree(path), path.mkdir()), "not a checkpoint"),
    "no manifest": (remove("manifest.json"), "not a checkpoint"),
    "no schema": (remove("schema.json"), "schema.json is missing"),
    "no genes": (remove("genes.csv"), "genes.csv is missing"),
    "no network": (remove("denoiser.safetensors"), "denoiser.safetensors is missing"),
    "a cut network": (lambda path: cut(path / "denoiser.safetensors"), "damaged"),
    "an empty network": (text("denoiser.safetensors", ""), "damaged"),
    "a network of another part": (copy("autoencoder", "denoiser"), "damaged"),
    "no latents": (remove("latents.safetensors"), "latents.safetensors is missing"),
    "no discriminator": (remove("discriminator.safetensors"), "discriminator.safetensors is"),
    "a discriminator that is a network": (copy("denoiser", "discriminator"), "damaged"),
    "a cut discriminator": (lambda path: cut(path / "discriminator.safetensors"), "damaged"),
    "a cut manifest": (
        lambda path: cut(path / "manifest.json"),
        "manifest.json is not readable JSON",
    ),
    "a cut schema": (lambda path: cut(path / "schema.json"), "schema.json is not readable JSON"),
    "cut genes": (lambda path: cut(path / "genes.csv"), "damaged"),
    "empty genes": (text("genes.csv", ""), "damaged"),
    "a gene twice": (repeat_gene, "occurs 2 times"),
    "no gene column": (text("genes.csv", "a,b\n1,True\n"), "damaged"),
    "genes of another model": (text("genes.csv", "gene,seen\na,True\nb,True\n"), "damaged"),
    "bytes for a schema": (
        lambda path: (path / "schema.json").write_bytes(b"\xff\xfe\x00"),
        "schema.json is not readable JSON",
    ),
    "a list for a schema": (text("schema.json", "[]"), "does not hold an object"),
    "a list for a manifest": (text("manifest.json", "[]"), "does not hold an object"),
}
CONTENT = {
    "another format": (manifest(format=99, scld_version="7.1"), "format 99, written by scld 7.1"),
    "no format": (manifest(format=None), "format None"),
    "no list of parts": (manifest(parts=None), "damaged"),
    "parts too few": (manifest(parts=["autoencoder"]), "damaged"),
    "parts that are no list": (manifest(parts=7), "damaged"),
    "parts that are no names": (manifest(parts=[7, None]), "damaged"),
    "no settings": (manifest(config=None), "damaged"),
    "an unknown setting": (manifest(config={"sampling": {"stepps": 3}}), "stepps"),
    "a setting out of range": (manifest(config={"sampling": {"guidance": 500}}), "guidance"),
    "another width": (manifest(config={}), "damaged"),
    "null for settings": (lambda path: replace(path, "config", None), "got None; pass a dict"),
    "a million blocks": (manifest(config={"denoiser": {"blocks": 10**6}}), "blocks"),
    "a million candidates": (manifest(config={"sampling": {"candidates": 10**6}}), "candidates"),
    "a width beyond integers": (manifest(config={"denoiser": {"width": 10**30}}), "damaged"),
    "a history of text": (history(steps="many"), "steps"),
    "a best interval that was not": (history(best_interval=10**6), "best_interval"),
    "a training longer than history": (history(seconds=10**400), "seconds"),
    "no training history": (manifest(training=None), "training"),
    "a training history without cells": (manifest(training={}), "cells"),
    "half a training history": (manifest(training={"cells": 9, "autoencoder": {}}), "validation"),
    "no seed": (manifest(seed=None), "seed"),
    "a seed that is no integer": (manifest(seed="a"), "seed"),
    "no labels": (schema(labels=None), "damaged"),
    "a label that is no label": (schema(labels=[3]), "damaged"),
    "more cells than integers hold": (schema(cells=[10**30]), "combinations"),
    "no combinations": (schema(combinations=None), "damaged"),
    "unknown combinations": (schema(combinations=[[99, 0]], cells=[3]), "damaged"),
    "a combination less": (schema(combinations=[[0, 0]], cells=[3]), "damaged"),
}
TENSORS = {
    "a centre that is short": (tensors("latents", "centre", lambda old: old[:1]), "damaged"),
    "a scale of zero": (tensors("latents", "scale", at(0, 0.0)), "scale"),
    "library sizes from large to small": (
        tensors("latents", "library", lambda old: old.flip(0)),
        "library sizes",
    ),
    "no combination means": (
        tensors("latents", "combination_means", lambda old: old[:0]),
        "damaged",
    ),
    "weights that are not a number": (
        tensors("denoiser", "output.weight", at((0, 0), NAN)),
        "denoiser holds non-finite values",
    ),
    "infinite latents": (
        tensors("latents", "combination_means", at((0, 0), float("inf"))),
        "latents holds non-finite values",
    ),
    "a child far outside": (tensors("discriminator", "left", at((0, 0), 10**9)), "children"),
    "a child before the first": (tensors("discriminator", "right", at((0, 0), -5)), "children"),
    "a cycle": (tensors("discriminator", "left", at((0, 1), 0)), "children"),
    "half a leaf": (tensors("discriminator", "left", at((0, 0), 0)), "children"),
    "loadings a row short": (
        tensors("discriminator", "loadings", lambda old: old[:-1]),
        "loadings",
    ),
    "loadings a column short": (
        tensors("discriminator", "loadings", lambda old: old[:, :0]),
        "features",
    ),
    "loadings in double precision": (
        tensors("discriminator", "loadings", lambda old: old.double()),
        "loadings",
    ),
    "a feature that cells do not have": (
        tensors("discriminator", "feature", at((0, 0), 99)),
        "features",
    ),
    "features that are no integers": (
        tensors("discriminator", "feature", lambda old: old.double()),
        "int64",
    ),
    "a tree less": (tensors("discriminator", "value", lambda old: old[:-1]), "shapes"),
    "trees without their own axis": (
        tensors("discriminator", "value", lambda old: old.ravel()),
        "shapes",
    ),
    "a threshold that is not a number": (
        tensors("discriminator", "threshold", at((0, 0), NAN)),
        "non-finite",
    ),
    "a library size of zero": (tensors("discriminator", "library", at(0, 0.0)), "library size"),
    "two library sizes": (
        tensors("discriminator", "library", lambda old: old.repeat(2)),
        "library size",
    ),
    "log-odds clipped to nothing": (tensors("discriminator", "clip", at(0, 0.0)), "log-odds"),
}
DAMAGE = FILES | CONTENT | TENSORS


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_on_loading_and_told_in_one_line(kind, saved, tmp_path):
    harm, words = DAMAGE[kind]
    path = tmp_path / "mine.scld"
    shutil.copytree(saved, path)
    harm(path)
    if (path / "SHA256SUMS").exists():  # as if someone had meant it
        disk.seal(path)
    with pytest.raises(CheckpointError) as caught:
        scld.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert words in message
    assert len(message) < 400


@pytest.mark.parametrize("name", ["SHA256SUMS", "manifest.json", "schema.json", "genes.csv"])
def test_one_flipped_bit_is_found_in_every_file(saved, tmp_path, name):
    shutil.copytree(saved, tmp_path / "mine.scld")
    flipped(tmp_path / "mine.scld" / name, np.random.default_rng(0))
    with pytest.raises(CheckpointError, match="damaged"):
        scld.load(tmp_path / "mine.scld")


def flipped(file, random):
    content = bytearray(file.read_bytes())
    content[random.integers(len(content))] ^= 1 << random.integers(8)
    file.write_bytes(content)


@pytest.mark.slow
def test_420_flipped_bits_are_all_found(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "_AGAIN_SECONDS", 0)
    random, files = np.random.default_rng(0), sorted(saved.iterdir())
    for number in range(420):
        path = tmp_path / f"{number}.scld"
        shutil.copytree(saved, path)
        flipped(path / files[number % len(files)].name, random)
        with pytest.raises(CheckpointError, match="damaged"):
            scld.load(path)
        shutil.rmtree(path)


def test_the_checksums_are_those_that_sha256sum_reads(saved):
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=saved, check=True)


def test_without_checksums_a_checkpoint_is_damaged(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "mine.scld")
    (tmp_path / "mine.scld" / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match="SHA256SUMS is missing"):
        scld.load(tmp_path / "mine.scld")


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(saved, tmp_path):
    path = tmp_path / "mine.scld"
    shutil.copytree(saved, path)
    (path / "genes.csv").unlink()
    os.mkfifo(path / "genes.csv")
    with pytest.raises(CheckpointError, match=r"genes.csv is not a plain file"):
        scld.load(path)


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, '{"a":' * 100_000, "1" * 5000, '{"format": 1e999}', '{"format": [1]}', "\x00"],
)
def test_json_that_cannot_be_is_refused(saved, tmp_path, content):
    path = tmp_path / "mine.scld"
    shutil.copytree(saved, path)
    (path / "manifest.json").write_text(content)
    disk.seal(path)
    with pytest.raises(CheckpointError) as caught:
        scld.load(path)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("section", ["autoencoder", "denoiser"])
def test_sizes_that_no_machine_has_are_refused_before_anything_is_allocated(
    saved, tmp_path, section
):
    path = tmp_path / "mine.scld"
    shutil.copytree(saved, path)
    config = json.loads((path / "manifest.json").read_text())["config"]
    config[section]["width"] = 10**9
    change(path / "manifest.json", config=config)
    disk.seal(path)
    with pytest.raises(CheckpointError, match="damaged"):
        scld.load(path)


def test_a_load_while_another_process_replaces_the_checkpoint_gives_one_of_both(tmp_path):
    """Never a mixture, and never an error."""
    path = tmp_path / "a.scld"
    write(path, content(1.0))
    replacing = threading.Thread(
        target=lambda: [write(path, content(float(i)), overwrite=True) for i in range(60)]
    )
    replacing.start()
    found = []
    while replacing.is_alive():
        found.append(read(path).parts["one"]["w"])
    assert found
    assert all((one == one[0, 0]).all() for one in found)


def dead_process():
    """The number of a process that is no longer there."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_what_a_process_that_was_killed_between_two_renames_left_is_put_back(tmp_path):
    path = tmp_path / "a.scld"
    write(path, content(3.0))
    left = tmp_path / f".scld-{_here().rpartition('-')[0]}-{dead_process()}-x"
    left.mkdir()
    os.replace(path, left / "a.scld.former")
    assert value_of(path) == 3.0
    write(path, content(4.0), overwrite=True)
    assert names(tmp_path) == ["a.scld"]  # and what it left is gone


def test_folders_of_living_processes_and_other_machines_are_left_alone(tmp_path):
    machine = _here().rpartition("-")[0]
    for name in (f".scld-{machine}-{os.getppid()}-x", f".scld-elsewhere-{dead_process()}-x"):
        (tmp_path / name).mkdir()
    write(tmp_path / "a.scld", content())
    assert len(names(tmp_path)) == 3


def test_an_unfinished_fit_says_how_to_continue_it(tmp_path):
    resume_folder(tmp_path / "a.scld", "this run", overwrite=False)
    with pytest.raises(CheckpointError, match=r"interrupted; run the same scld fit command again"):
        read(tmp_path / "a.scld")


# Format 2: tests/data/format2.scld was written by the code before format 3, and format2.npz holds
# the counts that it sampled


@pytest.fixture(scope="module")
def format2(pytestconfig):
    return pytestconfig.rootpath / "tests" / "data" / "format2.scld"


def sampled(path, post):
    table = make_cells(200).obs[["cell_type", "donor"]].iloc[:60]
    cells = scld.load(path).sample(obs=table, seed=5, post=post, progress=False)
    return cells.X.toarray()


@pytest.mark.parametrize("post", ["off", "select"])
def test_a_checkpoint_of_format_2_gives_the_cells_that_it_gave(format2, post, tmp_path):
    expected = np.load(format2.with_suffix(".npz"))[post]
    np.testing.assert_array_equal(sampled(format2, post), expected)
    scld.load(format2).save(tmp_path / "again.scld")
    assert read_manifest(tmp_path / "again.scld")["format"] == disk.FORMAT == 6
    np.testing.assert_array_equal(sampled(tmp_path / "again.scld", post), expected)


def test_a_checkpoint_of_format_2_keeps_its_labels_settings_and_history(format2):
    synth = scld.load(format2)
    old = json.loads((format2 / "manifest.json").read_text())
    assert synth.labels == ["cell_type", "donor"]
    assert synth.seed == old["seed"]
    assert synth.summary["cells"] == old["training"]["cells"]
    best = synth.summary["autoencoder"]["best_interval"]
    assert best == old["training"]["autoencoder"]["best_round"]
    training = old["config"]["autoencoder_training"]
    assert synth.config.autoencoder_training.intervals == training["rounds"]
    assert synth.config.discriminator.max_cells == old["config"]["selector"]["most_cells"]
    strength = old["config"]["editing"]["strength"]
    assert synth.config.sampling.transfer_strength == strength


def test_a_checkpoint_of_format_4_gives_the_cells_that_it_gave(format2, tmp_path):
    """It had no map of latent points."""
    scld.load(format2).save(tmp_path / "a.scld")
    change(tmp_path / "a.scld" / "manifest.json", format=4)
    (tmp_path / "a.scld" / "SHA256SUMS").unlink()
    latents = tmp_path / "a.scld" / "latents.safetensors"
    save_file({k: t for k, t in load_file(latents).items() if not k.startswith("map_")}, latents)
    expected = np.load(format2.with_suffix(".npz"))["off"]
    np.testing.assert_array_equal(sampled(tmp_path / "a.scld", "off"), expected)


@pytest.mark.parametrize("part", ["autoencoder", "denoiser", "selector"])
@pytest.mark.parametrize("harm", [cut, os.remove])
def test_a_damaged_checkpoint_of_format_2_is_refused(format2, part, harm, tmp_path):
    shutil.copytree(format2, tmp_path / "old.scld")
    harm(tmp_path / "old.scld" / f"{part}.safetensors")
    with pytest.raises(CheckpointError, match="damaged"):
        scld.load(tmp_path / "old.scld")


@pytest.mark.parametrize("key", ["latent_mean", "latent_sd", "combination_means"])
@pytest.mark.parametrize("value", [None, ["a"], [0.0]])
def test_damaged_latents_of_format_2_are_refused(format2, key, value, tmp_path):
    shutil.copytree(format2, tmp_path / "old.scld")
    change(tmp_path / "old.scld" / "schema.json", **{key: value})
    with pytest.raises(CheckpointError, match="damaged"):
        scld.load(tmp_path / "old.scld")


@pytest.mark.parametrize("values", [{"training": {}}, {"config": {}}, {"config": {"sampling": 3}}])
def test_a_damaged_manifest_of_format_2_is_refused(format2, values, tmp_path):
    shutil.copytree(format2, tmp_path / "old.scld")
    change(tmp_path / "old.scld" / "manifest.json", **values)
    with pytest.raises(CheckpointError, match="damaged"):
        scld.load(tmp_path / "old.scld")


# Writing and resuming


def test_a_checkpoint_is_replaced_only_when_told(tmp_path):
    write(tmp_path / "a.scld", content(1.0))
    with pytest.raises(RequestError, match=r"exists already.*--overwrite"):
        write(tmp_path / "a.scld", content(2.0))
    assert value_of(tmp_path / "a.scld") == 1.0
    write(tmp_path / "a.scld", content(2.0), overwrite=True)
    assert value_of(tmp_path / "a.scld") == 2.0
    assert names(tmp_path) == ["a.scld"]


@pytest.mark.parametrize("kind", ["file", "folder", "folder with a resume"])
def test_what_is_no_checkpoint_is_never_replaced(tmp_path, kind):
    path = tmp_path / "thesis"
    if kind == "file":
        path.write_text("chapter 1")
        chapter = path
    else:
        path.mkdir()
        chapter = path / "chapter1.txt"
        chapter.write_text("chapter 1")
        if "resume" in kind:
            (path / "resume").mkdir()
    for replace in (
        lambda: write(path, content(), overwrite=True),
        lambda: resume_folder(path, "a run", overwrite=True),
    ):
        with pytest.raises(RequestError, match="not a checkpoint, so it is not replaced"):
            replace()
    assert chapter.read_text() == "chapter 1"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"folder '.*nowhere' does not exist; make it first"):
        write(tmp_path / "nowhere" / "a.scld", content())


@pytest.mark.parametrize("renames", [None, 0, 1])
def test_an_interrupted_write_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch, renames):
    """In the middle of the files, or at one of the two renames that replace a directory."""
    write(tmp_path / "a.scld", content(1.0))
    usual, done = os.replace, []

    def failing(source, target):
        done.append(source)
        if len(done) == renames + 1:
            raise KeyboardInterrupt
        usual(source, target)

    def interrupted(*args):
        raise KeyboardInterrupt

    if renames is None:
        monkeypatch.setattr(disk, "save", interrupted)
    else:  # where a system cannot exchange two directories
        monkeypatch.setattr("scld.io.atomic._exchange", lambda one, other: False)
        monkeypatch.setattr("os.replace", failing)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.scld", content(2.0), overwrite=True)
    assert value_of(tmp_path / "a.scld") == 1.0
    assert names(tmp_path) == ["a.scld"]


def test_a_run_is_continued_only_by_the_same_run(tmp_path):
    path = tmp_path / "a.scld"
    (resume_folder(path, "one", overwrite=False) / "state").write_text("half way")
    assert (resume_folder(path, "one", overwrite=False) / "state").read_text() == "half way"
    with pytest.raises(RequestError, match="an unfinished fit of other data or settings"):
        resume_folder(path, "two", overwrite=False)
    assert not (resume_folder(path, "two", overwrite=True) / "state").exists()


def test_a_finished_checkpoint_stays_whole_beside_a_new_fit(tmp_path):
    write(tmp_path / "a.scld", content(1.0))
    resume_folder(tmp_path / "a.scld", "new", overwrite=True)
    assert value_of(tmp_path / "a.scld") == 1.0
    with pytest.raises(RequestError, match="exists already"):
        resume_folder(tmp_path / "a.scld", "newer", overwrite=False)


@pytest.mark.parametrize("finished", [False, True])
def test_a_fit_killed_as_it_begins_leaves_nothing_that_stops_the_same_command(
    tmp_path, monkeypatch, finished
):
    path = tmp_path / "a.scld"
    if finished:
        write(path, content())

    def killed(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        resume_folder(path, "one", overwrite=finished)
    monkeypatch.undo()
    assert not (path / "resume").exists()
    assert path.exists() == finished
    assert (resume_folder(path, "one", overwrite=finished) / "run.json").read_text() == "one"
    assert [file.name for file in tmp_path.iterdir()] == ["a.scld"]


def test_an_unreadable_record_of_an_unfinished_fit_is_one_of_other_data(tmp_path):
    path = tmp_path / "a.scld"
    (resume_folder(path, "one", overwrite=False) / "run.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match="an unfinished fit of other data or settings"):
        resume_folder(path, "one", overwrite=False)
    assert resume_folder(path, "one", overwrite=True) == path / "resume"
