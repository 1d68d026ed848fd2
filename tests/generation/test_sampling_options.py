import math

import numpy as np
import pytest
import torch

from scld.config import SamplingConfig
from scld.errors import RequestError
from scld.generation.options import SamplingKeywords, SamplingOptions
from scld.model.sampler import schedule

LABELS = ["cell_type", "donor"]
CONFIG = SamplingConfig(
    guidance=1.5, guidance_low=0.1, guidance_high=9.0, steps=7, post="select", candidates=5
)
NAN = float("nan")


def options(labels=LABELS, config=CONFIG, strength=1.0, **keywords):
    return SamplingOptions.of(keywords, labels, config, strength)


def test_what_is_left_out_or_none_comes_from_the_settings():
    given = dict.fromkeys(SamplingKeywords.__annotations__)
    for found in (options(), options(**given)):
        assert found.weights == (1.5, 1.5)
        assert found.interval == (0.1, 9.0)
        assert (found.candidates, found.steps, found.strength) == (5, 7, 1.0)
        assert found.progress


def test_what_is_given_comes_first():
    found = options(
        guidance=3, guidance_interval=[0, np.float32(2)], post="off", steps=np.int64(9), seed=4
    )
    assert found.weights == (3.0, 3.0)
    assert found.interval == (0.0, 2.0)
    assert (found.candidates, found.steps, found.seed) == (1, 9, 4)
    assert not options(progress=False).progress


def test_guidance_of_one_label_leaves_the_others_at_the_default():
    assert options(guidance={"donor": 3}).weights == (1.5, 3.0)
    assert options(guidance={}).weights == (1.5, 1.5)
    assert options(guidance=0).weights == (0.0, 0.0)


def test_post_guidance_is_off_by_default():
    config = SamplingConfig()
    assert options(config=config).candidates == 1
    assert options(config=config, post="select").candidates == config.candidates


def test_without_a_seed_each_call_has_its_own():
    seeds = {options().seed for _ in range(20)} | {options(seed=None).seed for _ in range(20)}
    assert len(seeds) == 40
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert options(seed=0).seed == 0


def test_noise_levels_are_those_of_the_schedule():
    expected = schedule(9, CONFIG.sigma_max, 0.5)
    assert torch.equal(options(steps=9, strength=0.5).sigmas, expected)
    assert len(options(steps=9).sigmas) == 10


def test_options_cannot_be_changed_in_place():
    with pytest.raises(AttributeError):
        options().seed = 3


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"guidance": {"donors": 2}}, ["guidance: 'donors'", "did you mean 'donor'?"]),
        ({"guidance": {3: 2}}, ["guidance: 3 is not a label"]),
        ({"guidance": -1}, ["guidance: got -1", "0 to 100"]),
        ({"guidance": 500}, ["guidance: got 500", "0 to 100"]),
        ({"guidance": NAN}, ["guidance: got nan"]),
        ({"guidance": math.inf}, ["guidance: got inf"]),
        ({"guidance": "2"}, ["guidance: got '2'"]),
        ({"guidance": True}, ["guidance: got True"]),
        ({"guidance": {"donor": None}}, ["guidance: got None"]),
        ({"guidance_interval": (2.0, 1.0)}, ["got (2.0, 1.0)", "low <= high", "down to 0"]),
        ({"guidance_interval": (-1, 1.0)}, ["guidance_interval: got (-1, 1.0)"]),
        ({"guidance_interval": (0, NAN)}, ["guidance_interval: got (0, nan)"]),
        ({"guidance_interval": 1.0}, ["guidance_interval: got 1.0"]),
        ({"guidance_interval": "12"}, ["guidance_interval: got '12'"]),
        ({"guidance_interval": (1, 2, 3)}, ["guidance_interval: got (1, 2, 3)"]),
        ({"guidance_interval": (None, 1)}, ["guidance_interval: got (None, 1)"]),
        (
            {"post": "selct"},
            ["post: got 'selct'", "'select', 'off'", "did you mean 'select'?"],
        ),
        ({"post": "correct"}, ["post: got 'correct'", "'select', 'off'"]),
        ({"post": "both"}, ["post: got 'both'"]),
        ({"post": True}, ["post: got True", "'off'"]),
        ({"post": ["select"]}, ["post: got ['select']"]),
        ({"steps": 0}, ["steps: got 0", "from 1"]),
        ({"steps": 10**9}, ["steps: got 1000000000", "to 1,000"]),
        ({"steps": 2.5}, ["steps: got 2.5"]),
        ({"seed": -1}, ["seed: got -1", "from 0"]),
        ({"seed": 2**64}, ["seed: got"]),
        ({"seed": "a"}, ["seed: got 'a'"]),
        ({"seed": 1.0}, ["seed: got 1.0"]),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_one_clear_line(keywords, words):
    with pytest.raises(RequestError) as caught:
        options(**keywords)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("strength", [0.0, 1e-50, 0.0009, 1.5, -0.3, NAN, "0.3", None, True])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(RequestError, match=r"strength: got .*; allowed are numbers from 0\.001"):
        options(strength=strength)


@pytest.mark.parametrize("strength", [0.001, 0.3, 1, np.float32(0.5)])
def test_a_strength_within_range_is_taken(strength):
    assert options(strength=strength).strength == float(strength)


@pytest.mark.parametrize("keywords", [{"guidance": 2.0}, {"guidance_interval": (0.0, 1.0)}])
def test_a_model_without_labels_has_no_guidance(keywords):
    with pytest.raises(RequestError, match="fitted without labels"):
        options(labels=[], **keywords)
    assert options(labels=[]).weights == ()


def test_a_misspelled_keyword_is_answered_with_the_nearest():
    with pytest.raises(TypeError, match=r"'guidence'.*did you mean 'guidance'"):
        options(guidence=2.0)
