import json
import os
import shutil

import pandas as pd
import pytest
import torch

import scld
from scld import checkpoint as disk
from scld.checkpoint import Checkpoint, read, read_manifest, resume_folder, write
from scld.errors import CheckpointError, RequestError


def content(value=1.0):
    genes = pd.DataFrame({"gene": ["NA", "a,b", 'quo"te', "é"], "seen": [True, False, True, True]})
    parts = {"one": {"w": torch.full((2, 3), value), "count": torch.tensor(3)}, "two": {"w": torch.arange(4.0)[::2]}}
    return Checkpoint({"scld_version": "9", "config": {}}, {"labels": []}, genes, parts)


def value_of(path):
    return float(read(path).parts["one"]["w"][0, 0])


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "a.scld", content())
    got, expected = read(tmp_path / "a.scld"), content()
    assert expected.manifest.items() <= got.manifest.items()
    assert got.schema == expected.schema
    pd.testing.assert_frame_equal(got.genes, expected.genes)
    assert got.parts.keys() == expected.parts.keys()
    for name, tensors in expected.parts.items():
        torch.testing.assert_close(got.parts[name], tensors)


def test_it_holds_the_files_it_says_and_leaves_nothing_beside(tmp_path):
    write(tmp_path / "a.scld", content())
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.scld"]
    files = {entry.name for entry in (tmp_path / "a.scld").iterdir()}
    assert files == {"genes.csv", "manifest.json", "one.safetensors", "schema.json", "two.safetensors"}
    assert read_manifest(tmp_path / "a.scld")["format"] == disk.FORMAT


def test_whoever_may_read_the_folder_may_read_all_of_it(tmp_path):
    write(tmp_path / "a.scld", content())
    (tmp_path / "plain").touch()
    assert {entry.stat().st_mode for entry in (tmp_path / "a.scld").iterdir()} == {(tmp_path / "plain").stat().st_mode}


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def change(file, **values):
    old = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in {**old, **values}.items() if value is not None}))


