"""The one contract of all back-ends, and the step around them.

An engine replaces the two heavy stages, image encoder and decoder. What has to be exact stays here in float32: the
geometry, which is kept from frame to frame (see `geometry`), the memory, the queries and the boxes.
B batch, N cameras, Q queries, C channels, h and w feature map size.
"""

from typing import Protocol

import torch
from torch import Tensor

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.config import ModelConfig
from streampetr_core.frame import Frame
from streampetr_core.heads import Predictions
from streampetr_core.memory import Memory
from streampetr_core.position import Geometry
from streampetr_core.queries import Queries
from streampetr_core.runtime.geometry import KeptGeometry
from streampetr_core.runtime.temporal import EagerTemporal, Temporal


class Runtime(Protocol):
    """What the node and the evaluation need of a back-end."""

    config: ModelConfig
    device: torch.device
    description: str  # which back-end, in which precision, on what
    encodes_singly: bool  # whether one camera after the other costs about as much time as all at once

    def fresh_memory(self) -> Memory:
        """Return the memory of one scene that just begins."""
        ...

    def step(self, frame: Frame, memory: Memory) -> tuple[Predictions, Memory]:
        """Detect in one frame; see `Detector.step`. Of the layers' predictions, the last one's are promised."""
        ...

    def encode(self, images_N3HW: Tensor) -> Tensor:
        """Map normalised images of any cameras to features (N, C, h, w); a camera's depend on its own image alone."""
        ...

    def detect(self, features_NChw: Tensor, frame: Frame, memory: Memory) -> tuple[Predictions, Memory]:
        """Do what `step` does once the images are encoded.

        Takes the features of the cameras that are present, in order, scene after scene. The images of the frame are not
        looked at.
        """
        ...


class Engine(Protocol):
    """What a back-end implements: the two heavy stages, tensors in and out, all of them on `device`."""

    description: str
    device: torch.device
    dtype: torch.dtype  # in which `decode` takes everything but the features
    arithmetic: torch.dtype  # of its products, whatever it takes
    encodes_singly: bool  # see `Runtime`
    temporal: Temporal | None  # what surrounds the decoder, for one scene; None: left to PyTorch

    def encode(self, images_N3HW: Tensor) -> Tensor:
        """Map normalised float32 images to features (N, C, h, w) of a type that `decode` takes; any number of them."""
        ...

    def decode(self, features_BNChw: Tensor, geometry: Geometry, queries: Queries) -> Tensor:
        """Return the normed output of the last decoder layer, float32 (B, Q, C); all cameras count."""
        ...


class EngineRuntime:
    """A runtime whose heavy stages run in an engine; batchable, on the engine's device."""

    def __init__(self, checkpoint: Checkpoint, engine: Engine) -> None:
        self.config = checkpoint.config
        self.device = engine.device
        self.description = engine.description
        self.engine = engine
        self.encodes_singly = engine.encodes_singly
        self._detector = checkpoint.detector().requires_grad_(False).to(self.device)
        # The engine has its own: these would only hold memory.
        del self._detector.backbone, self._detector.neck, self._detector.decoder
        self._eager = EagerTemporal(self._detector)
        self._geometry = KeptGeometry(self._detector.position, self.config, engine.dtype, engine.arithmetic)

    def fresh_memory(self) -> Memory:
        """Return the memory of one scene that just begins."""
        return self._detector.fresh_memory()

    def step(self, frame: Frame, memory: Memory) -> tuple[Predictions, Memory]:
        """Detect in one frame; the frame may live on any device, the results live on the runtime's."""
        seen = _seen_cameras(frame)
        images_N3HW = frame.images_BN3HW.flatten(0, 1) if seen is None else _only(frame.images_BN3HW, seen)
        return self.detect(self.encode(images_N3HW), frame, memory)

    @torch.inference_mode()
    def encode(self, images_N3HW: Tensor) -> Tensor:
        """Map normalised images to features (N, C, h, w)."""
        return self.engine.encode(images_N3HW.to(self.device))

    @torch.inference_mode()
    def detect(self, features_NChw: Tensor, frame: Frame, memory: Memory) -> tuple[Predictions, Memory]:
        """Detect in one frame whose cameras have been encoded; see `Runtime.detect`."""
        seen = _seen_cameras(frame)
        geometry = self._geometry(frame)
        frame = frame.to(self.device)
        batch = len(frame.dt_B)
        temporal = self.engine.temporal if batch == 1 and self.engine.temporal else self._eager
        prepared = temporal.prepare(self._of_all_cameras(features_NChw, frame, seen), frame, memory)
        typed = _cast(prepared.queries, self.engine.dtype)
        hidden_BQC = self._decode(features_NChw, geometry, typed, seen, batch)
        return temporal.conclude(hidden_BQC, prepared)

    def _of_all_cameras(self, features: Tensor, frame: Frame, seen: list[list[int]] | None) -> Tensor | None:
        """Return float32 (B, N, C, h, w) from (images, C, h, w) of the cameras that are `seen`; None: nobody asks."""
        if self._detector.proposals is None:
            return None
        shape = (*frame.img_P_ref_BN44.shape[:2], *features.shape[1:])
        if seen is None:
            return features.float().view(shape)
        whole = features.new_zeros(shape, dtype=torch.float32)
        whole[frame.present_BN] = features.float()
        return whole

    def _decode(
        self, features: Tensor, geometry: Geometry, queries: Queries, seen: list[list[int]] | None, batch: int
    ) -> Tensor:
        """Decode features (images, C, h, w); tokens of cameras that are not `seen` are left out."""
        if seen is None:
            return self.engine.decode(features.unflatten(0, (batch, -1)), geometry, queries)
        # Scenes that miss different cameras have different numbers of tokens, so each goes by itself.
        hidden, start = [], 0
        tokens = features.shape[-2] * features.shape[-1]
        for index, cameras in enumerate(seen):
            own = slice(index, index + 1)
            features_1NChw = features[start : start + len(cameras)][None]
            start += len(cameras)
            hidden.append(
                self.engine.decode(features_1NChw, _of_cameras(geometry, own, cameras, tokens), _part(queries, own))
            )
        return torch.cat(hidden)


def _seen_cameras(frame: Frame) -> list[list[int]] | None:
    """Return the cameras that delivered an image, scene by scene; None: all of them did."""
    if frame.present_BN is None or bool(frame.present_BN.all()):
        return None
    return [present_N.nonzero()[:, 0].tolist() for present_N in frame.present_BN]


def _only(images_BN3HW: Tensor, seen: list[list[int]]) -> Tensor:
    return torch.cat([images_N3HW[cameras] for images_N3HW, cameras in zip(images_BN3HW, seen, strict=True)])


def _of_cameras(geometry: Geometry, batch: slice, cameras: list[int], tokens: int) -> Geometry:
    def select(x_BTC: Tensor) -> Tensor:
        return x_BTC[batch].unflatten(1, (-1, tokens))[:, cameras].flatten(1, 2)

    return Geometry(**{name: select(value) for name, value in vars(geometry).items()})


def _part(queries: Queries, batch: slice) -> Queries:
    return Queries(**{name: value[batch] for name, value in vars(queries).items()})


def _cast(queries: Queries, dtype: torch.dtype) -> Queries:
    return Queries(**{name: value.to(dtype) for name, value in vars(queries).items()})
