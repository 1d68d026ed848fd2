"""How to sample: guidance, post-guidance, steps and seed, validated."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypedDict

import numpy as np
from torch import Tensor

from scld.config import POST_GUIDANCE, SamplingConfig
from scld.errors import RequestError, check_int, listed, nearest
from scld.model.sampler import schedule

_MOST_GUIDANCE = 20  # weights above give a warning


class SamplingKeywords(TypedDict, total=False):
    """The keywords that every method that generates cells takes: see `Synthesizer.sample`."""

    guidance: float | Mapping[str, float] | None
    guidance_interval: tuple[float, float] | None
    post: str | None
    steps: int | None
    seed: int | None
    progress: bool


@dataclass(frozen=True)
class SamplingOptions:
    """How to sample.

    Parameters
    ----------
    weights
        Guidance weight of each label.
    interval
        Noise levels between which these weights hold.
    candidates
        Cells that post-guidance selects one of; 1 without it.
    steps
        Steps of the solver over the whole noise schedule.
    seed
        Same seed, same cells.
    progress
        Whether to show a progress bar.
    sigma_max
        The first noise level of the whole schedule.
    strength
        The share of the schedule that is run; 1 starts from pure noise.
    """

    weights: tuple[float, ...]
    interval: tuple[float, float]
    candidates: int
    steps: int
    seed: int
    progress: bool
    sigma_max: float
    strength: float = 1.0

    @classmethod
    def of(
        cls,
        keywords: Mapping[str, Any],
        labels: Sequence[str],
        config: SamplingConfig,
        strength: float = 1.0,
    ) -> SamplingOptions:
        """Validate keywords; what is left out or None comes from the settings.

        Raises
        ------
        RequestError
            A value out of range, or a guidance weight for a label that the model does not have.
        """
        check_names(keywords, list(SamplingKeywords.__annotations__))
        given = {name: value for name, value in keywords.items() if value is not None}
        post = given.get("post", config.post)
        if post not in POST_GUIDANCE:
            near = nearest(str(post), POST_GUIDANCE)
            raise RequestError(f"post: got {post!r}; allowed are {listed(POST_GUIDANCE)}{near}")
        return cls(
            weights=_weights(given.get("guidance"), labels, config),
            interval=_interval(given.get("guidance_interval"), labels, config),
            candidates=config.candidates if post == "select" else 1,
            steps=check_int("steps", given.get("steps", config.steps), 1, 1000),
            seed=check_int("seed", given.get("seed", secrets.randbits(32)), 0),
            progress=bool(given.get("progress", True)),
            sigma_max=config.sigma_max,
            strength=check_strength(strength),
        )

    @property
    def sigmas(self) -> Tensor:
        """Noise levels ``[steps + 1]``, from the first to 0."""
        return schedule(self.steps, self.sigma_max, self.strength)


def check_strength(value: Any) -> float:
    """The share of the noise schedule of a transfer."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0.001 <= value <= 1:
        allowed = "allowed are numbers from 0.001 to 1 (1 keeps nothing of a cell but its labels)"
        raise RequestError(f"strength: got {value!r}; {allowed}")
    return float(value)


def check_names(keywords: Mapping[str, Any], known: Sequence[str]) -> None:
    """`TypeError` for a keyword that a method does not have."""
    unknown = [name for name in keywords if name not in known]
    if unknown:
        near = nearest(unknown[0], known)
        raise TypeError(
            f"unexpected keyword argument {unknown[0]!r}; options: {listed(known)}{near}"
        )


def _weights(given: Any, labels: Sequence[str], config: SamplingConfig) -> tuple[float, ...]:
    if given and not labels:
        advice = "leave it out, or fit again with labels=[...]"
        raise RequestError(f"guidance: this model was fitted without labels; {advice}")
    by_label = dict.fromkeys(labels, config.guidance)
    if given is not None:
        by_label |= dict(given) if isinstance(given, Mapping) else dict.fromkeys(labels, given)
    for name, weight in by_label.items():
        if name not in labels:
            known = f"labels: {listed(labels)}{nearest(str(name), labels)}"
            raise RequestError(f"guidance: {name!r} is not a label of this model; {known}")
        number = isinstance(weight, Real) and not isinstance(weight, bool)
        if not number or not 0 <= weight <= 100:
            allowed = "numbers from 0 to 100 (1 conditions on the label, 1.5 to 3 exaggerates it)"
            raise RequestError(f"guidance: got {weight!r}; allowed are {allowed}")
    largest = max(map(float, by_label.values()), default=1.0)
    if largest > _MOST_GUIDANCE:
        advice = "1 conditions on the label, 1.5 to 3 exaggerates it"
        seen = f"{largest:g} is so large that cells leave the range of real ones"
        warnings.warn(f"guidance: {seen}; {advice}", stacklevel=6)
    return tuple(map(float, by_label.values()))


def _interval(given: Any, labels: Sequence[str], config: SamplingConfig) -> tuple[float, float]:
    if given is None:
        return config.guidance_low, config.guidance_high
    if not labels:
        advice = "leave it out, or fit again with labels=[...]"
        raise RequestError(f"guidance_interval: this model was fitted without labels; {advice}")
    pair: tuple[Any, ...] = tuple(given) if isinstance(given, Sequence | np.ndarray) else ()
    numbers = len(pair) == 2 and all(isinstance(bound, Real) for bound in pair)
    if not numbers or not 0 <= pair[0] <= pair[1]:
        levels = f"sampling goes from {config.sigma_max:g} down to 0"
        allowed = f"two noise levels (low, high) with 0 <= low <= high; {levels}"
        raise RequestError(f"guidance_interval: got {given!r}; allowed are {allowed}")
    return float(pair[0]), float(pair[1])
