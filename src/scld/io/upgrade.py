"""Checkpoints of formats 2 to 5, converted to the present format as they are read.

Format 2 kept the latent space in ``schema.json``, held a discriminator of latent points that is no
longer used, and had other names for some settings and tensors. Until format 3, there were neither
profiles of categories nor linear parts of encoder and decoder: zeros stand for them. Until
format 4, generated latent points had no map: the identity does. Until format 5, there were no
checksums.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
FORMATS = (2, 3, 4, 5, 6)
FORMAT = FORMATS[-1]

_TENSORS = {  # first part of a tensor's name
    "autoencoder": {"log_share": "output", "usual_log_share": "mean_log_p"},
    "denoiser": {"inlet": "input", "outlet": "output"},
}
_SETTINGS = {
    "autoencoder": {"spike_rate": "outlier_rate"},
    "autoencoder_training": {"rounds": "intervals"},
    "denoiser_training": {"rounds": "intervals"},
    "discriminator": {"most_cells": "max_cells"},
}


def upgraded(
    manifest: dict[str, Any], schema: dict[str, Any], parts: dict[str, Tensors]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensors]]:
    """Manifest, schema and tensors in the present format; `KeyError` if something is missing."""
    if manifest["format"] == 2:
        manifest, schema, parts = _from_format_2(manifest, schema, parts)
    if manifest["format"] < 4:
        parts = parts | {"autoencoder": _with_zero_parts(parts["autoencoder"])}
    if manifest["format"] < 5:
        parts = parts | {"latents": _with_identity(parts["latents"])}
    return manifest, schema, parts


def _from_format_2(
    manifest: dict[str, Any], schema: dict[str, Any], parts: dict[str, Tensors]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensors]]:
    training = manifest["training"]
    latents = {
        "centre": torch.tensor(schema["latent_mean"]),
        "scale": torch.tensor(schema["latent_sd"]),
        "library": torch.tensor(training["log_library"]),
        "combination_means": torch.tensor(schema["combination_means"]),
    }
    converted = {name: _tensors(parts[name], _TENSORS[name]) for name in _TENSORS}
    converted |= {"latents": latents, "discriminator": parts["selector"]}
    history = {name: _history(training[name]) for name in ("autoencoder", "denoiser")}
    config, training = _config(manifest["config"]), {"cells": training["cells"], **history}
    return {**manifest, "config": config, "training": training}, schema, converted


def _with_zero_parts(autoencoder: Tensors) -> Tensors:
    """With profiles, memberships and linear parts of encoder and decoder, all zero."""
    genes, width = autoencoder["output.weight"].shape
    latent = len(autoencoder["encoder.7.bias"]) // 2
    labels = [t for name, t in autoencoder.items() if name.startswith("labels.")]
    categories = sum(len(embedding) - 1 for embedding in labels)  # row 0: unspecified
    shapes = {
        "profiles": (categories, genes),
        "membership": (categories, latent),
        "membership_offset": (categories,),
        "given_weight": (len(labels),),
        "linear": (genes, latent),
        "direct": (latent, width),
    }
    return autoencoder | {name: torch.zeros(shape) for name, shape in shapes.items()}


def _with_identity(latents: Tensors) -> Tensors:
    """With a map of generated points that changes nothing."""
    combinations, dims = latents["combination_means"].shape
    zeros = torch.zeros(combinations + 1, dims)
    tables = {"map_means": zeros, "map_shifts": zeros.clone(), "map_matrix": torch.eye(dims)}
    return latents | tables


def _tensors(tensors: Tensors, names: Mapping[str, str]) -> Tensors:
    """The same tensors by their present names."""
    renamed = {}
    for name, tensor in tensors.items():
        first, dot, rest = name.partition(".")
        renamed[names.get(first, first) + dot + rest] = tensor
    return renamed


def _history(history: Mapping[str, Any]) -> dict[str, Any]:
    return _renamed(history, {"best_round": "best_interval"})


def _config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are still there, by their present names."""
    sections = {name: value for name, value in config.items() if "critic" not in name}
    sections["discriminator"] = sections.pop("selector")
    strength = sections.pop("editing")["strength"]
    sampling = {name: v for name, v in config["sampling"].items() if name != "correction"}
    post = "off" if sampling["post"] in ("off", "correct") else "select"
    sections["sampling"] = sampling | {"post": post, "transfer_strength": strength}
    return {
        name: _renamed(value, _SETTINGS[name]) if name in _SETTINGS else value
        for name, value in sections.items()
    }


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}
