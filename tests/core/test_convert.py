"""Official checkpoints: every layout in every wrapping, and what is refused with which words."""

import argparse
import collections
import json
import re
import zipfile

import numpy as np
import pytest
import torch

from streampetr_core.checkpoint import load_checkpoint, save_checkpoint
from streampetr_core.commands import convert
from streampetr_core.config import NUSCENES_CLASSES, load_config
from streampetr_core.convert import convert_official, read_state_dict, rename_official
from streampetr_core.errors import StreampetrError
from tests.core import golden

EXPECTED_CONFIG = {
    golden.R50_428Q: "r50_704_428q",
    golden.R50_900Q: "r50_704_900q",
    golden.V2_99_900Q: "v2_99_800_900q",
}
REG_LAST = "pts_bbox_head.reg_branches.{}.4.bias"


@pytest.fixture(scope="module")
def official():
    """The golden weights of the 428q model, under official names. Tests change copies of the table, not tensors."""
    return golden.official_state(golden.R50_428Q)


@pytest.fixture(scope="module")
def native(official):
    return rename_official(official, "golden")


def saved(content, tmp_path, name="official.pth"):
    path = tmp_path / name
    torch.save(content, path)
    return path


def assert_refused(content, tmp_path, *words):
    with pytest.raises(StreampetrError) as refusal:
        convert_official(saved(content, tmp_path))
    message = str(refusal.value)
    assert str(tmp_path / "official.pth") in message
    assert [word for word in words if word not in message] == []
    assert "\n" not in message


# ------------------------------------------------------------------------------------------------ what is accepted


@pytest.mark.parametrize("layout", golden.LAYOUTS)
def test_every_layout_is_recognised_and_complete(layout, tmp_path):
    state = golden.official_state(layout)
    checkpoint = convert_official(saved({"state_dict": state}, tmp_path))
    assert checkpoint.config == load_config(EXPECTED_CONFIG[layout])
    unused = {"code_weights", "match_costs", "pc_range", "position_range", "coords_d", "num_batches_tracked"}
    shared = re.compile(r"\.(cls|reg)_branches\.[1-5]\.")
    expected = [key for key in state if key.rsplit(".", 1)[-1] not in unused and not shared.search(key)]
    assert len(checkpoint.state) == len(expected)
    assert sum(value.numel() for value in checkpoint.state.values()) == sum(state[key].numel() for key in expected)


def wrapped(state):
    numpy_values = [kind(1) for kind in (np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_)]
    meta = {"epoch": 24, "iter": np.int64(42192), "CLASSES": ("car", "truck"), "PALETTE": None, "values": numpy_values}
    meta |= {"mmcv_version": "1.7.2", "time": "Mon", "hook_msgs": {}, "array": np.arange(3), "config": "_base_ = []"}
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 4e-4, "params": [0]}]}
    return {"meta": meta, "state_dict": collections.OrderedDict(state), "optimizer": optimizer}


