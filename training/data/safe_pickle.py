"""Reads pickles of plain data and NumPy arrays without running anything that a pickle may ask for.

A pickle is a program. `pickle.Unpickler` runs it, but asks `find_class` for everything that it calls. Here that answers
with builders of our own for the dozen names that NumPy's arrays need, and with an error for every other name. Not even
NumPy's own reconstruction functions are called, since some of them trust their input.
"""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from streampetr_core.errors import StreampetrError

_ARRAY_KINDS = "biufcSUO"  # bool, numbers, texts; O only ever holds what this reader made


def load_plain_pickle(path: Path) -> Any:
    """Return what a pickle (protocols 0 to 5, NumPy 1 or 2) holds: built-in containers, numbers, texts and arrays.

    An array comes as something that `numpy.asarray` turns into one.

    Raises:
        StreampetrError: no pickle, or one that asks for anything else; nothing of it was executed.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except pickle.UnpicklingError as error:
        raise StreampetrError(f"{path}: not read, nothing in it was executed: {error}") from error
    except Exception as error:  # broken pickles fail in every way that a wrong program can
        raise StreampetrError(f"{path}: a damaged pickle ({type(error).__name__}: {error})") from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core.", "numpy.core.", 1).replace("__builtin__", "builtins")
        builder = _BUILDERS.get((module, name))
        if builder is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is neither data nor a NumPy array")
        return builder

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError(f"it refers to something outside of itself ({pid!r})")


class _Builder:
    """A callable that a pickle can call but not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"it tries to change {name} of a builder")


class _Dtype:
    """A NumPy type as pickled: a code such as f8, and the byte order that follows in a second step."""

    def __init__(self, code: Any) -> None:
        self._code = code.decode() if isinstance(code, bytes) else str(code)
        self._order = "="
        self.resolve()

    def __setstate__(self, state: Any) -> None:
        order, subarray, names = state[1], state[2], state[3]
        order = order.decode() if isinstance(order, bytes) else order
        if order not in ("<", ">", "=", "|") or subarray is not None or names is not None:
            raise pickle.UnpicklingError("it holds arrays of records")
        self._order = order

    def resolve(self) -> np.dtype:
        dtype = np.dtype(self._code)
        if dtype.kind not in _ARRAY_KINDS or dtype.names is not None or dtype.subdtype is not None:
            raise pickle.UnpicklingError(f"it holds arrays of type {self._code}")
        return dtype if self._order == "|" else dtype.newbyteorder(self._order)


class _Array:
    """A NumPy array as pickled: empty at first, its contents follow in a second step."""

    def __init__(self) -> None:
        self.value = np.empty(0)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.value if dtype is None else self.value.astype(dtype)

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.value)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran_order, content = state
        self.value = _array(content, dtype, shape, "F" if fortran_order else "C")


def _array(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or order not in ("C", "F"):
        raise pickle.UnpicklingError("it holds an array without a type")
    dtype = dtype.resolve()
    if dtype.kind != "O":
        return np.ndarray(shape, dtype, buffer=bytes(content), order=order)
    array = np.empty(len(content), dtype=object)
    for index, value in enumerate(content):
        array[index] = value
    return array.reshape(shape, order=order)


def _start_array(kind: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _scalar(dtype: Any, content: Any = None) -> Any:
    if not isinstance(content, bytes):
        raise pickle.UnpicklingError("it holds a scalar without content")
    return _array(content, dtype, (), "C")[()]


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.value = _array(content, dtype, shape, order)
    return array


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes bytes as {encoding}")
    return text.encode("latin1")


def _bytearray(content: bytes = b"") -> bytearray:
    # A number would reserve that many bytes.
    return bytearray(content if isinstance(content, bytes) else b"")


_BUILDERS = {
    name: _Builder(function)
    for name, function in {
        ("numpy", "dtype"): lambda code, align=False, copy=True: _Dtype(code),
        ("numpy", "ndarray"): _start_array,
        ("numpy.core.multiarray", "_reconstruct"): _start_array,
        ("numpy.core.multiarray", "scalar"): _scalar,
        ("numpy.core.numeric", "_frombuffer"): _from_buffer,
        ("_codecs", "encode"): _encode,
        ("builtins", "bytearray"): _bytearray,
        ("builtins", "bytes"): lambda content=b"": bytes(_bytearray(content)),
        ("builtins", "set"): lambda items=(): set(items),
        ("builtins", "frozenset"): lambda items=(): frozenset(items),
        ("builtins", "list"): lambda items=(): list(items),
        ("builtins", "tuple"): lambda items=(): tuple(items),
        ("builtins", "dict"): lambda items=(): dict(items),
        ("builtins", "complex"): lambda real=0.0, imaginary=0.0: complex(real, imaginary),
        ("collections", "OrderedDict"): lambda items=(): dict(items),
    }.items()
}