DAMAGE = {
    "no such folder": (shutil.rmtree, "no such checkpoint"),
    "a file in its place": (lambda path: (shutil.rmtree(path), path.write_text("x")), "not a checkpoint"),
    "an empty folder": (lambda path: (shutil.rmtree(path), path.mkdir()), "not a checkpoint"),
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "not a checkpoint"),
    "no schema": (lambda path: (path / "schema.json").unlink(), "schema.json is missing"),
    "no genes": (lambda path: (path / "genes.csv").unlink(), "genes.csv is missing"),
    "no network": (lambda path: (path / "denoiser.safetensors").unlink(), "denoiser.safetensors is missing"),
    "a cut network": (lambda path: cut(path / "denoiser.safetensors"), "damaged"),
    "an empty network": (lambda path: (path / "denoiser.safetensors").write_bytes(b""), "damaged"),
    "a foreign network": (lambda path: shutil.copy(path / "autoencoder.safetensors", path / "denoiser.safetensors"), "damaged"),
    "no critic": (lambda path: (path / "critic.safetensors").unlink(), "critic.safetensors is missing"),
    "a critic that is a selector": (lambda path: shutil.copy(path / "selector.safetensors", path / "critic.safetensors"), "damaged"),
    "a cut selector": (lambda path: cut(path / "selector.safetensors"), "damaged"),
    "a selector that is a critic": (lambda path: shutil.copy(path / "critic.safetensors", path / "selector.safetensors"), "damaged"),
    "no critics": (lambda path: change(path / "manifest.json", parts=["autoencoder", "denoiser"]), "damaged"),
    "a cut manifest": (lambda path: cut(path / "manifest.json"), "manifest.json is not readable JSON"),
    "a cut schema": (lambda path: cut(path / "schema.json"), "schema.json is not readable JSON"),
    "cut genes": (lambda path: cut(path / "genes.csv"), "damaged"),
    "empty genes": (lambda path: (path / "genes.csv").write_text(""), "damaged"),
    "no gene column": (lambda path: (path / "genes.csv").write_text("a,b\n1,True\n"), "damaged"),
    "bytes for a schema": (lambda path: (path / "schema.json").write_bytes(b"\xff\xfe\x00"), "schema.json is not readable JSON"),
    "a list for a schema": (lambda path: (path / "schema.json").write_text("[]"), "does not hold an object"),
    "another format": (lambda path: change(path / "manifest.json", format=99, scld_version="7.1"), "format 99, written by scld 7.1"),
    "no format": (lambda path: change(path / "manifest.json", format=None), "format None"),
    "no list of parts": (lambda path: change(path / "manifest.json", parts=None), "damaged"),
    "a part too few": (lambda path: change(path / "manifest.json", parts=["autoencoder"]), "damaged"),
    "parts that are no list": (lambda path: change(path / "manifest.json", parts=7), "damaged"),
    "no settings": (lambda path: change(path / "manifest.json", config=None), "damaged"),
    "an unknown setting": (lambda path: change(path / "manifest.json", config={"sampling": {"stepps": 3}}), "stepps"),
    "another width": (lambda path: change(path / "manifest.json", config={}), "damaged"),
    "no training summary": (lambda path: change(path / "manifest.json", training=None), "damaged"),
    "half a training summary": (lambda path: change(path / "manifest.json", training={}), "log_library"),
    "no labels": (lambda path: change(path / "schema.json", labels=None), "damaged"),
    "a label that is no label": (lambda path: change(path / "schema.json", labels=[3]), "damaged"),
    "no combinations": (lambda path: change(path / "schema.json", combinations=None), "damaged"),
    "unknown combinations": (lambda path: change(path / "schema.json", combinations=[[99, 0]], cells=[3]), "damaged"),
    "no latent mean": (lambda path: change(path / "schema.json", latent_mean=None), "latent_mean"),
    "a short latent mean": (lambda path: change(path / "schema.json", latent_mean=[0.0]), "damaged"),
    "a text for a latent mean": (lambda path: change(path / "schema.json", latent_mean=["a"]), "damaged"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_line_that_says_where_and_what(kind, saved, tmp_path):
    harm, words = DAMAGE[kind]
    path = tmp_path / "mine.scld"
    shutil.copytree(saved, path)
    harm(path)
    with pytest.raises(CheckpointError) as caught:
        scld.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert words in message
    assert len(message) < 400


def test_an_unfinished_fit_says_how_to_go_on(tmp_path):
    resume_folder(tmp_path / "a.scld", "this run", overwrite=False)
    with pytest.raises(CheckpointError, match=r"interrupted; run the same scld fit command again"):
        read(tmp_path / "a.scld")


def test_a_checkpoint_is_not_replaced_unasked(tmp_path):
    write(tmp_path / "a.scld", content(1.0))
    with pytest.raises(RequestError, match=r"exists already.*--overwrite"):
        write(tmp_path / "a.scld", content(2.0))
    assert value_of(tmp_path / "a.scld") == 1.0
    write(tmp_path / "a.scld", content(2.0), overwrite=True)
    assert value_of(tmp_path / "a.scld") == 2.0
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.scld"]


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
    for replace in [lambda: write(path, content(), overwrite=True), lambda: resume_folder(path, "a run", overwrite=True)]:
        with pytest.raises(RequestError, match="not a checkpoint, so it is not replaced"):
            replace()
    assert chapter.read_text() == "chapter 1"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"folder '.*nowhere' does not exist; make it first"):
        write(tmp_path / "nowhere" / "a.scld", content())


@pytest.mark.parametrize("renames", [None, 0, 1])
def test_a_crash_while_writing_leaves_the_old_one_whole(tmp_path, monkeypatch, renames):
    """In the middle of the files, or at one of the two renames that replace a directory."""
    write(tmp_path / "a.scld", content(1.0))
    usual, done = os.replace, []

    def failing(source, target):
        done.append(source)
        if len(done) == renames + 1:
            raise KeyboardInterrupt
        usual(source, target)

    if renames is None:
        monkeypatch.setattr(disk, "save", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    else:
        monkeypatch.setattr("os.replace", failing)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.scld", content(2.0), overwrite=True)
    assert value_of(tmp_path / "a.scld") == 1.0
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.scld"]


def test_a_run_is_taken_up_only_by_its_like(tmp_path):
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