WRAPPINGS = {
    "bare": dict,
    "state_dict": lambda state: {"state_dict": state},
    "module prefix": lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    "mmcv": wrapped,
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_every_wrapping_gives_the_same_weights(wrap, official, native, tmp_path):
    checkpoint = convert_official(saved(wrap(official), tmp_path))
    assert checkpoint.state.keys() == native.keys()
    assert all(torch.equal(checkpoint.state[name], native[name]) for name in native)


@pytest.mark.parametrize(("written", "renamed"), [(b"numpy.core.", b"numpy._core."), (b"numpy._core.", b"numpy.core.")])
def test_numbers_of_numpy_1_and_2_are_read(written, renamed, official, native, tmp_path):
    """The two major versions name the same functions differently in a file."""
    path = saved(wrapped(official), tmp_path)
    respelt = tmp_path / "respelt.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(respelt, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content.replace(written, renamed) if name.endswith("data.pkl") else content)
    assert convert_official(respelt).state.keys() == native.keys()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(official, native, tmp_path, kind):
    """The constants of the model too, which are compared with those of the configuration."""
    half = {key: value.to(kind) if value.is_floating_point() else value for key, value in official.items()}
    state = convert_official(saved(half, tmp_path)).state
    assert {value.dtype for value in state.values()} == {torch.float32}
    for name, value in native.items():
        torch.testing.assert_close(state[name], value, rtol=torch.finfo(kind).eps, atol=1e-6)


def test_the_auxiliary_head_may_be_left_out(official, native, tmp_path):
    without = {key: value for key, value in official.items() if not key.startswith("img_roi_head.")}
    state = convert_official(saved(without, tmp_path)).state
    assert state.keys() == {name for name in native if not name.startswith("aux_head.")}


def test_a_converted_file_is_self_describing_and_gives_the_same_outputs(official, tmp_path, capsys):
    """The command, then the native file: configuration, licence, names and outputs survive."""
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    out = tmp_path / "deep" / "native.safetensors"
    convert.run(parser.parse_args([str(saved({"state_dict": official}, tmp_path)), str(out)]))
    assert re.search(
        r"native\.safetensors: \d+ tensors of model r50_704_428q; .*non-commercial", capsys.readouterr().out
    )

    loaded = load_checkpoint(out)
    assert loaded.config == load_config("r50_704_428q")
    assert loaded.config.class_names == NUSCENES_CLASSES
    assert loaded.config.reference_frame.startswith("nuScenes LIDAR_TOP")
    assert "nuScenes" in loaded.licence and "official.pth" in loaded.source

    golden_detector = golden.golden_detector(golden.R50_428Q)
    frames = golden.official_frames("infer_428q_small_seq.npz", golden.COMMITTED)
    frame = golden.frame_from_official(frames[0], None, golden.SEQUENCES["428q_small_seq"])
    with torch.inference_mode():
        ours, _ = loaded.detector().step(frame, golden_detector.fresh_memory())
        expected, _ = golden_detector.step(frame, golden_detector.fresh_memory())
    torch.testing.assert_close(ours.boxes, expected.boxes, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.class_logits, expected.class_logits, rtol=0, atol=1e-5)


def test_configuration_and_licence_may_be_given(official, tmp_path):
    config = load_config("r50_704_428q")
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps({**config.to_dict(), "input_height": 320, "input_width": 800}))
    checkpoint = convert_official(saved(official, tmp_path), load_config(other), "mine")
    assert (checkpoint.config.name, checkpoint.config.input_width, checkpoint.licence) == ("other", 800, "mine")
    save_checkpoint(checkpoint, tmp_path / "x.safetensors")
    assert load_checkpoint(tmp_path / "x.safetensors").config == checkpoint.config


# ------------------------------------------------------------------------------------------------- what is refused


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StreampetrError, match=r"gone\.pth: no such file"):
        convert_official(tmp_path / "gone.pth")


@pytest.mark.parametrize(
    "content",
    [b"", b"just text\n", b"<!DOCTYPE html>", b'{"a": 1}', b"PK\x03\x04" + bytes(100), b"\x80\x02X", bytes(1000)],
    ids=["empty", "text", "html", "json", "zip", "cut pickle", "zeros"],
)
def test_what_is_no_pytorch_file_is_refused(content, tmp_path):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(
        StreampetrError, match=r"file\.pth: not a PyTorch checkpoint .*damaged, incomplete or of another"
    ):
        convert_official(path)


def test_a_truncated_checkpoint_is_refused(official, tmp_path):
    path = saved(official, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(StreampetrError, match="damaged, incomplete"):
        convert_official(path)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {}, {"state_dict": {}}, {"a": 1}, {1: torch.zeros(1)}])
def test_a_pytorch_file_without_weights_is_refused(content, tmp_path):
    assert_refused(content, tmp_path, "no table of named weights")


