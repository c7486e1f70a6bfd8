"""Where a runtime may run, and what that hardware can do."""

import torch

from streampetr_core.errors import StreampetrError


def choose_device(name: str) -> torch.device:
    """Return the device of a name, or the best for "auto"; raises StreampetrError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise StreampetrError(f"device '{name}' is none that PyTorch knows; use auto, cpu or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise StreampetrError(f"device '{name}' was asked for, but PyTorch finds no CUDA GPU; use auto or cpu")
    return device


def require_cpu(device: torch.device, backend: str) -> None:
    """Raise StreampetrError where a back-end for CPUs was asked for on another device."""
    if device.type != "cpu":
        raise StreampetrError(f"runtime '{backend}' runs on the CPU, not on '{device}'; use device cpu")
