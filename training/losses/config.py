"""What a recipe may say about the losses; the published models' values are the defaults."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LossConfig:
    """Weights of the 3D losses, which are the weights of the matching costs too, and the denoising task."""

    class_weight: float = 2.0
    box_weight: float = 0.25
    code_weights: tuple[float, ...] = (2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)  # of the ten box numbers
    denoising_groups: int = 10  # noisy copies of every box; 0: no denoising
    denoising_weight: float = 1.0
    noise_scale: float = 1.0  # largest shift, in halves of the box
    noise_reach: tuple[float, float, float] = (0.0, 0.0, 0.0)  # metres that it is larger by, along x, y, z
    guidance_weight: float = (
        0.0  # of telling noisy copies where to look, with training.dense_head; 0: they are not told
    )
    noise_split: float = 0.75  # what is shifted by a longer (normalised) vector should be called background
