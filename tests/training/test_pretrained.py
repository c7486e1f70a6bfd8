"""Pretrained backbones: files in the layouts that are found in the wild, made here from random weights."""

import pytest
import torch

from streampetr_core.backbones.resnet import resnet18, resnet50
from streampetr_core.backbones.vovnet import VoVNet
from streampetr_core.errors import StreampetrError
from training.pretrained import load_backbone


def official_v2_99_name(name):
    """Return the name that V2-99's published weights use: counted from one, blocks named twice."""
    part, *rest = name.split(".")
    if part == "stem":
        return f"stem.stem_{int(rest[0]) + 1}/{'.'.join(rest[1:])}"
    number, block = int(part.removeprefix("stage")), int(rest[0]) + 1
    prefix = f"{part}.OSA{number}_{block}."
    if rest[1] == "layers":
        return f"{prefix}layers.{rest[2]}.OSA{number}_{block}_{rest[2]}/{'.'.join(rest[3:])}"
    if rest[1] == "concat":
        return f"{prefix}concat.OSA{number}_{block}_concat/{'.'.join(rest[2:])}"
    return prefix + ".".join(rest[1:])


def random_state(backbone):
    torch.manual_seed(1)
    return {
        key: torch.rand(value.shape) if value.is_floating_point() else value
        for key, value in backbone.state_dict().items()
    }


def assert_loaded(backbone, state):
    own = backbone.state_dict()
    assert all(torch.equal(own[key], value) for key, value in state.items() if not key.endswith("num_batches_tracked"))


def test_a_torchvision_file(tmp_path):
    state = random_state(resnet50())
    file = {**state, "fc.weight": torch.rand(1000, 2048), "fc.bias": torch.rand(1000)}
    torch.save(file, tmp_path / "resnet50.pth")
    backbone = resnet50()
    report = load_backbone(backbone, tmp_path / "resnet50.pth")
    assert_loaded(backbone, state)
    assert report == "resnet50.pth: 265 tensors of the backbone, 2 tensors left out (fc)"


def test_a_nuimages_detector(tmp_path):
    state = random_state(resnet50())
    others = {"neck.fpn_convs.0.conv.weight": torch.rand(2), "roi_head.mask_head.0.weight": torch.rand(3)}
    file = {"meta": {}, "state_dict": {f"backbone.{key}": value for key, value in state.items()} | others}
    torch.save(file, tmp_path / "nuim.pth")
    backbone = resnet50()
    assert "2 tensors left out (neck, roi_head)" in load_backbone(backbone, tmp_path / "nuim.pth")
    assert_loaded(backbone, state)


@pytest.mark.parametrize("prefix", ["img_backbone.", ""])
def test_a_v2_99_file(tmp_path, prefix):
    state = random_state(VoVNet())
    torch.save({prefix + official_v2_99_name(key): value for key, value in state.items()}, tmp_path / "v2.pth")
    backbone = VoVNet()
    assert "none left out" in load_backbone(backbone, tmp_path / "v2.pth")
    assert_loaded(backbone, state)


def test_what_does_not_fit_is_named(tmp_path):
    state = random_state(resnet18())
    cases = {
        "missing": ({key: value for key, value in state.items() if key != "conv1.weight"}, "1 missing: conv1.weight"),
        "unknown": ({**state, "layer9.weight": torch.rand(1)}, "1 unknown: layer9.weight"),
        "shape": ({**state, "bn1.bias": torch.rand(3)}, r"of another shape: bn1.bias \(3,\) instead of \(64,\)"),
        "other": ({"encoder.weight": torch.rand(1)}, "none of its weights are those of a ResNet"),
    }
    for name, (file, message) in cases.items():
        torch.save(file, tmp_path / f"{name}.pth")
        with pytest.raises(StreampetrError, match=rf"{name}.pth: .*{message}"):
            load_backbone(resnet18(), tmp_path / f"{name}.pth")
    with pytest.raises(StreampetrError, match=r"none\.pth: no such file"):
        load_backbone(resnet18(), tmp_path / "none.pth")
