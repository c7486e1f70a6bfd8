"""Muon: a step in which every direction of a weight matrix counts alike (Jordan et al., 2024, kellerjordan.github.io).

The momentum of each matrix is replaced by the nearest orthogonal matrix, found by a few steps of Newton-Schulz
iteration. Networks that begin from nothing learn from fewer samples that way. PyTorch's own `torch.optim.Muon` takes no
convolutions. Steps are as long as AdamW's, so that one learning rate serves both (arXiv 2502.16982, section 2.2).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import AdamW

_MOMENTUM = 0.95
_ITERATIONS = 5
_POLYNOMIAL = (3.4445, -4.7750, 2.0315)  # of Newton-Schulz: fast at small singular values, near enough to 1 elsewhere
_STEP = 0.2  # root mean square of a step, in learning rates: about what AdamW's is
_TINY = 1e-7


# Not hidden: what meets pixels, what gives the answers, and points in space.
_OUTER = ("backbone.conv1.weight", "heads.classes.6.weight", "heads.boxes.4.weight", "queries.reference_points")
_OUTER_ENDINGS = ("head.classes.weight", "head.values.weight")


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Say whether a parameter of a detector, or of a head of training, is to step by Muon."""
    return parameter.dim() > 1 and name not in _OUTER and not name.endswith(_OUTER_ENDINGS)


class MuonAndAdamW(AdamW):
    """AdamW whose groups with the key `orthogonal` step by Muon instead.

    Several processes share the matrices among them: each makes some orthogonal, and tells the others.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step of both kinds; gradients of matrices are used up."""
        for group in self.param_groups:
            if group.get("orthogonal"):
                self._step_matrices(group)
        return super().step(closure)

    def _step_matrices(self, group: dict[str, Any]) -> None:
        learning = [parameter for parameter in group["params"] if parameter.grad is not None]
        for parameter, direction in zip(learning, _shared([self._momentum(p) for p in learning]), strict=True):
            rows, columns = direction.shape
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(direction.view_as(parameter), alpha=-group["lr"] * _STEP * max(rows, columns) ** 0.5)
            parameter.grad = None  # AdamW leaves alone what has none

    def _momentum(self, parameter: Tensor) -> Tensor:
        """Return Nesterov's momentum as a matrix: a row for each output."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # without which AdamW does not read a saved state; Muon needs none
        state["momentum"].mul_(_MOMENTUM).add_(parameter.grad)
        return parameter.grad.add(state["momentum"], alpha=_MOMENTUM).flatten(1)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return about the nearest matrix whose singular values are 1; they come out between 0.7 and 1.2."""
    a, b, c = _POLYNOMIAL
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (x.norm() + _TINY)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if is_tall else x


def _shared(matrices: list[Tensor]) -> list[Tensor]:
    """Return all matrices made orthogonal; processes take them in turn, so that all have about as much to do."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [orthogonalised(matrix) for matrix in matrices]
    rank, world = dist.get_rank(), dist.get_world_size()
    by_size = sorted(range(len(matrices)), key=lambda number: -matrices[number].numel())
    own = set(by_size[rank::world])
    made = [orthogonalised(m) if number in own else torch.zeros_like(m) for number, m in enumerate(matrices)]
    together = torch.cat([matrix.flatten() for matrix in made])
    dist.all_reduce(together)
    parts = together.split([matrix.numel() for matrix in matrices])
    return [part.view_as(matrix) for part, matrix in zip(parts, matrices, strict=True)]
