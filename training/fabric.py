"""Lightning Fabric as this package uses it: devices, processes and mixed precision."""

import os
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from lightning_fabric.strategies import DDPStrategy

from streampetr_core.errors import StreampetrError

_FABRIC_NAMES = {"bf16": "bf16-mixed", "fp16": "16-mixed"}


class _InputsAsTheyAre(MixedPrecision):
    """Autocast that leaves inputs and outputs alone: camera matrices and times need all their digits."""

    def convert_input(self, data: Any) -> Any:
        """Return the inputs unchanged."""
        return data

    def convert_output(self, data: Any) -> Any:
        """Return the outputs unchanged; they are float32 already."""
        return data


def make_fabric(precision: str, devices: int = 0, nodes: int = 1, accelerator: str = "auto") -> Fabric:
    """Return a Fabric that runs on `devices` GPUs (or CPU processes) of each of `nodes` machines.

    Args:
        precision: fp32, bf16 or fp16.
        devices: 0: what torchrun or SLURM say, else all GPUs of this machine, else one CPU process.
        nodes: number of machines; torchrun and SLURM know it themselves.
        accelerator: auto, cuda or cpu.

    Raises:
        StreampetrError: fp16 without a GPU, or no GPU where one is asked for.
    """
    has_gpu = torch.cuda.is_available()
    if accelerator == "cuda" and not has_gpu:
        raise StreampetrError("no CUDA GPU is to be seen; check nvidia-smi, or train with --accelerator cpu")
    kind = accelerator if accelerator != "auto" else "cuda" if has_gpu else "cpu"
    if precision == "fp16" and kind == "cpu":
        raise StreampetrError("fp16 needs a GPU; train with --set training.precision=fp32 (or bf16) on a CPU")
    plugin = Precision() if precision == "fp32" else _InputsAsTheyAre(_FABRIC_NAMES[precision], kind)
    devices, nodes = launched_layout(devices, nodes, torch.cuda.device_count() if kind == "cuda" else 1)
    strategy = "auto"
    if devices * nodes > 1:
        strategy = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
    return Fabric(accelerator=kind, devices=devices, num_nodes=nodes, strategy=strategy, plugins=[plugin])


def launched_layout(devices: int, nodes: int, available: int) -> tuple[int, int]:
    """Return processes of a machine and machines, as the launcher set them up."""
    environment = os.environ
    if "LOCAL_WORLD_SIZE" in environment and "WORLD_SIZE" in environment:  # torchrun
        local = int(environment["LOCAL_WORLD_SIZE"])
        return local, int(environment["WORLD_SIZE"]) // local
    if "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        nodes = int(environment.get("SLURM_NNODES", "1"))
        return int(environment["SLURM_NTASKS"]) // nodes, nodes
    return devices or available, nodes
