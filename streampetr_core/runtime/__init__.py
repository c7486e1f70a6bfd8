"""Running a checkpoint: one interface, `Runtime.step(frame, memory)`, for whatever executes the heavy stages.

`open_runtime` opens the back-end that is asked for, or the best that is installed. `TorchRuntime` is the reference: the
detector as it stands, with which every back-end is compared.
"""

from streampetr_core.runtime.base import Engine, EngineRuntime, Runtime
from streampetr_core.runtime.reference import TorchRuntime
from streampetr_core.runtime.selection import BACKENDS, PRECISIONS, REFERENCE, RuntimeOptions, open_runtime

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "REFERENCE",
    "Engine",
    "EngineRuntime",
    "Runtime",
    "RuntimeOptions",
    "TorchRuntime",
    "open_runtime",
]
