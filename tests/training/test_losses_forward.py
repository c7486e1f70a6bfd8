"""The module that training runs: frames in, losses and memory out; what learns and what does not."""

import dataclasses

import pytest
import torch
from torch import nn

from streampetr_core.backbones.resnet import resnet50
from streampetr_core.backbones.vovnet import VoVNet
from streampetr_core.checkpoint import Checkpoint, check_state, load_checkpoint, save_checkpoint
from streampetr_core.config import load_config
from streampetr_core.detector import Detector
from tests.training import tiny
from training.freezing import freeze, freeze_stages
from training.losses.config import LossConfig
from training.losses.criterion import total_loss
from training.losses.forward import TrainingModel, run_frame


def _batch_norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def test_the_memory_it_returns_is_that_of_the_detector():
    model = tiny.model()
    frames = [tiny.frame(seed=seed) for seed in range(2)]
    memory = expected = model.detector.fresh_memory(2)
    for frame in frames:
        _, memory = model([frame], memory, [tiny.truths(2, 1)])
        _, expected = model.detector.step(frame, expected)
    for name, value in vars(memory).items():
        torch.testing.assert_close(value, getattr(expected, name), rtol=1e-4, atol=1e-4)
        assert not value.requires_grad


def test_a_window_learns_from_its_last_frames_only():
    model = tiny.model()
    frames = [tiny.frame(seed=seed) for seed in range(4)]
    torch.manual_seed(1)
    losses, memory = model(frames, model.detector.fresh_memory(2), [tiny.truths(2, 1), tiny.truths(1, 1)])
    assert {name.split("_")[1] for name in losses} == {"2", "3"}
    stepped = model.detector.fresh_memory(2)
    for frame in frames[:2]:
        stepped = run_frame(model.detector, None, frame, stepped, None)[1]
    torch.manual_seed(1)
    first, stepped = model(frames[2:3], stepped, [tiny.truths(2, 1)])
    second, stepped = model(frames[3:4], stepped, [tiny.truths(1, 1)])
    expected = {name.replace("frame_0", "frame_2"): loss for name, loss in first.items()}
    expected |= {name.replace("frame_0", "frame_3"): loss for name, loss in second.items()}
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(memory.embedding_BMC, stepped.embedding_BMC)


def test_frames_that_fill_the_memory_see_no_dropout_and_the_others_do():
    config = dataclasses.replace(tiny.CONFIG, dropout=0.5)
    model = TrainingModel(Detector(config), None, tiny.model().config)
    memory, frame = model.detector.fresh_memory(1), tiny.frame(1)
    filled = [model([frame], memory, [])[1].embedding_BMC for _ in range(2)]
    learned = [model([frame], memory, [tiny.truths(1)])[1].embedding_BMC for _ in range(2)]
    assert torch.equal(*filled)
    assert not torch.equal(*learned)
    assert model.training


@pytest.mark.parametrize("num_before", [0, 1])
def test_half_precision_reaches_backbone_and_neck_alone(num_before):
    model = tiny.model(seed=1)
    frames, truths = [tiny.frame(seed=seed) for seed in range(num_before + 1)], [tiny.truths(2, 1)]
    dtypes = {}
    for name in ("backbone.layer1.0.conv1", "position.content.0", "decoder.layers.0.ffn_in", "heads.boxes.0"):
        module = model.detector.get_submodule(name)
        module.register_forward_hook(lambda _, args, out, name=name: dtypes.update({name: out.dtype}))
    memory = model.detector.fresh_memory(2)
    torch.manual_seed(0)
    full = total_loss(model(frames, memory, truths)[0])
    dtypes.clear()
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        losses, after = model(frames, memory, truths)
        half = total_loss(losses)
    assert dtypes.pop("backbone.layer1.0.conv1") == torch.bfloat16
    assert set(dtypes.values()) == {torch.float32}
    assert {loss.dtype for loss in losses.values()} == {after.embedding_BMC.dtype} == {torch.float32}
    assert half.item() == pytest.approx(full.item(), rel=0.02)
    half.backward()
    assert not [name for name, gradient in tiny.gradients(model).items() if gradient is None]
    assert model.detector.backbone.conv1.weight.grad.abs().max() > 0


def test_batch_norm_keeps_its_statistics_while_training():
    model = tiny.model()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.train()
    model([tiny.frame()], model.detector.fresh_memory(2), [tiny.truths(1, 1)])
    assert model.detector.training
    assert not any(module.training for module in _batch_norms(model))
    for name, value in model.named_buffers():
        assert torch.equal(value, before[name]), name


