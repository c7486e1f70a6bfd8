"""Back-ends for tests: which are installed, and a checkpoint whose every weight matters."""

import functools
from importlib.util import find_spec

import pytest

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.config import ModelConfig
from tests.core.models import lively_detector, tiny_config

_PACKAGE_OF = {"openvino": "openvino", "onnxruntime": "onnxruntime"}


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed: extra runtime or quantise")


def variant(backend: str, precision: str):
    """Return a test parameter that is skipped where the back-end is not installed."""
    marks = needs(_PACKAGE_OF[backend]) if backend in _PACKAGE_OF else ()
    return pytest.param(backend, precision, marks=marks, id=f"{backend}-{precision}")


def checkpoint_of(detector, config: ModelConfig) -> Checkpoint:
    state = {key: value for key, value in detector.state_dict().items() if not key.endswith("num_batches_tracked")}
    return Checkpoint(config, state, "Apache-2.0", "a test")


@functools.cache
def lively_checkpoint() -> Checkpoint:
    config = tiny_config()
    return checkpoint_of(lively_detector(config), config)
