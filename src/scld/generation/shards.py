"""Cells without end: shards of one large request, each made by a pure function.

Every cell is keyed by its position, so a shard is the same cells wherever, whenever and in whatever
order it is made. What a worker needs is the path of a checkpoint and a few plain values.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from scld.errors import CheckpointError, RequestError, check_int
from scld.generation.design import Design
from scld.generation.fitted import FittedModel, torch_device
from scld.generation.generator import GPU_PAGE
from scld.generation.options import SamplingOptions
from scld.generation.request import part_of_cells
from scld.io.shards import Plain, ShardStore

SHARD_CELLS = 10 * GPU_PAGE


def shard_request(
    model: FittedModel,
    checkpoint: Path,
    n: Any,
    where: Mapping[str, object] | None,
    unseen: bool,
    shard_cells: Any,
    options: SamplingOptions,
) -> Plain:
    """Everything that the cells depend on, as plain values.

    Raises
    ------
    RequestError
        A number out of range, an unknown label or category.
    """
    size = check_int("shard_cells", shard_cells, 1)
    if size % GPU_PAGE:
        allowed = f"allowed are multiples of {GPU_PAGE:,}, such as {SHARD_CELLS:,}"
        raise RequestError(f"shard_cells: got {size:,}; {allowed}")
    schema, (low, high) = model.schema, options.interval
    fixed = schema.fixed(where or {})
    part_of_cells(0, 1, where or {}, schema, options.seed, unseen)  # a combination not seen: now
    return {
        "cells": check_int("n", n, 1),
        "shard_cells": size,
        "where": {schema.labels[column].name: codes for column, codes in fixed.items()},
        "unseen": bool(unseen),
        "seed": options.seed,
        "steps": options.steps,
        "guidance": list(options.weights),
        "guidance_interval": [low, high if math.isfinite(high) else None],
        "candidates": options.candidates,
        "device": model.generator.centre.device.type,
        "checkpoint": checkpoint_digest(checkpoint),
    }


def generate_shard(checkpoint: str, output: str, request: Plain, shard: int) -> str:
    """Generate one shard and write it; return its digest.

    A pure function of its arguments: it can run anywhere that has the checkpoint and the output.

    Parameters
    ----------
    checkpoint
        Path of a checkpoint.
    output
        Path of the folder of shards.
    request
        From `shard_request`.
    shard
        Its number.
    """
    store = ShardStore(Path(output), request)
    model = _loaded(checkpoint, request["device"], request["checkpoint"])
    schema, (first, stop) = model.schema, store.span(shard)
    options = _options(model, request)
    where = _where(model, request)
    cells = part_of_cells(first, stop, where, schema, options.seed, request["unseen"])
    design = Design(cells, {"where": schema.described(where)})
    return store.write(shard, model.sample(design, options))


def checkpoint_digest(path: Path) -> str:
    """Tells whether two checkpoints hold the same model."""
    files: Iterable[Path] = sorted(file for file in path.iterdir() if file.is_file())
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


@lru_cache(maxsize=1)
def _loaded(path: str, device: str, digest: str) -> FittedModel:
    """A worker makes many shards of one model."""
    if checkpoint_digest(Path(path)) != digest:
        advice = "give all workers the same checkpoint"
        raise CheckpointError(f"{path}: not the model that the request was made for; {advice}")
    return FittedModel.load(Path(path), torch_device(device))


def _options(model: FittedModel, request: Plain) -> SamplingOptions:
    low, high = request["guidance_interval"]
    return SamplingOptions(
        weights=tuple(request["guidance"]),
        interval=(low, math.inf if high is None else high),
        candidates=request["candidates"],
        steps=request["steps"],
        seed=request["seed"],
        progress=False,
        sigma_max=model.config.sampling.sigma_max,
    )


def _where(model: FittedModel, request: Plain) -> dict[str, list[Any]]:
    """Categories by label, of their codes."""
    schema = model.schema
    return {
        name: [schema.labels[schema.names.index(name)].categories[code] for code in codes]
        for name, codes in request["where"].items()
    }
