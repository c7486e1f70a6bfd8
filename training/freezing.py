"""What of a detector does not learn, as in the published training."""

from torch import nn

from streampetr_core.backbones.resnet import ResNet
from streampetr_core.detector import Detector


def freeze(detector: Detector) -> None:
    """Stop gradients of a ResNet's batch norm scales and shifts; V2-99's learn. The start points are no parameters."""
    if isinstance(detector.backbone, ResNet):
        for module in detector.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)


def freeze_stages(backbone: ResNet, number: int) -> None:
    """Stop the gradients of the stem and the first stages, the costliest to reach: their maps are the largest."""
    if number:
        stages = [getattr(backbone, f"layer{index}") for index in range(1, number + 1)]
        for part in (backbone.conv1, backbone.bn1, *stages):
            part.requires_grad_(False)


def keep_frozen_statistics(detector: Detector) -> None:
    """Let the batch norms of frozen stages use their stored mean and variance; call it after `train()`."""
    for part in detector.backbone.children():
        if not any(parameter.requires_grad for parameter in part.parameters()):
            keep_statistics(part)


def freeze_features(detector: Detector) -> None:
    """Stop the gradients of backbone and neck; their batch norms keep their statistics too."""
    for part in (detector.backbone, detector.neck):
        part.requires_grad_(False)


def freeze_behind_features(detector: Detector) -> None:
    """Stop the gradients of everything but backbone, neck, and the head that lets image tokens say what they see."""
    for name, part in detector.named_children():
        if name not in ("backbone", "neck"):
            part.requires_grad_(False)
    if detector.proposals is not None:
        detector.proposals.head.requires_grad_(True)


def keep_statistics(module: nn.Module) -> None:
    """Let every batch norm use its stored mean and variance; `train()` undoes it, so call it afterwards."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
