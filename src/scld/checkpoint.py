"""A fitted model on disk: a directory of JSON, CSV and safetensors, written aside and renamed, never pickle.

manifest.json            format version, scld version, settings, training summary
schema.json              labels, categories, joint frequencies; mean and sd of the latents, the mean of each combination
genes.csv                gene names in training order, and whether training saw a count of them
<part>.safetensors       one file a network, and one for the selector's trees
resume/                  state of an unfinished fit; deletable
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from scld.aside import check_place, written_aside
from scld.errors import CheckpointError, RequestError

FORMAT = 2
RESUME = "resume"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint directory holds."""

    manifest: dict[str, Any]
    schema: dict[str, Any]
    genes: pd.DataFrame  # columns: gene, seen
    parts: dict[str, dict[str, Tensor]]  # name -> tensors of one part


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse an output that exists, unless told to replace it, that is no checkpoint, or whose folder does not exist."""
    check_place(path, overwrite, "a checkpoint", _is_ours)


def _is_ours(path: Path) -> bool:
    return path.is_dir() and ((path / "manifest.json").exists() or {entry.name for entry in path.iterdir()} <= {RESUME})


def resume_folder(path: Path, run: str, overwrite: bool) -> Path:
    """The folder for the state of a fit; taken up if it holds the same ``run`` (any text that tells), else begun anew.

    A finished checkpoint in the same place stays whole until the new one replaces it.
    """
    folder = path / RESUME
    started = folder / "run.json"
    if not (started.exists() and started.read_text() == run):
        if folder.is_dir() and not overwrite and not (path / "manifest.json").exists():
            raise RequestError(f"{path}: an unfinished fit of other data or settings; choose another name, or replace it with overwrite=True (--overwrite)")
        check_output(path, overwrite)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started.write_text(run)
    return folder


def write(path: Path, checkpoint: Checkpoint, overwrite: bool = False) -> None:
    """Write a checkpoint; whatever stops it, ``path`` holds either what it held before or the whole new one."""
    check_output(path, overwrite)
    with written_aside(path) as folder:
        folder.mkdir()
        _write_files(folder, checkpoint)


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    manifest = {"format": FORMAT, "parts": sorted(checkpoint.parts), **checkpoint.manifest}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    (folder / "schema.json").write_text(json.dumps(checkpoint.schema))
    checkpoint.genes.to_csv(folder / "genes.csv", index=False)
    for name, tensors in checkpoint.parts.items():
        (folder / f"{name}.safetensors").write_bytes(save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}))


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; `CheckpointError` where it is missing, unfinished, damaged or of another format."""
    manifest = read_manifest(path)
    schema = _json(path / "schema.json")
    try:
        genes = pd.read_csv(path / "genes.csv", dtype={"gene": str, "seen": bool}, keep_default_na=False)
        parts = {name: load_file(path / f"{name}.safetensors") for name in manifest["parts"]}
    except FileNotFoundError as error:
        raise damaged(path, f"{Path(str(error.filename or error)).name} is missing") from error
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        raise damaged(path, str(error)) from error
    return Checkpoint(manifest, schema, genes, parts)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest alone, its format checked."""
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint; check the path, or make one with scld fit ... -o {path}")
    if not (path / "manifest.json").exists():
        if (path / RESUME).is_dir():
            raise CheckpointError(f"{path}: its fit was interrupted; run the same scld fit command again and it goes on where it stopped")
        raise CheckpointError(f"{path}: not a checkpoint (it has no manifest.json); pass a directory that scld fit wrote")
    manifest = _json(path / "manifest.json")
    if manifest.get("format") != FORMAT:
        made_by = manifest.get("scld_version", "unknown")
        raise CheckpointError(
            f"{path}: checkpoint format {manifest.get('format')!r}, written by scld {made_by}; this one reads format {FORMAT}: install that one, or fit again"
        )
    return manifest


def _json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise damaged(file.parent, f"{file.name} is missing") from error
    except (ValueError, OSError) as error:
        raise damaged(file.parent, f"{file.name} is not readable JSON") from error
    if not isinstance(values, dict):
        raise damaged(file.parent, f"{file.name} does not hold an object")
    return values


def damaged(path: Path, what: str) -> CheckpointError:
    """The error for a checkpoint that cannot be what was written."""
    return CheckpointError(f"{path}: damaged checkpoint: {' '.join(what.split())[:200]}; copy it again from where it came, or fit again")
