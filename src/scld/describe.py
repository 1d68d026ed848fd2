"""What a model, or a file of cells, holds: plain values, and the same as text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from scld.config import PRESETS, Config
from scld.errors import DataError, listed, one_line
from scld.generation.fitted import FittedModel, torch_device
from scld.io.checkpoint import is_model, read_manifest
from scld.io.counts import LOOKED_AT, why_no_counts
from scld.io.read import ORIGIN, outline, read
from scld.machine import size_text
from scld.schema import Schema
from scld.training.memory import estimate_for, larger_than_memory

_MOST_CATEGORIES = 200  # of a column that is proposed as a label
Plain = dict[str, Any]


def describe(path: Path, layer: str | None = None) -> Plain:
    """What is in a checkpoint, an ``.h5ad`` file, a ``.zarr`` store or a folder of shards.

    Raises
    ------
    DataError
        It cannot be read.

    Examples
    --------
    >>> import scld, tempfile
    >>> path = Path(tempfile.mkdtemp()) / "cells.h5ad"
    >>> scld.datasets.pbmc().write_h5ad(path)
    >>> about = describe(path)
    >>> about["cells"], about["matrices"]["X"]["counts"], list(about["labels"])
    (2501, True, ['cell_type'])
    """
    return _model(path) if is_model(path) else _cells(path, layer)


def _model(path: Path) -> Plain:
    model = FittedModel.load(path, torch_device("cpu"))
    schema, manifest = model.schema, read_manifest(path)
    parts = {name: part for name, part in model.history.items() if isinstance(part, dict)}
    return {
        "kind": "model",
        "path": str(path),
        "version": manifest["scld_version"],
        "format": manifest["format"],
        "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        "seed": model.seed,
        "settings": _settings(model.config),
        "cells": model.history["cells"],
        "genes": len(model.genes),
        "genes_unseen": int((~model.genes["seen"]).sum()),
        "labels": {
            label.name: {
                str(name): int(cells) for name, cells in schema.category_cells(label.name).items()
            }
            for label in schema.labels
        },
        "combinations": {"seen": len(schema.cells), "possible": math.prod(schema.sizes)},
        "post_guidance": model.generator.discriminator is not None,
        "training": {name: _training(part) for name, part in parts.items()},
    }


def _settings(config: Config) -> str:
    """The preset that these settings are, if they are one."""
    return next((name for name in PRESETS if Config.preset(name) == config), "own")


def _training(history: Plain) -> Plain:
    return {
        "steps": history["steps"],
        "seconds": history["seconds"],
        "best_interval": history["best_interval"] + 1,
        "intervals": len(history["validation"]),
    }


def _cells(path: Path, layer: str | None) -> Plain:
    _, obs, var, stored = outline(path, layer)
    layers = read(path, layer, at_most=1).uns[ORIGIN]["layers"]
    names = [layer] if layer is not None else [None, *layers]
    labels = _labels(obs)
    return {
        "kind": "cells",
        "path": str(path),
        "cells": len(obs),
        "genes": len(var),
        "stored_values": stored,
        "matrices": {name or "X": _matrix(path, name) for name in names},
        "labels": labels,
        "labels_in_var": [] if labels else list(_labels(var)),
        "fit": _fit(len(obs), len(var), stored),
    }


def _matrix(path: Path, layer: str | None) -> Plain:
    """Whether a matrix holds counts, and why not."""
    reason = why_no_counts(path, layer)
    if reason is None:
        return {"counts": True}
    place = f"{one_line(path)}: {'X' if layer is None else f'layer {layer!r}'}: "
    return {"counts": False, "reason": reason.removeprefix(place)}


def _labels(obs: pd.DataFrame) -> Plain:
    """obs columns that could be labels: their numbers of categories and of cells."""
    found = {}
    for name in map(str, obs.columns):
        try:
            label = Schema.of(obs, [name]).category_cells(name)
        except DataError:
            continue
        if 2 <= len(label) <= _MOST_CATEGORIES:
            cells = [int(number) for number in label.values()]
            missing = int(obs[name].isna().sum())
            found[name] = {"categories": len(label), "smallest": min(cells), "missing": missing}
    return found


def _fit(cells: int, genes: int, stored: int) -> Plain:
    streamed = larger_than_memory(stored)
    memory = estimate_for(cells, genes, stored, streamed, Config())
    fits = memory.left is None or memory.needed <= memory.left
    return {"bytes": memory.needed, "left": memory.left, "streamed": streamed, "fits": fits}


def as_text(about: Plain) -> str:
    """What `describe` gives, in lines."""
    return "\n".join(_model_lines(about) if about["kind"] == "model" else _cell_lines(about))


def _model_lines(about: Plain) -> list[str]:
    genes = f"{about['genes']:,} genes ({about['genes_unseen']:,} unseen)"
    lines = [f"{about['path']}: {about['cells']:,} training cells, {genes}"]
    for name, cells in about["labels"].items():
        lines.append(f"  {name}: " + ", ".join(f"{c} ({n:,})" for c, n in cells.items()))
    seen, possible = about["combinations"].values()
    if len(about["labels"]) > 1:
        lines.append(f"  combinations of labels in training: {seen:,} of {possible:,}")
    for name, part in about["training"].items():
        took = f"{part['steps']:,} steps in {part['seconds']:.0f} s"
        lines.append(
            f"  {name}: {took}, best validation {part['best_interval']} of {part['intervals']}"
        )
    post = "with" if about["post_guidance"] else "without"
    size = f"{about['bytes'] / 1e6:.1f} MB"
    made = f"scld {about['version']}, settings {about['settings']!r}, seed {about['seed']}, {post}"
    return [*lines, f"  {size}, fitted by {made} post-guidance"]


def _cell_lines(about: Plain) -> list[str]:
    lines = [f"{about['path']}: {about['cells']:,} cells, {about['genes']:,} genes"]
    if about["labels_in_var"]:
        seen = f"no obs column could be a label, but var has {listed(about['labels_in_var'], 3)}"
        lines.append(f"  {seen}: if the matrix is genes x cells, write adata.T to a file")
    for name, matrix in about["matrices"].items():
        place = name if name == "X" else f"layer {name!r}"
        yes = f"raw counts (in {min(LOOKED_AT, about['cells']):,} cells looked at)"
        lines.append(f"  {place}: {yes if matrix['counts'] else 'not usable: ' + matrix['reason']}")
    for name, label in about["labels"].items():
        missing = f", missing in {label['missing']:,} cells" if label["missing"] else ""
        sizes = f"{label['categories']:,} categories; cells in the smallest: {label['smallest']:,}"
        lines.append(f"  possible label {name!r}: {sizes}{missing}")
    if not about["labels"] and not about["labels_in_var"]:
        lines.append("  no obs column could be a label")
    return [*lines, "  " + _fit_line(about["fit"])]


def label_and_layer(about: Plain) -> tuple[str, str | None] | None:
    """What to fit a file with, if it has counts and a possible label; else None."""
    if about["kind"] == "model":
        return None
    layers = [name for name, matrix in about["matrices"].items() if matrix["counts"]]
    if not (layers and about["labels"]):
        return None
    label = next((name for name in about["labels"] if "type" in name.lower()), None)
    return label or next(iter(about["labels"])), None if layers[0] == "X" else layers[0]


def _fit_line(fit: Plain) -> str:
    left = "" if fit["left"] is None else f", {size_text(fit['left'])} are left"
    where = ", counts read from a copy on disk" if fit["streamed"] else ""
    too_large = "" if fit["fits"] else ": too little; use fewer cells or genes"
    return f"a fit takes about {size_text(fit['bytes'])} of memory{where}{left}{too_large}"
