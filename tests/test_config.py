import dataclasses
import json
import math

import numpy as np
import pytest

from scld import Config
from scld.config import (
    PRESETS,
    AutoencoderConfig,
    DenoiserConfig,
    DiscriminatorConfig,
    SamplingConfig,
    TrainingConfig,
)
from scld.errors import RequestError

SECTIONS = {
    "autoencoder": AutoencoderConfig,
    "autoencoder_training": TrainingConfig,
    "denoiser": DenoiserConfig,
    "denoiser_training": TrainingConfig,
    "discriminator": DiscriminatorConfig,
    "sampling": SamplingConfig,
}
NUMBERS = [
    (section, entry.name)
    for section in [*dict.fromkeys(SECTIONS.values()), Config]
    for entry in dataclasses.fields(section)
    if entry.type in ("int", "float")
]
INTEGERS = [
    (section, name)
    for section, name in NUMBERS
    if {entry.name: entry.type for entry in dataclasses.fields(section)}[name] == "int"
]
NO_NUMBERS = ["128", None, True, [1], {}, 1j, math.nan, math.inf, -math.inf, np.nan, 10**400]


def test_settings_survive_json():
    config = Config.from_dict({"held_out": 0.2, "sampling": {"steps": 7}})
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_settings_that_are_left_out_keep_their_default():
    config = Config.from_dict({"sampling": {"steps": 7}})
    assert config.sampling.steps == 7
    assert dataclasses.replace(config, sampling=Config().sampling) == Config()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"smapling": {}}, ["config", "'smapling'", "sampling"]),
        ({"sampling": {"step": 3}}, ["config.sampling", "'step'", "steps"]),
        ({"sampling": 3}, ["config.sampling", "3"]),
        ({3: 3}, ["config", "no setting 3"]),
        ({"held_out": {"share": 0.1}}, ["Config.held_out"]),
        ({"sampling": {"steps": "many"}}, ["SamplingConfig.steps", "'many'"]),
        ({"held_out": 1.0}, ["Config.held_out", "1.0", "0.5"]),
        ({"autoencoder": {"width": 1.5}}, ["AutoencoderConfig.width", "1.5"]),
        ("sampling", ["config", "'sampling'"]),
    ],
)
def test_a_setting_that_is_refused_is_named_in_one_line(values, words):
    with pytest.raises(RequestError) as caught:
        Config.from_dict(values)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


# Every field is checked when the settings are made


@pytest.mark.parametrize(("section", "name"), NUMBERS)
def test_every_field_refuses_what_is_no_finite_number(section, name):
    for value in NO_NUMBERS:
        with pytest.raises(RequestError, match=rf"{section.__name__}\.{name}: got .*; allowed are"):
            section(**{name: value})
        with pytest.raises(RequestError, match=name):
            dataclasses.replace(section(), **{name: value})


@pytest.mark.parametrize(("section", "name"), INTEGERS)
def test_integer_fields_refuse_fractions_and_numbers_below_zero(section, name):
    for value in (10.5, 10.0, -1):
        with pytest.raises(RequestError, match=rf"{section.__name__}\.{name}: got .*; allowed are"):
            section(**{name: value})


OUT_OF_RANGE = [
    ("autoencoder", "latent", 0),
    ("autoencoder", "width", "128"),
    ("autoencoder", "dropout", 1.5),
    ("autoencoder", "dropout", 1),
    ("autoencoder", "label_dropout", 1.1),
    ("autoencoder", "decoder_sd", -1.0),
    ("autoencoder", "decoder_sd", 0),
    ("autoencoder", "outlier_rate", 2.0),
    ("autoencoder", "dispersion_rate", 0.0),
    ("autoencoder_training", "intervals", 0),
    ("autoencoder_training", "average", 1.01),
    ("autoencoder_training", "steps", 10.5),
    ("denoiser", "width", 0),
    ("denoiser", "blocks", 101),
    ("denoiser", "dropout", -0.1),
    ("denoiser", "log_sigma_sd", 0.0),
    ("denoiser_training", "batch", 0),
    ("discriminator", "share", 0.0),
    ("discriminator", "share", 1.5),
    ("discriminator", "trees", 0),
    ("discriminator", "clip", 0),
    ("sampling", "guidance", 500),
    ("sampling", "guidance", -1),
    ("sampling", "sigma_max", 0.0),
    ("sampling", "post", "slect"),
    ("sampling", "post", None),
    ("sampling", "post", "correct"),
    ("sampling", "candidates", 0),
    ("sampling", "candidates", 10**6),
    ("sampling", "steps", 1001),
    ("sampling", "transfer_strength", 1e-50),
    ("sampling", "transfer_strength", 1.5),
]