def test_the_batch_norm_of_a_resnet_is_frozen_and_that_of_v2_99_learns():
    detector = Detector(tiny.CONFIG)
    freeze(detector)
    frozen = {name for name, parameter in detector.named_parameters() if not parameter.requires_grad}
    assert len(frozen) == 2 * len(_batch_norms(detector)) == 40
    detector.backbone = VoVNet()
    freeze(detector)
    assert all(parameter.requires_grad for parameter in detector.parameters())


def test_frozen_stages_keep_weights_and_statistics_while_later_ones_learn():
    detector = Detector(tiny.CONFIG)
    freeze_stages(detector.backbone, 2)
    model = TrainingModel(detector, None, LossConfig(), learns_batch_norm=True)
    before = {name: value.clone() for name, value in detector.backbone.named_buffers()}
    losses, _ = model([tiny.frame()], detector.fresh_memory(2), [tiny.truths(2, 1)])
    total_loss(losses).backward()
    stages = {name.split(".")[0] for name, value in detector.backbone.named_parameters() if value.grad is not None}
    moved = {name.split(".")[0] for name, value in detector.backbone.named_buffers() if not value.equal(before[name])}
    assert stages == moved == {"layer3", "layer4"}


def test_weights_go_through_a_native_checkpoint_and_back(tmp_path):
    model, other = tiny.model(seed=1), tiny.model(seed=2)
    state = {k: v for k, v in model.native_state().items() if not k.endswith("num_batches_tracked")}
    check_state(tiny.CONFIG, state, "the training model")
    assert "aux_head.shared_cls.0.weight" in state
    save_checkpoint(Checkpoint(tiny.CONFIG, state, "none", "test"), tmp_path / "model.safetensors")
    other.load_native_state(load_checkpoint(tmp_path / "model.safetensors").state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_checkpoint_without_auxiliary_head_leaves_it_alone():
    model = tiny.model(seed=1)
    before = model.aux_head.cls.weight.clone()
    model.load_native_state(Detector(tiny.CONFIG).state_dict())
    assert torch.equal(model.aux_head.cls.weight, before)


# ------------------------------------------------------------------------------------------------- first weights


def test_first_weights_follow_the_published_rules():
    torch.manual_seed(0)
    detector = Detector(dataclasses.replace(load_config("r50_704_428q"), num_layers=2))
    for layer in detector.decoder.layers:
        for attention in (layer.self_attention, layer.cross_attention):
            for weight in (attention.in_proj_weight, attention.out_proj.weight):
                _assert_xavier(weight)
            assert not attention.in_proj_bias.any() and not attention.out_proj.bias.any()
        for linear in (layer.ffn_in, layer.ffn_out):
            _assert_xavier(linear.weight)
            assert not linear.bias.any()
    for conv in (detector.neck.lateral_stride16, detector.neck.lateral_stride32, detector.neck.output):
        _assert_xavier(conv.weight)
        assert not conv.bias.any()
    for norm in (
        detector.queries.position_alignment,
        detector.queries.content_alignment,
        detector.position.spatial_alignment,
    ):
        assert not norm.gamma.weight.any() and not norm.beta.weight.any() and not norm.beta.bias.any()
        assert (norm.gamma.bias == 1.0).all()
    for points in (detector.queries.reference_points, detector.queries.start_points):
        assert 0.0 <= points.min() < 0.05 and 0.95 < points.max() <= 1.0
        assert points.mean().item() == pytest.approx(0.5, abs=0.1)
    assert detector.heads.classes[-1].bias.tolist() == pytest.approx([-4.59512] * 10)


def _assert_xavier(weight):
    fan_in, fan_out = weight[0].numel(), weight[:, 0].numel()
    bound = (6.0 / (fan_in + fan_out)) ** 0.5
    assert 0.95 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_first_weights_of_the_resnet_follow_the_published_rules():
    torch.manual_seed(0)
    backbone = resnet50()
    for stage in (backbone.layer1, backbone.layer4):
        for block in stage:
            assert not block.bn3.weight.any()
            assert (block.bn1.weight == 1.0).all()
            weight = block.conv2.weight
            assert weight.std().item() == pytest.approx((2.0 / (weight.shape[0] * 9)) ** 0.5, rel=0.02)


def test_first_weights_of_the_auxiliary_head_follow_the_published_rules():
    head = tiny.model().aux_head
    assert head.cls.bias.tolist() == pytest.approx([-4.59512] * 10)
    assert head.centerness.bias.tolist() == pytest.approx([-4.59512])
    assert head.ltrb.bias.abs().max() < 0.5
