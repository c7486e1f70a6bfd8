"""What training tells: a line of JSON now and then, and TensorBoard's curves where that is installed."""

import math
import resource
import sys
import time

import torch
from lightning_fabric import Fabric

from streampetr_core.errors import StreampetrError
from training.plan import Plan
from training.run_folder import RunFolder
from training.step import StepReport

_MEGA = 2**20


class Logs:
    """Collects the reports of steps and writes their means over steps and ranks."""

    def __init__(self, folder: RunFolder, fabric: Fabric, plan: Plan, is_scaled: bool) -> None:
        """Start the clock; `is_scaled` tells that single overflowing gradients are no fault (fp16)."""
        self._folder, self._fabric, self._plan, self._is_scaled = folder, fabric, plan, is_scaled
        self._board = _tensorboard(folder) if fabric.is_global_zero else None
        self._reports: list[StepReport] = []
        self._start = time.perf_counter()

    def add(self, report: StepReport) -> None:
        """Keep the report of a step."""
        self._reports.append(report)

    def write(self, steps_done: int, rate: float) -> float:
        """Write the means of the steps since the last call; return the mean loss. All ranks must call it together.

        Raises:
            StreampetrError: the gradient was not finite.
        """
        reports, count = self._reports, len(self._reports)
        names = list(reports[0].losses)
        losses = torch.stack([torch.stack([r.losses[name].float() for name in names]) for r in reports]).mean(dim=0)
        times = losses.new_tensor([sum(r.data_wait for r in reports) / count])
        means = self._fabric.all_reduce(torch.cat([losses, times]), reduce_op="mean").tolist()
        norm = float(reports[-1].gradient_norm)
        if not math.isfinite(norm) and not self._is_scaled:
            raise StreampetrError(
                f"step {steps_done}: the gradient is {norm}, though every loss is finite; resume in float32 (--set "
                "training.precision=fp32), or begin a run from the last weights with a lower learning rate"
            )
        now = time.perf_counter()
        record = {
            "step": steps_done - 1,
            "epoch": steps_done / self._plan.steps_per_epoch,
            "loss": math.fsum(means[:-1]),
            "lr": rate,
            "grad_norm": norm,
            "data_wait": means[-1],
            "step_time": (now - self._start) / count,
            "memory_mb": peak_memory_mb(self._fabric.device),
            **dict(zip(names, means, strict=False)),
        }
        self._reports, self._start = [], now
        self._emit(record)
        return record["loss"]

    def write_validation(self, steps_done: int, loss: float) -> None:
        """Write the loss of the validation split."""
        self._emit({"step": steps_done - 1, "epoch": steps_done / self._plan.steps_per_epoch, "val_loss": loss})
        self._start = time.perf_counter()

    def _emit(self, record: dict[str, float]) -> None:
        self._folder.log(record)
        if self._board is not None:
            for name, value in record.items():
                if name not in ("step", "epoch"):
                    self._board.add_scalar(name, value, record["step"])
            self._board.flush()


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory that was ever in use: of the GPU, or on a CPU of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MEGA
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MEGA if sys.platform == "darwin" else peak / 1024


def _tensorboard(folder: RunFolder):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder.path / "tensorboard")
