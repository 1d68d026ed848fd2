"""A fitted model on disk: a directory of JSON, CSV and safetensors, written atomically.

manifest.json            format version, scld version, settings, training history
schema.json              labels, categories, number of cells of each combination
genes.csv                gene names in training order, and whether training saw a count of them
<part>.safetensors       one file per network, one for the latent space, one for the discriminator
SHA256SUMS               of all these files
resume/                  state of an unfinished fit; may be deleted
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from scld.errors import CheckpointError, RequestError, one_line
from scld.io.atomic import atomic_write, check_target, restore
from scld.io.upgrade import FORMAT, FORMATS, Tensors, upgraded

RESUME = "resume"
MANIFEST, SCHEMA, GENES, SUMS = "manifest.json", "schema.json", "genes.csv", "SHA256SUMS"
_WITH_SUMS = 6  # the first format with checksums
_AGAIN_SECONDS = 0.1
_SUM = re.compile("(?P<sum>[0-9a-f]{64})  (?P<name>.+)")
_LARGEST = 2**33  # bytes of a file


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint directory."""

    manifest: dict[str, Any]
    schema: dict[str, Any]
    genes: pd.DataFrame  # columns: gene, seen
    parts: dict[str, Tensors]


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse a path that cannot be written, or holds anything but a checkpoint."""
    check_target(path, overwrite, "a checkpoint", _is_checkpoint)


def _is_checkpoint(path: Path) -> bool:
    if not path.is_dir():
        return False
    return (path / "manifest.json").exists() or {p.name for p in path.iterdir()} <= {RESUME}


def resume_folder(path: Path, run: str, overwrite: bool) -> Path:
    """The folder for the state of a fit: continued if it is of the same ``run``, else new.

    A finished checkpoint in the same place stays until the new one replaces it.
    """
    folder = path / RESUME
    started = folder / "run.json"
    if started.exists() and started.read_text() == run:
        return folder
    if folder.is_dir() and not overwrite and not (path / "manifest.json").exists():
        advice = "choose another name, or replace it with overwrite=True (--overwrite)"
        raise RequestError(f"{path}: an unfinished fit of other data or settings; {advice}")
    check_output(path, overwrite)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started.write_text(run)
    return folder


def write(path: Path, checkpoint: Checkpoint, overwrite: bool = False) -> None:
    """Write a checkpoint atomically."""
    check_output(path, overwrite)
    with atomic_write(path) as folder:
        folder.mkdir()
        _write_files(folder, checkpoint)
        seal(folder)


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    manifest = {"format": FORMAT, "parts": sorted(checkpoint.parts), **checkpoint.manifest}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    (folder / SCHEMA).write_text(json.dumps(checkpoint.schema))
    checkpoint.genes.to_csv(folder / GENES, index=False)
    for name, tensors in checkpoint.parts.items():
        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        (folder / f"{name}.safetensors").write_bytes(save(plain))


def seal(folder: Path) -> None:
    """Write the checksums of all files, as ``sha256sum -c SHA256SUMS`` reads them."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != SUMS)
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in files]
    (folder / SUMS).write_text("\n".join(lines) + "\n")


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; `CheckpointError` if it is missing, unfinished, damaged or unknown.

    What does not fit is read once more: another process may have replaced it meanwhile.
    """
    try:
        return _read(path)
    except CheckpointError:
        time.sleep(_AGAIN_SECONDS)
        return _read(path)


def _read(path: Path) -> Checkpoint:
    restore(path)
    with _opened(path) as folder:
        manifest, schema = folder.manifest(), folder.json(SCHEMA)
        try:
            kinds = {"gene": str, "seen": bool}
            text = io.BytesIO(folder.content(GENES))
            genes = pd.read_csv(text, dtype=kinds, keep_default_na=False)
            names = {name: f"{name}.safetensors" for name in manifest["parts"]}
            parts = {name: load(folder.content(file)) for name, file in names.items()}
            manifest, schema, parts = upgraded(manifest, schema, parts)
        except CheckpointError:
            raise
        except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise damaged(path, str(error)) from error
    for name, tensors in parts.items():
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise damaged(path, f"{name} holds non-finite values")
    return Checkpoint(manifest, schema, genes, parts)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest alone, its format checked."""
    with _opened(path) as folder:
        return folder.manifest()


