"""PyTorch on a GPU with CUDA graphs: the kernels of a stage are recorded once and replayed as one launch."""

from collections.abc import Callable

import torch
from torch import Tensor

from streampetr_core.detector import Detector
from streampetr_core.errors import StreampetrError
from streampetr_core.position import Geometry
from streampetr_core.queries import Queries
from streampetr_core.runtime.stages import decoder_arguments
from streampetr_core.runtime.torch_engine import TorchEngine

_WARM_UPS = 3  # before a recording, so that libraries have chosen their algorithms and allocated their workspaces
_MOST_GRAPHS = 8  # of each stage: one for each number of cameras that is met


class CudaGraphEngine:
    """`TorchEngine` whose stages replay as CUDA graphs; a new number of cameras is recorded when it is met."""

    encodes_singly = False  # one image leaves most of a GPU idle
    temporal = None

    def __init__(self, detector: Detector, precision: str, device: torch.device) -> None:
        if device.type != "cuda":
            raise StreampetrError(f"runtime 'cuda_graph' needs an NVIDIA GPU, not '{device}'; use runtime torch")
        self._eager = TorchEngine(detector, precision, device)
        self.device, self.dtype, self.arithmetic = device, self._eager.dtype, self._eager.arithmetic
        self.description = f"CUDA graphs {precision} on {torch.cuda.get_device_name(device)}"
        pool = torch.cuda.graph_pool_handle()
        self._encode = _Replayed(self._eager.encode, device, pool)
        self._decode = _Replayed(self._decode_tensors, device, pool)

    def encode(self, images_N3HW: Tensor) -> Tensor:
        """Map normalised images to features (N, C, h, w) in the engine's type."""
        return self._encode(images_N3HW)

    def decode(self, features_BNChw: Tensor, geometry: Geometry, queries: Queries) -> Tensor:
        """Return the normed output of the last decoder layer, float32 (B, Q, C)."""
        return self._decode(*decoder_arguments(features_BNChw, geometry, queries))

    def _decode_tensors(self, *tensors: Tensor) -> Tensor:
        features, position, gamma, beta, *queries = tensors
        content, query_position, memory, memory_position = queries
        unused = content[..., :0]  # boxes are made outside
        return self._eager.decode(
            features,
            Geometry(position, gamma, beta),
            Queries(content, query_position, unused, memory, memory_position, unused),
        )


class _Replayed:
    """A function of tensors, recorded once for each set of shapes; results are copies, so that they last."""

    def __init__(self, function: Callable[..., Tensor], device: torch.device, pool: tuple[int, int]) -> None:
        self._function, self._device, self._pool = function, device, pool
        self._graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]] = {}

    def __call__(self, *arguments: Tensor) -> Tensor:
        key = tuple((tuple(x.shape), x.dtype) for x in arguments)
        if key not in self._graphs:
            if len(self._graphs) == _MOST_GRAPHS:
                return self._function(*arguments)
            self._graphs[key] = self._record(arguments)
        graph, inputs, output = self._graphs[key]
        for kept, given in zip(inputs, arguments, strict=True):
            if kept.data_ptr() != given.data_ptr():
                kept.copy_(given)
        graph.replay()
        return output.clone()

    def _record(self, arguments: tuple[Tensor, ...]) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]:
        inputs = tuple(x.clone() for x in arguments)
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._function(*inputs)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = self._function(*inputs)
        return graph, inputs, output