class Malicious:
    """Creates a file when it is unpickled by someone who trusts it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_in_a_file_is_executed(official, tmp_path):
    victim = tmp_path / "executed"
    content = {"state_dict": official, "meta": Malicious(victim)}
    assert_refused(content, tmp_path, "open", "nothing of it was executed")
    assert not victim.exists()
    torch.load(tmp_path / "official.pth", weights_only=False)
    assert victim.exists()  # so the test can fail


def test_a_whole_pickled_module_is_refused(tmp_path):
    assert_refused(torch.nn.Linear(2, 2), tmp_path, "torch.nn.modules.linear.Linear")


def test_missing_keys_are_listed(official, tmp_path):
    without = {key: value for key, value in official.items() if "decoder.layers.5.norms" not in key}
    names = [f"decoder.layers.5.norm_{kind}.{part}" for kind in ("self", "cross", "ffn") for part in ("bias", "weight")]
    assert_refused(without, tmp_path, "6 missing: ", *names)


def test_long_lists_are_cut(official, tmp_path):
    without = {key: value for key, value in official.items() if ".decoder." not in key}
    assert_refused(without, tmp_path, "110 missing: ", "and 98 more")


def test_unknown_keys_are_listed(official, tmp_path):
    unknown = {"pts_bbox_head.extra.weight", "img_roi_head.extra", "teacher.x", "img_backbone.fc.weight"}
    state = {**official, **dict.fromkeys(unknown - {"img_backbone.fc.weight"}, torch.zeros(1))}
    assert_refused(state, tmp_path, "3 unknown: ", *(unknown - {"img_backbone.fc.weight"}))
    assert_refused({**official, "img_backbone.fc.weight": torch.zeros(1)}, tmp_path, "1 unknown: backbone.fc.weight")


def test_misshaped_keys_are_listed_with_both_shapes(official, tmp_path):
    state = {**official, "img_neck.fpn_convs.0.conv.weight": torch.zeros(256, 256, 1, 1)}
    assert_refused(
        state, tmp_path, "1 of another shape: neck.output.weight (256, 256, 1, 1) instead of (256, 256, 3, 3)"
    )


def test_unequal_shared_branches_are_listed(official, tmp_path):
    key = REG_LAST.format(3)
    state = {**official, key: official[key] + 1}
    assert_refused(state, tmp_path, f"1 unlike the layer that shares them: {key}")


@pytest.mark.parametrize("name", ["pc_range", "position_range", "coords_d"])
def test_other_built_in_constants_are_refused(name, official, tmp_path):
    key = f"pts_bbox_head.{name}"
    state = {**official, key: official[key] * 1.01}
    assert_refused(
        state, tmp_path, "built-in constants are not those of model 'r50_704_428q'", f"1 of other value: {key}"
    )


def test_other_numbers_of_queries_need_a_configuration(official, tmp_path):
    state = {**official, "pts_bbox_head.reference_points.weight": torch.zeros(301, 3)}
    assert_refused(state, tmp_path, "resnet50 with 301 learned and 128 propagated queries", "--config")


def test_a_configuration_that_does_not_fit_is_refused(official, tmp_path):
    with pytest.raises(
        StreampetrError, match=r"model 'r50_704_900q'; 2 of another shape: .*\(300, 3\) instead of \(644, 3\)"
    ):
        convert_official(saved(official, tmp_path), load_config("r50_704_900q"))


@pytest.mark.parametrize(
    ("layout", "listed"),
    [
        ("petrv1_r50_flash_704_24e", "17 missing: queries.content_alignment.beta.bias"),
        ("focal_petrv1_r50_flash_704_24e", "17 missing: queries.content_alignment.beta.bias"),
        ("repdetr3d_vov_800_bs2_seq_24e", "unknown: "),
    ],
)
def test_checkpoints_of_related_models_are_refused_with_a_list(layout, listed, official, tmp_path):
    """They share most names with StreamPETR; nothing of that must let them pass."""
    shapes = golden.layouts()[layout]["shapes"]
    constants = {key: value for key, value in official.items() if list(value.shape) == shapes.get(key)}
    state = {key: constants.get(key, torch.zeros(shape)) for key, shape in shapes.items()}
    assert_refused({"state_dict": state}, tmp_path, listed)


def test_reading_executes_nothing_and_keeps_integers(tmp_path):
    path = saved({"module.a": torch.tensor([3]), "b": torch.tensor([1.5], dtype=torch.float16)}, tmp_path)
    state = read_state_dict(path)
    assert state["a"].dtype == torch.int64
    assert (state["b"].dtype, state["b"].item()) == (torch.float32, 1.5)
