"""Model configurations: what ships, inheritance, and errors that name key and file."""

import dataclasses
import re

import pytest
import yaml

from streampetr_core.config import config_from_dict, load_config, shipped_config_paths
from streampetr_core.errors import StreampetrError
from streampetr_core.position import depth_bins
from tests.core import golden
from tests.core.models import tiny_config

OFFICIAL = {
    "r50_704_428q": (golden.R50_428Q, "resnet50", (256, 704), 300, 128, 512, 128),
    "r50_704_900q": (golden.R50_900Q, "resnet50", (256, 704), 644, 256, 1024, 256),
    "v2_99_800_900q": (golden.V2_99_900Q, "vovnet99", (320, 800), 644, 256, 1024, 256),
}


@pytest.mark.parametrize(("name", "expected"), OFFICIAL.items())
def test_shipped_configurations_have_the_official_values(name, expected):
    layout, backbone, size, learned, propagated, memory, admitted = expected
    config = load_config(name)
    assert (config.name, config.backbone) == (name, backbone)
    assert (config.input_height, config.input_width) == size
    assert (config.num_learned, config.num_propagated) == (learned, propagated)
    assert (config.memory_length, config.num_admitted) == (memory, admitted)
    assert (config.channels, config.num_layers, config.num_heads, config.ffn_channels) == (256, 6, 8, 2048)
    constants = golden.layouts()[layout]["constants"]
    assert list(config.detection_range) == pytest.approx(constants["pts_bbox_head.pc_range"])
    assert list(config.position_range) == pytest.approx(constants["pts_bbox_head.position_range"])
    assert depth_bins(config).tolist() == pytest.approx(constants["pts_bbox_head.coords_d"])


def test_v2_99_keeps_opencv_channel_order():
    r50, v2_99 = load_config("r50_704_900q"), load_config("v2_99_800_900q")
    assert (r50.channel_order, v2_99.channel_order) == ("rgb", "bgr")
    assert (v2_99.pixel_mean, v2_99.pixel_std) == (r50.pixel_mean[::-1], r50.pixel_std[::-1])


def test_every_shipped_configuration_loads_and_survives_a_round_trip():
    names = [path.stem for path in shipped_config_paths()]
    assert {*OFFICIAL, "small_352_256q"} <= set(names)
    for name in names:
        config = load_config(name)
        assert config_from_dict(config.to_dict(), "test") == config
        assert config_from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict())), "test") == config


def test_a_variant_states_only_what_differs_from_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(tiny_config().to_dict()))
    (tmp_path / "middle.yaml").write_text("base: base.yaml\nnum_learned: 20\nmemory_length: 30\n")
    (tmp_path / "variant.yaml").write_text("base: middle.yaml\nmemory_length: 40\n")
    config = load_config(tmp_path / "variant.yaml")
    assert config == tiny_config(name="variant", num_learned=20, memory_length=40)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_quries": 3}, "unknown model keys num_quries; known are name, backbone"),
        ({"backbone": "resnet34"}, "no backbone 'resnet34'; there are resnet18, resnet18_half, resnet50, vovnet99"),
        ({"channel_order": "yuv"}, "channel_order must be rgb or bgr, not 'yuv'"),
        ({"input_height": 48}, "input size 64x48 must be divisible by 32"),
        ({"feature_stride": 32}, "feature_stride must be 16, not 32: the neck gives no other map"),
        ({"input_width": 100}, "input size 100x32 must be divisible by 32"),
        ({"num_learned": "many"}, "model key 'num_learned' is 'many', which is no int"),
        ({"num_learned": True}, "model key 'num_learned' is True, which is no int"),
        ({"num_learned": 3.5}, "model key 'num_learned' is 3.5, which is no int"),
        ({"dropout": "low"}, "model key 'dropout' is 'low', which is no float"),
        ({"pixel_mean": 3.0}, "model key 'pixel_mean' is 3.0"),
        ({"backbone": 18}, "model key 'backbone' is 18, which is no str"),
        ({"num_propagated": 16}, "memory_length must hold num_propagated and num_admitted"),
        ({"num_admitted": 16}, "memory_length must hold num_propagated and num_admitted"),
        ({"memory_length": 99, "num_admitted": 17}, "num_admitted exceeds the 16 queries"),
        ({"num_heads": 5}, "channels must be divisible by twice num_heads"),
        ({"pixel_mean": [1.0, 2.0]}, "pixel_mean takes 3 numbers"),
        ({"detection_range": [-1.0, 1.0]}, "detection_range takes 6 numbers"),
        ({"pixel_std": [1.0, "two", 3.0]}, "model key 'pixel_std' is 'two', which is no float"),
        ({"class_names": ["car", 7]}, "model key 'class_names' is 7, which is no str"),
        ({"num_layers": 0}, "num_layers must be 1 or more"),
        ({"input_height": -32}, "input_height must be 1 or more"),
        ({"num_propagated": -1}, "num_propagated must be 0 or more"),
        ({"num_depth_bins": 34}, "num_depth_bins must be 35 or more"),
    ],
)
def test_bad_values_are_refused_with_key_and_remedy(change, message):
    with pytest.raises(StreampetrError, match=re.escape(message)):
        config_from_dict({**tiny_config().to_dict(), **change}, "some.yaml")


def test_missing_keys_are_listed_with_the_file():
    values = {k: v for k, v in tiny_config().to_dict().items() if k not in ("backbone", "num_learned")}
    with pytest.raises(StreampetrError, match=r"^some.yaml: missing model keys backbone, num_learned$"):
        config_from_dict(values, "some.yaml")


def test_an_integer_is_a_float_too():
    config = config_from_dict({**tiny_config().to_dict(), "dropout": 0, "pixel_mean": [1, 2, 3]}, "test")
    assert [type(value) for value in (config.dropout, *config.pixel_mean)] == [float] * 4


def test_a_base_may_be_named_like_one_that_ships_with_the_package(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: r50_704_428q\nnum_learned: 20\n")
    mine, shipped = load_config(tmp_path / "mine.yaml"), load_config("r50_704_428q")
    assert mine == dataclasses.replace(shipped, name="mine", num_learned=20)


def test_a_configuration_that_is_its_own_base_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(StreampetrError, match=r"a\.yaml: names itself as its base"):
        load_config(tmp_path / "a.yaml")


def test_unknown_names_and_missing_files_are_named():
    with pytest.raises(StreampetrError, match="no model configuration 'r50_7040'; there are .*r50_704_428q"):
        load_config("r50_7040")
    with pytest.raises(StreampetrError, match=r"nowhere/x\.yaml: no such model configuration file"):
        load_config("nowhere/x.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: gone.yaml\n", r"gone\.yaml: not a readable YAML file"),
        ("backbone: [resnet18\n", r"bad\.yaml: not a readable YAML file"),
        ("- a\n- b\n", r"bad\.yaml: a model configuration is a YAML mapping"),
        ("", r"bad\.yaml: a model configuration is a YAML mapping"),
    ],
)
def test_unreadable_files_are_named(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(StreampetrError, match=message):
        load_config(tmp_path / "bad.yaml")