@pytest.mark.parametrize(("section", "name", "value"), OUT_OF_RANGE)
def test_values_out_of_range_are_refused_in_the_constructor_and_from_a_dict(section, name, value):
    words = rf"{SECTIONS[section].__name__}\.{name}: got .*; allowed are"
    with pytest.raises(RequestError, match=words):
        SECTIONS[section](**{name: value})
    with pytest.raises(RequestError, match=words):
        Config.from_dict({section: {name: value}})


@pytest.mark.parametrize("share", [0, 0.6, 1.0])
def test_the_held_out_share_is_above_zero_and_at_most_half(share):
    for make in (lambda: Config(held_out=share), lambda: Config.from_dict({"held_out": share})):
        with pytest.raises(RequestError, match="held_out: got"):
            make()


def test_a_guidance_interval_from_high_to_low_is_refused():
    bounds = {"guidance_low": 3.0, "guidance_high": 1.0}
    for make in (lambda: SamplingConfig(**bounds), lambda: Config.from_dict({"sampling": bounds})):
        with pytest.raises(RequestError, match="guidance_low 3 above guidance_high 1"):
            make()


@pytest.mark.parametrize("value", [3, None, {"steps": 3}, AutoencoderConfig(), SamplingConfig])
def test_a_section_of_another_kind_is_refused(value):
    with pytest.raises(RequestError, match=r"config\.sampling: got .*; pass a SamplingConfig"):
        Config(sampling=value)


def test_a_misspelled_kind_of_post_guidance_is_answered_with_the_nearest():
    with pytest.raises(RequestError, match="did you mean 'select'"):
        SamplingConfig(post="slect")


def test_integers_stand_for_decimals_and_numbers_of_numpy_for_plain_ones():
    sampling = SamplingConfig(steps=np.int64(7), guidance=np.float32(2), guidance_low=1)
    assert (sampling.steps, sampling.guidance, sampling.guidance_low) == (7, 2.0, 1.0)
    assert [type(value) for value in (sampling.steps, sampling.guidance)] == [int, float]
    assert json.loads(json.dumps(dataclasses.asdict(sampling)))["guidance"] == 2.0
    assert Config.from_dict({"autoencoder": {"dropout": 0}}).autoencoder.dropout == 0


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_zero_of_numpy_is_not_above_zero(kind):
    with pytest.raises(RequestError, match=r"sigma_max: got .*; allowed are numbers above 0"):
        SamplingConfig(sigma_max=kind(0))


def test_a_logarithm_may_be_negative():
    assert DenoiserConfig(log_sigma_mean=-3.0).log_sigma_mean == -3.0


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().held_out = 0.5


# Presets


def test_presets():
    assert Config.preset("default") == Config()
    for name in PRESETS:
        assert isinstance(Config.preset(name), Config)
    quick, usual = Config.preset("quick"), Config()
    assert quick.autoencoder_training.steps < usual.autoencoder_training.steps
    assert quick.sampling == usual.sampling


@pytest.mark.parametrize("name", ["quik", "", 3, None])
def test_an_unknown_preset_is_refused_with_the_known_ones(name):
    with pytest.raises(RequestError, match=r"preset: got .*; allowed are 'default', 'quick'"):
        Config.preset(name)
