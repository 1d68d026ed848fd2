"""A fitted model on disk: a directory of JSON, CSV and safetensors, written atomically.

manifest.json            format version, scld version, settings, training history
schema.json              labels, categories, number of cells of each combination
genes.csv                gene names in training order, whether training saw a count of them, and
                         the text columns of var
<part>.safetensors       one file per network, one for the latent space, one for the discriminator
SHA256SUMS               of all these files
resume/                  state of an unfinished fit; may be deleted
"""

from __future__ import annotations

import io
import json
import time
from collections import defaultdict
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
from scld.io.read import nearest_file
from scld.io.sealed import SUMS, SealedFolder, seal
from scld.io.upgrade import FORMAT, FORMATS, Tensors, upgraded

RESUME = "resume"
MANIFEST, SCHEMA, GENES = "manifest.json", "schema.json", "genes.csv"
_WITH_SUMS = 6  # the first format with checksums
_TRIES, _AGAIN_SECONDS = 20, 0.1  # while it is being replaced


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint directory."""

    manifest: dict[str, Any]
    schema: dict[str, Any]
    genes: pd.DataFrame  # columns: gene, seen, and text columns of var
    parts: dict[str, Tensors]


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse a path that cannot be written, or holds anything but a checkpoint."""
    check_target(path, overwrite, "a checkpoint", _is_checkpoint)


def is_model(path: Path) -> bool:
    """Whether this is, or was meant to be, a checkpoint, finished or not."""
    return any((path / name).exists() for name in (MANIFEST, SCHEMA, RESUME))


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
    if started.is_file() and started.read_bytes() == run.encode():
        return folder
    finished = (path / MANIFEST).exists()
    if folder.is_dir() and not overwrite and not finished:
        advice = "choose another name, or replace it with overwrite=True (--overwrite)"
        raise RequestError(f"{path}: an unfinished fit of other data or settings; {advice}")
    check_output(path, overwrite)
    with atomic_write(folder if finished else path) as temporary:
        new = temporary if finished else temporary / RESUME
        new.mkdir(parents=True)
        (new / "run.json").write_text(run, encoding="utf-8")
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


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; `CheckpointError` if it is missing, unfinished, damaged or unknown.

    It is read again if another process replaces it meanwhile.
    """
    for _ in range(_TRIES):
        before = _identity(path)
        try:
            return _read(path)
        except CheckpointError:
            time.sleep(_AGAIN_SECONDS)
            if _identity(path) == before:
                raise
    return _read(path)


def _identity(path: Path) -> tuple[int, ...] | None:
    """Differs once another folder is in this place."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino, about.st_ctime_ns


def _read(path: Path) -> Checkpoint:
    restore(path)
    with _opened(path) as folder:
        manifest, schema = _manifest(path, folder), folder.json(SCHEMA)
        kinds: dict[str, type] = defaultdict(lambda: str, seen=bool)
        genes = pd.read_csv(io.BytesIO(folder.content(GENES)), dtype=kinds, keep_default_na=False)
        names = {name: f"{name}.safetensors" for name in manifest["parts"]}
        parts = {name: load(folder.content(file)) for name, file in names.items()}
        manifest, schema, parts = upgraded(manifest, schema, parts)
    for name, tensors in parts.items():
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise damaged(path, f"{name} holds non-finite values")
    return Checkpoint(manifest, schema, genes, parts)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest alone, its format checked."""
    with _opened(path) as folder:
        return _manifest(path, folder)


@contextmanager
def _opened(path: Path) -> Iterator[SealedFolder]:
    """The files of a checkpoint; `CheckpointError` if there is none, or what is read is damaged."""
    if not path.exists():
        advice = f"check the path, or fit one with scld fit ... -o {path}"
        raise CheckpointError(f"{path}: no such checkpoint; {advice}{nearest_file(path)}")
    if not (path / MANIFEST).exists():
        if (path / RESUME).is_dir():
            advice = "run the same scld fit command again, and it continues where it stopped"
            raise CheckpointError(f"{path}: its fit was interrupted; {advice}")
        seen = f"not a checkpoint (it has no {MANIFEST})"
        raise CheckpointError(f"{path}: {seen}; pass a directory that scld fit wrote")
    try:
        with SealedFolder.opened(path) as folder:
            yield folder
    except CheckpointError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise damaged(path, str(error)) from error


def _manifest(path: Path, folder: SealedFolder) -> dict[str, Any]:
    """The manifest, its format checked."""
    manifest = folder.json(MANIFEST)
    number = manifest.get("format")
    if number not in FORMATS:
        made_by = one_line(manifest.get("scld_version", "unknown"))
        seen = f"checkpoint format {one_line(repr(number))}, written by scld {made_by}"
        known = f"this version reads formats {FORMATS[0]} to {FORMAT}"
        raise CheckpointError(f"{path}: {seen}; {known}: install that one, or fit again")
    if folder.sums is None and number >= _WITH_SUMS:
        raise damaged(path, f"{SUMS} is missing")
    return manifest


def damaged(path: Path, what: str) -> CheckpointError:
    """The error for a checkpoint that cannot be what was written."""
    advice = "copy it again from where it came, or fit again"
    return CheckpointError(f"{path}: damaged checkpoint: {one_line(what)}; {advice}")