@contextmanager
def _opened(path: Path) -> Iterator[_Folder]:
    """The files of one checkpoint, also if another one takes its place meanwhile.

    `CheckpointError` if there is none, or its fit was interrupted.
    """
    if not path.exists():
        advice = f"check the path, or fit one with scld fit ... -o {path}"
        raise CheckpointError(f"{path}: no such checkpoint; {advice}")
    if not (path / MANIFEST).exists():
        if (path / RESUME).is_dir():
            advice = "run the same scld fit command again, and it continues where it stopped"
            raise CheckpointError(f"{path}: its fit was interrupted; {advice}")
        seen = f"not a checkpoint (it has no {MANIFEST})"
        raise CheckpointError(f"{path}: {seen}; pass a directory that scld fit wrote")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield _Folder.of(path, descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class _Folder:
    """The files of an open directory, each with the checksum that it must have."""

    path: Path
    descriptor: int
    sums: dict[str, str] | None = None  # none in old formats

    @classmethod
    def of(cls, path: Path, descriptor: int) -> _Folder:
        """With its checksums."""
        if SUMS not in os.listdir(descriptor):
            return cls(path, descriptor)
        text = cls(path, descriptor).content(SUMS).decode(errors="replace")
        lines = [_SUM.fullmatch(line) for line in text.removesuffix("\n").split("\n")]
        if not all(lines) or not text.endswith("\n"):
            raise damaged(path, f"{SUMS} does not hold checksums")
        return cls(path, descriptor, {line["name"]: line["sum"] for line in lines if line})

    def content(self, name: str) -> bytes:
        """The bytes of a file, checked."""
        try:
            content = self._bytes(name)
        except FileNotFoundError as error:
            raise damaged(self.path, f"{name} is missing") from error
        except CheckpointError:
            raise
        except (OSError, ValueError) as error:  # a name that no file can have
            raise damaged(self.path, str(error)) from error
        if self.sums is not None and hashlib.sha256(content).hexdigest() != self.sums.get(name):
            raise damaged(self.path, f"{name} does not have its checksum")
        return content

    def _bytes(self, name: str) -> bytes:
        # a pipe would be waited for
        file = os.open(name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=self.descriptor)
        with open(file, "rb") as opened:
            about = os.fstat(file)
            if not stat.S_ISREG(about.st_mode):
                raise damaged(self.path, f"{name} is not a plain file")
            if about.st_size > _LARGEST:
                raise damaged(self.path, f"{name} has more than {_LARGEST:,} bytes")
            return opened.read()

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object."""
        try:
            values = json.loads(self.content(name))
        except CheckpointError:
            raise
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, f"{name} is not readable JSON") from error
        if not isinstance(values, dict):
            raise damaged(self.path, f"{name} does not hold an object")
        return values

    def manifest(self) -> dict[str, Any]:
        """The manifest, its format checked."""
        manifest = self.json(MANIFEST)
        number = manifest.get("format")
        if number not in FORMATS:
            made_by = one_line(manifest.get("scld_version", "unknown"))
            seen = f"checkpoint format {one_line(repr(number))}, written by scld {made_by}"
            known = f"this version reads formats {FORMATS[0]} to {FORMAT}"
            raise CheckpointError(f"{self.path}: {seen}; {known}: install that one, or fit again")
        if self.sums is None and number >= _WITH_SUMS:
            raise damaged(self.path, f"{SUMS} is missing")
        return manifest


def damaged(path: Path, what: str) -> CheckpointError:
    """The error for a checkpoint that cannot be what was written."""
    advice = "copy it again from where it came, or fit again"
    return CheckpointError(f"{path}: damaged checkpoint: {one_line(what)}; {advice}")
