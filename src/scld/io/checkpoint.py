"""A fitted model on disk: a directory of JSON, CSV and safetensors, written atomically.

manifest.json            format version, scld version, settings, training history
schema.json              labels, categories, number of cells of each combination
genes.csv                gene names in training order, and whether training saw a count of them
<part>.safetensors       one file per network, one for the latent space, one for the discriminator
resume/                  state of an unfinished fit; may be deleted
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from scld.errors import CheckpointError, RequestError, one_line
from scld.io.atomic import atomic_write, check_target
from scld.io.upgrade import FORMAT, FORMATS, Tensors, upgraded

RESUME = "resume"


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


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    manifest = {"format": FORMAT, "parts": sorted(checkpoint.parts), **checkpoint.manifest}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    (folder / "schema.json").write_text(json.dumps(checkpoint.schema))
    checkpoint.genes.to_csv(folder / "genes.csv", index=False)
    for name, tensors in checkpoint.parts.items():
        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        (folder / f"{name}.safetensors").write_bytes(save(plain))


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; `CheckpointError` if it is missing, unfinished, damaged or unknown."""
    manifest, schema = read_manifest(path), _json(path / "schema.json")
    try:
        kinds = {"gene": str, "seen": bool}
        genes = pd.read_csv(path / "genes.csv", dtype=kinds, keep_default_na=False)
        parts = {name: load_file(path / f"{name}.safetensors") for name in manifest["parts"]}
        manifest, schema, parts = upgraded(manifest, schema, parts)
    except FileNotFoundError as error:
        name = Path(str(error.filename or error)).name
        raise damaged(path, f"{name} is missing") from error
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        raise damaged(path, str(error)) from error
    for name, tensors in parts.items():
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise damaged(path, f"{name} holds non-finite values")
    return Checkpoint(manifest, schema, genes, parts)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest alone, its format checked."""
    if not path.exists():
        advice = f"check the path, or fit one with scld fit ... -o {path}"
        raise CheckpointError(f"{path}: no such checkpoint; {advice}")
    if not (path / "manifest.json").exists():
        if (path / RESUME).is_dir():
            advice = "run the same scld fit command again, and it continues where it stopped"
            raise CheckpointError(f"{path}: its fit was interrupted; {advice}")
        seen = "not a checkpoint (it has no manifest.json)"
        raise CheckpointError(f"{path}: {seen}; pass a directory that scld fit wrote")
    manifest = _json(path / "manifest.json")
    if manifest.get("format") not in FORMATS:
        made_by = one_line(manifest.get("scld_version", "unknown"))
        seen = f"checkpoint format {manifest.get('format')!r}, written by scld {made_by}"
        known = f"this version reads formats {FORMATS[0]} to {FORMAT}"
        raise CheckpointError(f"{path}: {seen}; {known}: install that one, or fit again")
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
    advice = "copy it again from where it came, or fit again"
    return CheckpointError(f"{path}: damaged checkpoint: {one_line(what)}; {advice}")
