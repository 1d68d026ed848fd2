"""Every setting, its default and the reason for it: the only place where defaults are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from numbers import Integral, Real
from typing import Any

from scld.errors import RequestError, listed, nearest, one_line, shown

_ABOVE_ZERO = math.nextafter(0, 1)
_BELOW_ONE = math.nextafter(1, 0)
POST_GUIDANCE = ("select", "off")


def _int(default: int, least: int = 1, most: float = math.inf) -> Any:
    return field(default=default, metadata={"kind": Integral, "least": least, "most": most})


def _float(default: float, least: float = 0.0, most: float = math.inf) -> Any:
    return field(default=default, metadata={"kind": Real, "least": least, "most": most})


def _positive(default: float, most: float = math.inf) -> Any:
    return _float(default, _ABOVE_ZERO, most)


class _Checked:
    """Refuses values of another type or out of range, when the settings are made."""

    def __post_init__(self) -> None:
        for entry in fields(self):  # type: ignore[arg-type]
            if "kind" in entry.metadata:
                place = f"config: {type(self).__name__}.{entry.name}"
                value = _plain_number(place, getattr(self, entry.name), **entry.metadata)
                object.__setattr__(self, entry.name, value)  # of NumPy's kinds JSON knows nothing


def _plain_number(place: str, value: Any, kind: type, least: float, most: float) -> int | float:
    """The value as an int or float; `RequestError` if it is of another kind or out of range."""
    right_kind = isinstance(value, kind) and not isinstance(value, bool)
    if right_kind:
        with suppress(OverflowError):  # of an integer that is too large for a float
            plain = int(value) if kind is Integral else float(value)
            if least <= plain <= most and math.isfinite(plain):
                return plain
    noun = "integers" if kind is Integral else "numbers"
    lower = {_ABOVE_ZERO: "above 0", -math.inf: ""}.get(least, f"from {least:g}")
    upper = {_BELOW_ONE: "below 1", math.inf: ""}.get(most, f"up to {most:g}")
    allowed = " ".join(part for part in (noun, lower, upper) if part)
    raise RequestError(f"{place}: got {shown(value)}; allowed are {allowed}")


@dataclass(frozen=True)
class AutoencoderConfig(_Checked):
    """The count autoencoder."""

    latent: int = _int(32)  # dimensions; the prior switches off those that the data do not need
    width: int = _int(128)  # of the hidden layers
    label_width: int = _int(16)  # of a label's embedding in the decoder
    dropout: float = _float(0.1, 0, _BELOW_ONE)  # share of hidden units that a step leaves out
    label_dropout: float = _float(0.1, 0, 1)  # share of cells trained with an unspecified label
    kl_weight: float = _float(0.5)  # below 1: latents keep more of a cell; near 0 also its noise
    encoder_sd: float = _positive(0.003)  # weight prior of the first layer, against overfitting
    decoder_sd: float = _positive(0.01)  # weight prior of the last layer
    linear_sd: float = _positive(0.03)  # of the linear part of the decoder, which is shrunk less
    slope_sd: float = _positive(0.5)  # prior on the power of the mean that a dispersion follows
    outlier_rate: float = _float(1e-5, 0, 1)  # expected outliers per count: a heavy tail
    components: int = _int(32, 0)  # principal components to start from; keeps effects of few genes
    component_cells: int = _int(10_000, 2)  # random cells that these are computed from
    dispersion_rate: float = _positive(20.0)  # dispersions learn this much faster, or hardly change
    profile_weight: float = _float(1.0, 0, 1)  # of expression profiles; 0: learn all from zero
    spread_cells: int = _int(10_000, 0)  # cells that calibrate latent points and spread; 0: do not
    calibration_cells: int = _int(2048, 0)  # the same for means, of each combination; 0: do not


@dataclass(frozen=True)
class DenoiserConfig(_Checked):
    """The diffusion model in latent space."""

    width: int = _int(128)  # of the hidden layers; twice as much gains nothing (docs/method.md)
    condition: int = _int(64)  # dimensions of noise level and labels together
    blocks: int = _int(3, 1, 100)  # residual blocks; the limit protects from damaged files
    dropout: float = _float(0.1, 0, _BELOW_ONE)  # share of hidden units that a step leaves out
    label_dropout: float = _float(0.1, 0, 1)  # share of cells without a label, for guidance
    log_sigma_mean: float = _float(-0.5, -math.inf)  # of noise levels in training, as in EDM
    log_sigma_sd: float = _positive(1.2)  # their spread, for latents of variance 1


@dataclass(frozen=True)
class DiscriminatorConfig(_Checked):
    """Post-guidance: boosted trees on components, depth and genes detected of finished cells."""

    components: int = _int(50, 0)  # principal components that the trees see
    generated: int = _int(4)  # generated cells per real one, to train on
    max_cells: int = _int(5000, 2)  # real cells, to train on
    trees: int = _int(150)  # at most: validation cells decide how many are kept
    depth: int = _int(4)  # of each tree
    rate: float = _positive(0.05)  # learning rate
    share: float = _positive(0.5, 1)  # of the cells, for each tree
    leaf: int = _int(20)  # smallest number of cells in a leaf
    clip: float = _positive(4.0)  # largest log-odds


@dataclass(frozen=True)
class TrainingConfig(_Checked):
    """The training of one network: see `scld.training.loop`."""

    learning_rate: float = _float(1.5e-3)  # at the start; it falls linearly to zero
    batch: int = _int(128)  # cells of a step
    steps: int = _int(1500)  # at least, unless patience ends the training
    epochs: int = _int(4)  # passes over the training cells, at least: large data take more steps
    intervals: int = _int(30)  # validations, evenly spaced
    patience: int = _int(4)  # intervals without improvement before training stops
    average: float = _float(0.98, 0, 1)  # decay of the averaged weights, per step
    clip: float = _positive(100.0)  # largest norm of the gradient
    validation_repeats: int = _int(1)  # draws of the noise per validation cell
    save_seconds: float = _float(10.0)  # between two saved states, from which a fit continues


@dataclass(frozen=True)
class SamplingConfig(_Checked):
    """Defaults of sampling."""

    steps: int = _int(6, 1, 1000)  # of the solver; more change nothing (docs/speed.md)
    guidance: float = _float(1.0, 0, 100)  # classifier-free guidance weight
    guidance_low: float = _float(0.0)  # above this noise level the weight holds, else it is 1
    guidance_high: float = _float(1e6)  # and up to this one; the default is above all levels
    sigma_max: float = _positive(20.0)  # largest noise level, far above the latents' sd of 1
    post: str = "off"  # post-guidance: "select" takes time and gains little (docs/quality.md)
    candidates: int = _int(3, 1, 1000)  # from which one cell is selected; each takes its own time
    transfer_strength: float = _float(0.3, 0.001, 1)  # share of the noise schedule (docs/method.md)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.post not in POST_GUIDANCE:
            allowed = f"allowed are {listed(POST_GUIDANCE)}{nearest(str(self.post), POST_GUIDANCE)}"
            raise RequestError(f"config: SamplingConfig.post: got {shown(self.post)}; {allowed}")
        if self.guidance_low > self.guidance_high:
            seen = f"guidance_low {self.guidance_low:g} above guidance_high {self.guidance_high:g}"
            raise RequestError(f"config: SamplingConfig: {seen}; allowed is low <= high")


def _denoiser_training() -> TrainingConfig:
    return TrainingConfig(
        learning_rate=2e-3,
        batch=256,
        steps=4000,
        epochs=10,
        average=0.995,
        clip=1.0,
        validation_repeats=8,
    )


@dataclass(frozen=True)
class Config(_Checked):
    """All settings of a `Synthesizer`.

    Examples
    --------
    >>> from scld import Config
    >>> Config().sampling.steps
    6
    >>> Config.from_dict({"sampling": {"steps": 10}}).sampling.steps
    10
    >>> Config.preset("quick").autoencoder_training.intervals
    3
    """

    held_out: float = _positive(0.1, 0.5)  # share of cells kept for validation
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    autoencoder_training: TrainingConfig = field(default_factory=TrainingConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    denoiser_training: TrainingConfig = field(default_factory=_denoiser_training)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for entry in fields(self):
            expected, value = str(entry.type), getattr(self, entry.name)
            if expected.endswith("Config") and type(value).__name__ != expected:
                allowed = f"pass a {expected}, or use Config.from_dict"
                raise RequestError(f"config.{entry.name}: got {one_line(value)}; {allowed}")

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Settings from nested plain values; what is left out keeps its default."""
        config: Config = _updated(cls(), values, "config")
        return config

    @classmethod
    def preset(cls, name: str) -> Config:
        """Named settings: ``"default"``, or ``"quick"``, a training too short to be good."""
        if name not in PRESETS:
            known, near = listed(list(PRESETS)), nearest(str(name), list(PRESETS))
            raise RequestError(f"preset: got {shown(name)}; allowed are {known}{near}")
        return cls.from_dict(PRESETS[name])


_SHORT = {"intervals": 3, "steps": 90, "epochs": 1}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "quick": {
        "autoencoder_training": _SHORT,
        "denoiser_training": _SHORT,
        "discriminator": {"generated": 1, "max_cells": 500, "trees": 20},
    },
}


def _updated(config: Any, values: Any, place: str) -> Any:
    if not isinstance(values, Mapping):
        seen = f"got {shown(values)}"
        raise RequestError(f"{place}: {seen}; pass a dict of settings")
    known = {entry.name: getattr(config, entry.name) for entry in fields(config)}
    for name, value in values.items():
        if name not in known:
            near, seen = nearest(str(name), list(known)), f"no setting {shown(name)}"
            raise RequestError(f"{place}: {seen}; settings: {', '.join(known)}{near}")
        nested = is_dataclass(known[name])
        known[name] = _updated(known[name], value, f"{place}.{name}") if nested else value
    return type(config)(**known)
