"""The memory: what past frames found, carried along with the vehicle. State is a value; nothing here changes in place.

B batch, M memory entries (newest first), K entries admitted in one frame, P entries that become queries, C channels,
V numbers known of an object.
Paper section 3.2. The published code keeps entries in the global frame; here they are always expressed in the reference
frame of the last step, which is equivalent and keeps large coordinates and unix times out of float32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# By how much of the interval between entries a frame may come too early, since stamps jitter.
_TOLERANCE = 0.1


def is_due(elapsed: float, period: float, interval: float) -> bool:
    """Say whether a frame enters the memory, so that entries are `interval` apart however fast frames come.

    It does when none after it will be nearer to the end of the interval.

    Args:
        elapsed: seconds since the frame that last entered.
        period: seconds since the frame before this one, entered or not; as long as the next will be away.
        interval: seconds between entries that the weights were trained with.
    """
    return elapsed + min(period / 2, _TOLERANCE * interval) >= interval


@dataclass(frozen=True)
class Memory:
    """M remembered objects of each batch element."""

    embedding_BMC: Tensor  # decoder output of the query that saw the object
    centre_BM3: Tensor  # metres, in the reference frame of the last step
    velocity_BM2: Tensor  # m/s, in the reference frame in which it was observed (the published weights expect that)
    age_BM1: Tensor  # seconds since it was observed
    ref_T_obs_BM44: Tensor  # from the reference frame of the observation into that of the last step; zero: never used
    known_BMV: Tensor  # see `following.Known`, in the frame of the observation; V is 0 where objects are not followed

    @staticmethod
    def fresh(start_centres_P3: Tensor, batch: int, length: int, channels: int, num_known: int = 0) -> "Memory":
        """Return the memory of a scene that just begins: empty, but its P newest entries are fixed start centres."""
        zeros = start_centres_P3.new_zeros
        num_start = len(start_centres_P3)
        centre_BM3, ref_T_obs_BM44 = zeros(batch, length, 3), zeros(batch, length, 4, 4)
        centre_BM3[:, :num_start] = start_centres_P3
        ref_T_obs_BM44[:, :num_start] = torch.eye(4, dtype=zeros(0).dtype, device=start_centres_P3.device)
        return Memory(
            zeros(batch, length, channels),
            centre_BM3,
            zeros(batch, length, 2),
            zeros(batch, length, 1),
            ref_T_obs_BM44,
            zeros(batch, length, num_known),
        )

    def advance(self, ref_T_prev_B44: Tensor, dt_B: Tensor) -> "Memory":
        """Carry all entries into the current frame: `ref_T_prev` maps the last step's frame, `dt` seconds ago."""
        rotation_B33, translation_B3 = ref_T_prev_B44[:, :3, :3], ref_T_prev_B44[:, :3, 3]
        return Memory(
            self.embedding_BMC,
            self.centre_BM3 @ rotation_B33.transpose(1, 2) + translation_B3[:, None],
            self.velocity_BM2,
            self.age_BM1 + dt_B[:, None, None],
            ref_T_prev_B44[:, None] @ self.ref_T_obs_BM44,
            self.known_BMV,
        )

    def where(self, condition_B: Tensor, other: "Memory") -> "Memory":
        """Take the batch elements where `condition` holds from this memory, the rest from `other`."""

        def choose(own: Tensor, others: Tensor) -> Tensor:
            return torch.where(condition_B.view(-1, *[1] * (own.dim() - 1)), own, others)

        return Memory(**{name: choose(own, getattr(other, name)) for name, own in vars(self).items()})

    def admit(self, embedding_BKC: Tensor, centre_BK3: Tensor, velocity_BK2: Tensor, known_BKV: Tensor) -> "Memory":
        """Put K fresh observations in front; the K oldest entries are forgotten. No gradient flows through it."""
        batch, num_admitted, _ = centre_BK3.shape
        identity_BK44 = torch.eye(4, dtype=centre_BK3.dtype, device=centre_BK3.device).expand(batch, num_admitted, 4, 4)
        admitted = Memory(
            embedding_BKC,
            centre_BK3,
            velocity_BK2,
            centre_BK3.new_zeros(batch, num_admitted, 1),
            identity_BK44,
            known_BKV,
        )
        return Memory(
            **{
                name: torch.cat([new.detach(), getattr(self, name)[:, :-num_admitted]], dim=1)
                for name, new in vars(admitted).items()
            }
        )
