import dataclasses
import json

import pytest

from scld import Config
from scld.errors import RequestError


def test_settings_survive_json():
    config = Config.from_dict({"held_out": 0.2, "sampling": {"steps": 7}})
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_what_is_left_out_keeps_its_default():
    config = Config.from_dict({"sampling": {"steps": 7}})
    assert config.sampling.steps == 7
    assert dataclasses.replace(config, sampling=Config().sampling) == Config()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"smapling": {}}, ["config", "'smapling'", "sampling"]),
        ({"sampling": {"step": 3}}, ["config.sampling", "'step'", "steps"]),
        ({"sampling": 3}, ["config.sampling", "3"]),
        ({"held_out": {"share": 0.1}}, ["config.held_out"]),
        ({"sampling": {"steps": "many"}}, ["config.sampling.steps", "'many'"]),
        ({"held_out": 1.0}, ["config.held_out", "1.0", "0.5"]),
        ({"autoencoder": {"width": 1.5}}, ["config.autoencoder.width", "1.5"]),
    ],
)
def test_a_setting_that_cannot_be_is_named(values, words):
    with pytest.raises(RequestError) as caught:
        Config.from_dict(values)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_whole_numbers_do_for_decimal_settings():
    assert Config.from_dict({"autoencoder": {"dropout": 0}}).autoencoder.dropout == 0


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().held_out = 0.5


@pytest.mark.parametrize(
    "values",
    [{"denoiser": {"width": 0}}, {"autoencoder_training": {"rounds": 0}}, {"sampling": {"sigma_max": float("nan")}}, {"autoencoder": {"decoder_sd": -1.0}}],
)
def test_numbers_no_setting_can_have_are_refused(values):
    with pytest.raises(RequestError, match=r"got .*; allowed are numbers from"):
        Config.from_dict(values)


def test_a_log_may_be_negative():
    assert Config.from_dict({"denoiser": {"log_sigma_mean": -3.0}}).denoiser.log_sigma_mean == -3.0
