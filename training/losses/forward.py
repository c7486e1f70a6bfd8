"""The detector as training sees it: one module that turns frames with truth into losses and the next memory.

One module with one `forward` is what distributed training wraps. B samples, N cameras, D denoising queries.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from streampetr_core.checkpoint import TRAINING_PREFIXES
from streampetr_core.detector import Detector, Prepared
from streampetr_core.frame import Frame
from streampetr_core.heads import Predictions
from streampetr_core.memory import Memory
from streampetr_core.position import invert_projections
from streampetr_core.proposals import Proposals, TokenHead
from training.freezing import (
    freeze,
    freeze_behind_features,
    freeze_features,
    keep_frozen_statistics,
    keep_statistics,
)
from training.losses.aux_head import AuxHead
from training.losses.config import LossConfig
from training.losses.criterion import Outputs, ReduceMean, alone, frame_losses, image_losses
from training.losses.denoising import Denoising, make_denoising
from training.losses.dense_head import TokenOutputs
from training.losses.guidance import guidance_losses
from training.truth import Truth

_DETECTOR_PREFIX = "detector."
_EMPTY_COUNTS = 0.5  # objects; how likely an image without any is chosen


class TrainingModel(nn.Module):
    """A detector, the heads that teach its image features (if wanted), and the losses of all.

    With `learns` "images" only backbone, neck and these heads learn; nothing is detected, and no memory is kept. Then
    `images_per_sample` of each sample may be chosen, mostly those that show much; 0: all. With "decoder" only the rest
    learns.
    """

    def __init__(
        self,
        detector: Detector,
        aux_head: AuxHead | None,
        config: LossConfig,
        reduce_mean: ReduceMean = alone,
        learns_batch_norm: bool = False,
        dense_head: TokenHead | None = None,
        learns: str = "all",
        images_per_sample: int = 0,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.aux_head = aux_head
        self.dense_head = dense_head
        self.learns = learns
        self.images_per_sample = images_per_sample
        self.config = config
        self.reduce_mean = reduce_mean
        self.learns_batch_norm = learns_batch_norm
        if not learns_batch_norm:
            freeze(detector)
        if learns == "images":
            freeze_behind_features(detector)
        elif learns == "decoder":
            freeze_features(detector)
        self.train()

    def train(self, mode: bool = True) -> "TrainingModel":
        """Switch dropout on or off; batch norm keeps using its stored statistics either way, unless it learns."""
        super().train(mode)
        if not self.learns_batch_norm or self.learns == "decoder":
            keep_statistics(self)
        keep_frozen_statistics(self.detector)
        return self

    def forward(
        self, frames: Sequence[Frame], memory: Memory, truths: Sequence[Sequence[Truth]]
    ) -> tuple[dict[str, Tensor], Memory]:
        """Run consecutive frames; the last `len(truths)` of them are learned from, those before fill the memory only.

        Losses are named `frame_<i>_<name>` by the index of their frame. An autocast context around the call reaches
        backbone and neck alone; everything behind them computes in float32.
        """
        num_before = len(frames) - len(truths)
        memory = self._fill(frames[:num_before], memory)
        losses = {}
        for index, (frame, truth) in enumerate(zip(frames[num_before:], truths, strict=True), num_before):
            if self.learns == "images":
                named = self._image_losses(frame, truth)
            else:
                named, memory = self._frame_losses(frame, memory, truth)
            losses |= {f"frame_{index}_{name}": loss for name, loss in named.items()}
        return losses, memory

    def _frame_losses(self, frame: Frame, memory: Memory, truth: Sequence[Truth]) -> tuple[dict[str, Tensor], Memory]:
        denoising = make_denoising(truth, self.detector.config, self.config)
        outputs, memory = run_frame(
            self.detector, self.aux_head, frame, memory, denoising, self.dense_head, self.config
        )
        with torch.autocast(frame.images_BN3HW.device.type, enabled=False):
            return frame_losses(outputs, frame, truth, denoising, self.config, self.reduce_mean), memory

    def _image_losses(self, frame: Frame, truth: Sequence[Truth]) -> dict[str, Tensor]:
        if self.images_per_sample:
            frame = choose_images(frame, truth, self.images_per_sample)
        features_BNChw = _encode_present(self.detector, frame)
        with torch.autocast(features_BNChw.device.type, enabled=False):
            features_IChw = _of_present(features_BNChw.float(), frame.present_BN)
            auxiliary = self.aux_head and self.aux_head(features_IChw)
            dense = _token_outputs(self.detector, self.dense_head, features_BNChw.float(), frame)
            return image_losses(auxiliary, dense, frame, truth, self.reduce_mean)

    @torch.no_grad()
    def _fill(self, frames: Sequence[Frame], memory: Memory) -> Memory:
        mode = self.training
        self.eval()
        for frame in frames:
            _, memory = run_frame(self.detector, None, frame, memory, None)
        self.train(mode)
        return memory

    def native_state(self) -> dict[str, Tensor]:
        """Return the weights under the names of a native checkpoint."""
        return {key.removeprefix(_DETECTOR_PREFIX): value for key, value in self.state_dict().items()}

    def load_native_state(self, state: dict[str, Tensor]) -> None:
        """Take the weights of a native checkpoint; the heads of training keep their own where it has none."""
        own = {k if k.startswith(TRAINING_PREFIXES) else _DETECTOR_PREFIX + k: value for k, value in state.items()}
        self.load_state_dict(own, strict=False)


def run_frame(
    detector: Detector,
    aux_head: AuxHead | None,
    frame: Frame,
    memory: Memory,
    denoising: Denoising | None,
    dense_head: TokenHead | None = None,
    config: LossConfig | None = None,
) -> tuple[Outputs, Memory]:
    """Run one frame as `Detector.step` does, with denoising queries in front and the heads of training beside.

    Only real queries enter the memory.
    """
    features_BNChw = detector.encode(frame.images_BN3HW)
    with torch.autocast(features_BNChw.device.type, enabled=False):
        features_BNChw = features_BNChw.float()
        geometry = detector.geometry(frame)
        memory = detector.carry(frame, memory)
        reference_BD3 = None if denoising is None else denoising.reference_BD3
        allowed = None if denoising is None else denoising.allowed
        proposals = detector.propose(features_BNChw, frame, memory)
        queries = detector.temporal(memory, reference_BD3, proposals)
        hidden_LBQC = detector.decode(features_BNChw, geometry, queries, frame.present_BN, allowed)
        predictions = detector.heads(hidden_LBQC, queries.reference_BQ3, queries.prior_BQO)
        num_noisy = 0 if denoising is None else reference_BD3.shape[1]
        detections = _rows(predictions, slice(num_noisy, None))
        _, memory = detector.update(detections, Prepared.of(queries, memory, proposals))
        features_IChw = _of_present(features_BNChw, frame.present_BN)
        auxiliary, guidance = aux_head and aux_head(features_IChw), {}
        dense = _token_outputs(detector, dense_head, features_BNChw, frame, proposals)
        if config is not None and config.guidance_weight:
            tokens_BTC, token_position_BTC = detector.position(features_BNChw, geometry)
            guidance = guidance_losses(detector, tokens_BTC + token_position_BTC, queries, frame, denoising, config)
    return Outputs(detections, _rows(predictions, slice(num_noisy)), auxiliary, dense, guidance), memory


def choose_images(frame: Frame, truths: Sequence[Truth], number: int) -> Frame:
    """Return the frame with `number` cameras of each sample; the more objects a camera shows, the likelier it stays."""
    shown_BN = torch.tensor([[len(camera.labels_G) for camera in truth.cameras] for truth in truths])
    weights_BN = (shown_BN + _EMPTY_COUNTS).to(frame.images_BN3HW)
    if frame.present_BN is not None:
        weights_BN = torch.where(frame.present_BN, weights_BN, 0.0)
    chosen_Bn = weights_BN.multinomial(min(number, weights_BN.shape[1]))
    present_BN = torch.zeros_like(weights_BN, dtype=torch.bool).scatter(1, chosen_Bn, True)
    return replace(frame, present_BN=present_BN if frame.present_BN is None else present_BN & frame.present_BN)


def _encode_present(detector: Detector, frame: Frame) -> Tensor:
    """Return the features of all cameras; of those that are not present, zeros, and no time is spent on them."""
    if frame.present_BN is None:
        return detector.encode(frame.images_BN3HW)
    features_I1Chw = detector.encode(frame.images_BN3HW[frame.present_BN][:, None])
    features_BNChw = features_I1Chw.new_zeros(*frame.present_BN.shape, *features_I1Chw.shape[2:])
    return features_BNChw.index_put((frame.present_BN,), features_I1Chw[:, 0])


def _token_outputs(
    detector: Detector,
    dense_head: TokenHead | None,
    features_BNChw: Tensor,
    frame: Frame,
    proposals: Proposals | None = None,
) -> TokenOutputs | None:
    """Return what image tokens say of objects: by the head of the proposals, else by that of training, else None."""
    if proposals is not None:
        claims = proposals.claims
    else:
        head = dense_head if detector.proposals is None else detector.proposals.head
        if head is None:
            return None
        claims = head(features_BNChw, invert_projections(frame.img_P_ref_BN44))
    return TokenOutputs.of_present(claims, frame, detector.config.feature_stride)


def _of_present(features_BNChw: Tensor, present_BN: Tensor | None) -> Tensor:
    return features_BNChw.flatten(0, 1) if present_BN is None else features_BNChw[present_BN]


def _rows(predictions: Predictions, rows: slice) -> Predictions:
    return Predictions(
        predictions.class_logits[:, :, rows], predictions.boxes[:, :, rows], predictions.embedding_BQC[:, rows]
    )
