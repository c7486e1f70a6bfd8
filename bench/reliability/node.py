"""The node as users run it, but for a switch that makes its model fail."""

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import torch

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.frame import Frame
from streampetr_core.heads import Predictions
from streampetr_core.memory import Memory
from streampetr_core.runtime import Runtime, RuntimeOptions, open_runtime
from streampetr_ros.node import StreampetrNode, main

FAILS, NO_MEMORY = 1, 2


class Switch(Protocol):
    """A number that two processes share."""

    value: int


class FailingRuntime:
    """A runtime that fails in the way that the switch says."""

    def __init__(self, switch: Switch, checkpoint: Checkpoint, options: RuntimeOptions) -> None:
        self._switch = switch
        self._runtime: Runtime = open_runtime(checkpoint, options)
        self.config, self.device = self._runtime.config, self._runtime.device
        self.description, self.encodes_singly = self._runtime.description, self._runtime.encodes_singly
        self.fresh_memory, self.encode = self._runtime.fresh_memory, self._runtime.encode

    def step(self, frame: Frame, memory: Memory) -> tuple[Predictions, Memory]:
        """Run the model, or fail."""
        self._fail()
        return self._runtime.step(frame, memory)

    def detect(self, features_NChw: torch.Tensor, frame: Frame, memory: Memory) -> tuple[Predictions, Memory]:
        """Run the model behind the encoder, or fail."""
        self._fail()
        return self._runtime.detect(features_NChw, frame, memory)

    def _fail(self) -> None:
        if self._switch.value == FAILS:
            raise ZeroDivisionError("a fault of the benchmark")
        if self._switch.value == NO_MEMORY:
            torch.empty(2**50)


def run(switch: Any, parameters: dict[str, object], log: str) -> None:
    """Be the node until SIGINT; for a process of its own."""
    sys.argv = ["streampetr_node", "--ros-args", *_overrides(parameters)]
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.set_num_threads(1)
    sys.exit(main(partial(StreampetrNode, open_model=partial(FailingRuntime, switch))))


def _overrides(parameters: dict[str, object]) -> Sequence[str]:
    return [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
