"""Every setting, its default and the reason for it: the only place where defaults live."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from scld.errors import RequestError


class _Checked:
    """Refuses numbers that no setting can have: a count below one, a rate or share below zero."""

    def __post_init__(self) -> None:
        for entry in fields(self):  # type: ignore[arg-type]
            value = getattr(self, entry.name)
            least = 1 if entry.type == "int" else -math.inf if entry.name.startswith("log_") else 0
            if isinstance(value, int | float) and not least <= value < math.inf:
                raise RequestError(f"config: {type(self).__name__}.{entry.name}: got {value!r}; allowed are numbers from {least}")


@dataclass(frozen=True)
class AutoencoderConfig(_Checked):
    """The count autoencoder."""

    latent: int = 32  # coordinates of a cell; the prior on them switches off those that the data do not need
    width: int = 128  # of the hidden layers
    label_width: int = 16  # of a label's embedding in the decoder
    dropout: float = 0.1
    label_dropout: float = 0.1  # share of cells that train with a label left open, so that it can be left open later
    kl_weight: float = 0.05  # below 1: latents keep more of a cell than a pure variational bound would; near 0 they keep its noise
    encoder_sd: float = 0.003  # scale of the prior on each gene's weights into the network; without it a few thousand cells are soon overfitted
    decoder_sd: float = 0.03  # the same for the weights out of the network
    slope_sd: float = 0.5  # sd of the prior on the power of its mean that a gene's dispersion follows
    spike_rate: float = 1e-5  # expected spikes a count: single high counts that no dispersion of their gene explains
    components: int = 32  # principal components that the encoder begins with
    component_cells: int = 10_000  # that these are computed from
    dispersion_rate: float = 20.0  # dispersions learn this much faster: at the networks' own rate they stay near their start


@dataclass(frozen=True)
class DenoiserConfig(_Checked):
    """The diffusion model in the latent space."""

    width: int = 128  # twice as much gains nothing (docs/method.md)
    condition: int = 64  # coordinates of the noise level and labels together; at the full width they would take almost half the time
    blocks: int = 3
    dropout: float = 0.1
    label_dropout: float = 0.1  # share of cells that train with a label left open: what guidance needs
    log_sigma_mean: float = -0.5  # EDM's log-normal over noise levels, shifted to latents of unit variance
    log_sigma_sd: float = 1.2


@dataclass(frozen=True)
class CriticConfig(_Checked):
    """The critic of latent points at every noise level: real against generated."""

    width: int = 128
    dropout: float = 0.2
    label_width: int = 8
    label_dropout: float = 0.1
    clip: float = 1.0  # largest move of a denoised point, in units of the latents' sd: where the critic is sure, it is mostly wrong


@dataclass(frozen=True)
class SelectorConfig(_Checked):
    """The critic of finished cells: boosted trees on principal components, depth and genes detected."""

    components: int = 50
    generated: int = 4  # generated cells for each real one, to learn from
    most_cells: int = 5000  # real ones, to learn from
    trees: int = 150
    depth: int = 4
    rate: float = 0.05
    share: float = 0.5  # of the cells, for each tree
    leaf: int = 20  # cells in it at least
    clip: float = 4.0  # largest log-odds


@dataclass(frozen=True)
class TrainingConfig(_Checked):
    """One training run: see `scld.train`."""

    learning_rate: float = 1.5e-3  # at the start; it falls to zero along a line
    batch: int = 128
    steps: int = 1500  # at least
    epochs: int = 4  # at least: large data take more steps
    rounds: int = 30  # looks at the held-out cells, evenly spaced
    patience: int = 4  # rounds without gain before stopping
    average: float = 0.98  # decay of the averaged weights, a step
    clip: float = 100.0  # largest norm of the gradient
    validation_repeats: int = 1  # draws of the noise for each held-out cell
    save_seconds: float = 20.0  # between two savings of a resumable state


@dataclass(frozen=True)
class SamplingConfig(_Checked):
    """From noise to cells."""

    steps: int = 6  # network evaluations (NFE) at guidance weight 1, twice as many at any other; more change nothing (docs/speed.md)
    guidance: float = 1.0  # classifier-free guidance weight
    guidance_low: float = 0.0  # noise levels above which, and up to which, that weight holds; outside it is 1
    guidance_high: float = 1e6  # above any noise level: everywhere
    sigma_max: float = 20.0  # far wider than the data, whose sd is 1; wider still only spreads the steps thinner
    post: str = "select"  # post-guidance: off, correct, select or both; selection helps on most sets and harms none beyond noise (docs/quality.md)
    candidates: int = 3  # finished cells that selection chooses one of; each more costs as much time as the first (docs/speed.md)
    correction: float = 1.0  # weight of the critic's gradient


@dataclass(frozen=True)
class EditingConfig(_Checked):
    """From cells to cells: under another label, or between two populations."""

    strength: float = 0.3  # of a transfer, as a share of the schedule: the change arrives at any; little keeps more of the cell (docs/method.md)
    path_points: int = 64  # that a path is computed at
    path_steps: int = 200  # in which it is found; more change nothing that can be seen
    path_sigma: float = 2.0  # noise level to begin at: there the smoothed cells are one cloud, and a straight line is a good guess
    path_noise: float = 0.6  # what to end at, and to scatter cells around the path by


@dataclass(frozen=True)
class Config:
    """All settings of a `Synthesizer`.

    Examples
    --------
    >>> from scld import Config
    >>> Config().sampling.steps
    6
    >>> Config.from_dict({"sampling": {"steps": 10}}).sampling.steps
    10
    """

    held_out: float = 0.1  # share of cells kept from training, to stop by
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    autoencoder_training: TrainingConfig = field(default_factory=TrainingConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    denoiser_training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(learning_rate=2e-3, batch=256, steps=4000, epochs=10, average=0.995, clip=1.0, validation_repeats=8)
    )
    critic: CriticConfig = field(default_factory=CriticConfig)
    critic_training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(learning_rate=1e-3, batch=512, steps=600, epochs=1, rounds=12, patience=2, average=0.98, clip=1.0)
    )
    selector: SelectorConfig = field(default_factory=SelectorConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    editing: EditingConfig = field(default_factory=EditingConfig)

    def __post_init__(self) -> None:
        if not 0 < self.held_out <= 0.5:
            raise RequestError(f"config.held_out: got {self.held_out!r}; allowed are shares above 0, up to 0.5")

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Settings from nested plain values; what is left out keeps its default."""
        config: Config = _updated(cls(), values, "config")
        return config


def _updated(config: Any, values: Mapping[str, Any], place: str) -> Any:
    known = {entry.name: getattr(config, entry.name) for entry in fields(config)}
    for name, value in values.items():
        if name not in known:
            raise RequestError(f"{place}: no setting {name!r}; settings: {', '.join(known)}")
        known[name] = _like(known[name], value, f"{place}.{name}")
    return type(config)(**known)


def _like(default: Any, value: Any, place: str) -> Any:
    if is_dataclass(default) and isinstance(value, Mapping):
        return _updated(default, value, place)
    kinds = (float, int) if isinstance(default, float) else (type(default),)
    if type(value) not in kinds:
        raise RequestError(f"{place}: got {value!r}; allowed: {' or '.join(kind.__name__ for kind in kinds)}, such as {default!r}")
    return value
