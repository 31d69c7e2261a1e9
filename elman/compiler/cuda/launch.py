"""Kernels on the GPU, by the driver's own interface: loaded, asked how many fit, launched.

All happens in the context that is current, which has to be PyTorch's of the device: it is once a
tensor was made there, or under ``torch.cuda.device`` after that. A launch can be captured in a
CUDA graph, if the function was taken from its module beforehand.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_void_p

from elman.errors import ElmanError


class LaunchError(ElmanError):
    """The driver refuses; the message says what, and what it calls the reason."""


class Module:
    """A cubin in the current context, until the process ends.

    Raises:
        LaunchError: there is no driver or no context, or the cubin is for another architecture.
    """

    def __init__(self, cubin: bytes):
        context, self._handle = c_void_p(), c_void_p()
        _call("cuCtxGetCurrent", byref(context))
        if not context:
            raise LaunchError("no CUDA context is current: make a tensor on the device first")
        _call("cuModuleLoadData", byref(self._handle), cubin)

    def function(self, name: str) -> Function:
        """The kernel of this name, an ``extern "C"`` function of one struct.

        Raises:
            LaunchError: there is none.
        """
        handle = c_void_p()
        _call("cuModuleGetFunction", byref(handle), self._handle, name.encode(), about=name)
        return Function(name, handle)


class Function:
    """A kernel of a module.

    Attributes:
        name: what it is called.
        parameter_bytes: the size of its parameter; None where the driver is older than CUDA 12.4
            and cannot tell.
    """

    def __init__(self, name: str, handle: c_void_p):
        self.name, self._handle = name, handle
        self.parameter_bytes: int | None = None
        self._shared_bytes = 0  # that it may ask for
        self._cluster = 8  # every GPU with clusters has them of eight blocks
        if hasattr(_driver(), "cuFuncLoad"):
            self._call("cuFuncLoad", handle)  # no later: a graph's capture is no time for it
        if hasattr(_driver(), "cuFuncGetParamInfo"):
            offset, size = c_size_t(), c_size_t()
            self._call("cuFuncGetParamInfo", handle, 0, byref(offset), byref(size))
            self.parameter_bytes = size.value

    def launch(
        self,
        grid: int,
        block: int,
        shared_bytes: int,
        parameters: bytes,
        *,
        stream: int = 0,
        cluster: int = 1,
    ) -> None:
        """Start the kernel, all of its blocks at once, or else all of a cluster.

        Args:
            grid: blocks; without clusters, no more than the GPU holds at a time.
            block: threads of each.
            shared_bytes: of dynamic shared memory, for each block.
            parameters: the struct that the kernel takes.
            stream: ``torch.cuda.current_stream().cuda_stream``.
            cluster: blocks that reach each other's shared memory; a divisor of ``grid``.

        Raises:
            LaunchError: the driver refuses, as it does where the blocks do not fit at once.
        """
        if self.parameter_bytes not in (None, len(parameters)):
            raise LaunchError(
                f"kernel {self.name} was given {len(parameters)} bytes of parameters; "
                f"it takes {self.parameter_bytes}"
            )
        self._allow(shared_bytes, cluster)
        config = _config(grid, block, shared_bytes, stream, cluster, cooperative=cluster == 1)
        # The driver copies them before it returns.
        given = ctypes.create_string_buffer(parameters, len(parameters))
        pointers = (c_void_p * 1)(ctypes.addressof(given))
        self._call("cuLaunchKernelEx", byref(config), self._handle, pointers, None)

    def blocks_per_multiprocessor(self, block: int, shared_bytes: int) -> int:
        """How many blocks of so many threads and bytes a multiprocessor holds at a time.

        Raises:
            LaunchError: the driver refuses, as it does if the GPU has not so much memory.
        """
        self._allow(shared_bytes, 1)
        found = c_int()
        query = "cuOccupancyMaxActiveBlocksPerMultiprocessor"
        self._call(query, byref(found), self._handle, block, shared_bytes)
        return found.value

    def clusters(self, grid: int, block: int, shared_bytes: int, cluster: int) -> int:
        """How many clusters of so many blocks the GPU holds at a time.

        Raises:
            LaunchError: the driver refuses, as it does on a GPU without clusters.
        """
        self._allow(shared_bytes, cluster)
        config = _config(grid, block, shared_bytes, 0, cluster, cooperative=False)
        found = c_int()
        self._call("cuOccupancyMaxActiveClusters", byref(found), self._handle, byref(config))
        return found.value

    def _allow(self, shared_bytes: int, cluster: int) -> None:
        if shared_bytes > self._shared_bytes:
            self._call("cuFuncSetAttribute", self._handle, MAX_DYNAMIC_SHARED, shared_bytes)
            self._shared_bytes = shared_bytes
        if cluster > self._cluster:
            self._call("cuFuncSetAttribute", self._handle, NON_PORTABLE_CLUSTER, 1)
            self._cluster = cluster

    def _call(self, name: str, *arguments: object) -> None:
        _call(name, *arguments, about=self.name)


# -- the driver -----------------------------------------------------------------------------------

MAX_DYNAMIC_SHARED, NON_PORTABLE_CLUSTER = 8, 14  # of CUfunction_attribute
COOPERATIVE, CLUSTER_DIMENSION = 2, 4  # of CUlaunchAttributeID


class Value(ctypes.Union):
    """``CUlaunchAttributeValue``, of which there is what we use."""

    _fields_ = (("pad", ctypes.c_char * 64), ("cooperative", c_int), ("cluster", c_uint * 3))


class Attribute(ctypes.Structure):
    """``CUlaunchAttribute``."""

    _fields_ = (("id", c_int), ("pad", ctypes.c_char * 4), ("value", Value))


class Config(ctypes.Structure):
    """``CUlaunchConfig``."""

    _fields_ = (
        ("grid", c_uint * 3),
        ("block", c_uint * 3),
        ("shared_bytes", c_uint),
        ("stream", c_void_p),
        ("attributes", POINTER(Attribute)),
        ("count", c_uint),
    )


def _config(
    grid: int, block: int, shared_bytes: int, stream: int, cluster: int, *, cooperative: bool
) -> Config:
    attributes = _attributes(cluster, cooperative)
    return Config((grid, 1, 1), (block, 1, 1), shared_bytes, stream, attributes, len(attributes))


@functools.cache
def _attributes(cluster: int, cooperative: bool) -> ctypes.Array[Attribute]:
    found = []
    if cooperative:
        found.append(Attribute(COOPERATIVE, value=Value(cooperative=1)))
    if cluster > 1:
        found.append(Attribute(CLUSTER_DIMENSION, value=Value(cluster=(cluster, 1, 1))))
    return (Attribute * len(found))(*found)


_LIBRARY = "libcuda.so.1"

_SIGNATURES: dict[str, Sequence[type]] = {
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuCtxGetCurrent": (POINTER(c_void_p),),
    "cuModuleLoadData": (POINTER(c_void_p), c_char_p),
    "cuModuleGetFunction": (POINTER(c_void_p), c_void_p, c_char_p),
    "cuFuncSetAttribute": (c_void_p, c_int, c_int),
    "cuOccupancyMaxActiveBlocksPerMultiprocessor": (POINTER(c_int), c_void_p, c_int, c_size_t),
    "cuOccupancyMaxActiveClusters": (POINTER(c_int), c_void_p, POINTER(Config)),
    "cuLaunchKernelEx": (POINTER(Config), c_void_p, POINTER(c_void_p), POINTER(c_void_p)),
    # since CUDA 12.4
    "cuFuncLoad": (c_void_p,),
    "cuFuncGetParamInfo": (c_void_p, c_size_t, POINTER(c_size_t), POINTER(c_size_t)),
}


@functools.cache
def _driver() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise LaunchError(f"NVIDIA's driver cannot be loaded ({error}): install it") from None
    for name, argtypes in _SIGNATURES.items():
        if hasattr(library, name):
            function = getattr(library, name)
            function.argtypes, function.restype = argtypes, c_int
    return library


def _call(name: str, *arguments: object, about: str = "") -> None:
    driver = _driver()
    try:
        function = getattr(driver, name)
    except AttributeError:
        raise LaunchError(
            f"NVIDIA's driver has no {name}: install one of CUDA 12 or later"
        ) from None
    code = function(*arguments)
    if code:
        kernel = f" of kernel {about}" if about else ""
        raise LaunchError(f"{name}{kernel} failed with {_said(code)}")


def _said(code: int) -> str:
    """The driver's name of an error and its words."""
    name, words = c_char_p(), c_char_p()
    _driver().cuGetErrorName(code, byref(name))
    _driver().cuGetErrorString(code, byref(words))
    if name.value is None:
        return f"error {code}"
    return f"{name.value.decode()} ({(words.value or b'').decode()})"
