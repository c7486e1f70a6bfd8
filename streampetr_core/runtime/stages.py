"""The two heavy stages as modules of plain tensors, made fit for inference: what engines compile and `export` writes.

B batch, N cameras, T image tokens, Q queries, M memory entries that are keys only, C channels.
"""

import copy
import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.optimization import fuse

from streampetr_core.detector import Detector
from streampetr_core.position import Geometry, modulate
from streampetr_core.queries import Queries


class Encoder(nn.Module):
    """Images (N, 3, H, W) to features (N, C, h, w)."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.neck = detector.neck

    def forward(self, images: Tensor) -> Tensor:
        """Run backbone and neck."""
        return self.neck(*self.backbone(images))


class LastLayerDecoder(nn.Module):
    """Features and geometry of all tokens, and the queries, to the normed output of the last layer (B, Q, C)."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.position = detector.position
        self.layers = detector.decoder.layers
        self.post_norm = detector.decoder.post_norm

    def forward(
        self,
        features: Tensor,
        position: Tensor,
        gamma: Tensor,
        beta: Tensor,
        query_content: Tensor,
        query_position: Tensor,
        memory_content: Tensor,
        memory_position: Tensor,
    ) -> Tensor:
        """Decode features (B, N, C, h, w) under the three tensors (B, T, C) of the geometry.

        The queries' tensors are (B, Q, C), those of the memory (B, M, C).
        """
        batch, channels = features.shape[0], features.shape[2]
        tokens = features.permute(0, 1, 3, 4, 2).reshape(batch, -1, channels)
        tokens = modulate(self.position.content(tokens), gamma, beta)
        token_keys = tokens + position * self.position.gate(tokens)
        x = query_content
        for layer in self.layers:
            x = layer(x, query_position, memory_content, memory_position, tokens, token_keys, None, None)
        return self.post_norm(x)


def decoder_arguments(features_BNChw: Tensor, geometry: Geometry, queries: Queries) -> tuple[Tensor, ...]:
    """Return the arguments of `LastLayerDecoder`, in order."""
    return (
        features_BNChw,
        geometry.position_BTC,
        geometry.gamma_BTC,
        geometry.beta_BTC,
        queries.content_BQC,
        queries.position_BQC,
        queries.memory_BMC,
        queries.memory_position_BMC,
    )


def folded_encoder(detector: Detector) -> GraphModule:
    """Return a copy of the encoder with batch norms as parts of convolutions, and ReLUs and sums that overwrite."""
    encoder = fuse(Encoder(detector).eval())
    modules = dict(encoder.named_modules())
    for node in encoder.graph.nodes:
        if node.target not in (F.relu, operator.add) or len(node.args[0].users) > 1:
            continue  # somebody else looks at what would be overwritten
        if node.target is F.relu:
            node.kwargs = {**node.kwargs, "inplace": True}
        elif isinstance(modules.get(node.args[0].target), nn.Conv2d):
            node.target = operator.iadd
    encoder.recompile()
    return encoder


def lean_decoder(detector: Detector) -> LastLayerDecoder:
    """Return a copy of the decoder for inference."""
    return copy.deepcopy(LastLayerDecoder(detector).eval())


def example_arguments(detector: Detector, num_cameras: int = 2, batch: int = 2) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return random arguments of both stages, to trace them with: images, and the decoder's in order."""
    config = detector.config
    height, width = config.feature_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokens = [torch.randn(batch, num_cameras * height * width, config.channels) for _ in range(3)]
        queries = [torch.randn(batch, config.num_queries, config.channels) for _ in range(2)]
        remembered = config.memory_length - config.num_propagated
        memory = [torch.randn(batch, remembered, config.channels) for _ in range(2)]
        features = torch.randn(batch, num_cameras, config.channels, height, width)
        images = torch.randn(num_cameras, 3, config.input_height, config.input_width)
    return images, (features, *tokens, *queries, *memory)
