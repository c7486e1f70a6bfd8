"""Where weights come from: what a checkpoint says of the run that it was learned in."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from training.plan import Plan
from training.recipe import Recipe

_ROOT = Path(__file__).resolve().parents[1]


def provenance(recipe: Recipe, plan: Plan, fabric: Fabric) -> dict[str, Any]:
    """Return what is known of a run before its first step, as plain values."""
    return {
        "recipe": recipe.to_dict(),
        "steps": plan.steps,
        "steps_per_epoch": plan.steps_per_epoch,
        "num_samples": plan.num_samples,
        "hardware": f"{fabric.world_size} x {device_name(fabric.device)}",
        "software": ", ".join((_package(), f"PyTorch {torch.__version__}", f"Python {platform.python_version()}")),
        "commit": _commit(),
    }


def device_name(device: torch.device) -> str:
    """Return what a device is called by its maker."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"CPU ({names[0] if names else platform.machine()})"


def _package() -> str:
    try:
        return f"streampetr_ros {version('streampetr_ros')}"
    except PackageNotFoundError:  # run from its sources
        return "streampetr_ros"


def _commit() -> str:
    """Return the commit of the sources, marked where files differ from it; empty where that is not known."""
    if not (_ROOT / ".git").exists():  # installed; a repository further up is none of ours
        return ""
    commit = _git("rev-parse", "HEAD")
    return f"{commit} with changes" if commit and _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*words: str) -> str:
    try:
        return subprocess.run(
            ("git", "-C", str(_ROOT), *words), capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
