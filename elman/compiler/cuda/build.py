"""CUDA C++ to a cubin, by NVRTC: no GPU and no compiler on the path are needed."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from elman.compiler import cache
from elman.compiler.targets import BuildError
from elman.version import __version__

HEADERS = Path(__file__).parent / "runtime"
SHARED = Path(__file__).parents[1] / "runtime"
"""What every target's code includes: the functions of values."""

FLAGS = ("--std=c++17", "--ptxas-options=-v")

_CMATH = "exp2 expm1 log log1p sin cos asin acos atan sinh cosh asinh acosh atanh erf erfc floor"
CMATH = "\n".join(
    f"namespace std {{ using ::{name}; }}" for name in f"{_CMATH} atan2 nearbyint sqrt".split()
)
"""The header ``cmath``: NVRTC has none, but its functions, in the global namespace."""


@dataclass(frozen=True)
class Built:
    """A cubin, and what the compiler says of it.

    Attributes:
        cubin: what the driver loads.
        log: the compiler's words: warnings, and the registers and memory of each kernel.
    """

    cubin: bytes
    log: str


@dataclass(frozen=True)
class Resources:
    """What one thread of a kernel, or for ``shared`` one block, occupies.

    Attributes:
        registers: of 32 bits.
        shared: bytes of shared memory that are declared in the kernel, without those of the launch.
        stack: bytes of memory for variables that are in no register.
        spill_stores: bytes that are written there because the registers did not suffice.
        spill_loads: bytes that are read back.
    """

    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int


def architecture(major: int, minor: int) -> str:
    """The name of a GPU's architecture by its compute capability: (9, 0) is ``sm_90a``."""
    return f"sm_{major}{minor}{'a' if major >= 9 else ''}"


def compile(source: str, architecture: str = "sm_90a", options: Sequence[str] = ()) -> Built:
    """Compile ``source``, or take what it was compiled to from the cache.

    Args:
        source: CUDA C++ that may include the runtime's headers. Kernels are ``extern "C"``.
        architecture: of the GPU: ``sm_80``, ``sm_90a``, …
        options: NVRTC's, such as ``-DELMAN_REAL=float``.

    Raises:
        BuildError: there is no NVRTC, or it failed.
    """
    flags = [*FLAGS, f"--gpu-architecture={architecture}", *options]
    headers = _headers()
    parts = [source, *(text for header in headers.items() for text in header), "", *flags]
    parts += [str(_nvrtc().identity), __version__]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    try:
        # What has failed once is not tried again at every call.
        if key in _failed:
            raise BuildError(_failed[key])
        kept = cache.content(f"{key}.cubin", lambda path: _keep(source, headers, flags, path))
    except BuildError as why:
        _failed[key] = str(why)
        raise
    log, _, cubin = kept.partition(b"\0")
    return Built(cubin, log.decode(errors="replace"))


_failed: dict[str, str] = {}


def resources(built: Built) -> dict[str, Resources]:
    """What each kernel occupies, by its name, as the compiler's log has it."""

    def number(pattern: str, text: str) -> int:
        found = re.search(rf"(\d+) {pattern}", text)
        return int(found[1]) if found else 0

    # Of a kernel first its name; then the stack and what is spilled; then registers and memory.
    kernels = re.split(r"Compiling entry function '(\w+)' for ", built.log)[1:]
    return {
        name: Resources(
            registers=number("registers", text),
            shared=number("bytes smem", text),
            stack=number("bytes stack frame", text),
            spill_stores=number("bytes spill stores", text),
            spill_loads=number("bytes spill loads", text),
        )
        for name, text in zip(kernels[::2], kernels[1::2], strict=True)
    }


def version() -> str:
    """NVRTC's version and place.

    Raises:
        BuildError: there is none.
    """
    major, minor, place, _ = _nvrtc().identity
    return f"NVRTC {major}.{minor} ({place})"


@functools.cache
def _headers() -> dict[str, str]:
    files = sorted([*HEADERS.glob("*.cuh"), *SHARED.glob("*.hpp")])
    return {"cmath": CMATH} | {path.name: path.read_text(encoding="utf-8") for path in files}


def _keep(source: str, headers: dict[str, str], flags: list[str], path: Path) -> None:
    built = _compile(source, headers, flags)
    with cache.aside(path.parent) as folder:
        made = folder / path.name
        made.write_bytes(built.log.encode() + b"\0" + built.cubin)
        cache.put(made, path)


def _compile(source: str, headers: dict[str, str], flags: list[str]) -> Built:
    library = _nvrtc().library
    texts, names = _strings([*headers.values()]), _strings([*headers])
    program = ctypes.c_void_p()
    _check(
        library.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"cell.cu", len(headers), texts, names
        )
    )
    try:
        failed = library.nvrtcCompileProgram(program, len(flags), _strings(flags))
        log = _content(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
        if failed:
            lines = log.strip().splitlines()
            first = next((line for line in lines if "error" in line), None)
            why = first or (lines[0] if lines else _said(failed))
            raise BuildError(f"NVRTC failed: {why.strip()[:300]}")
        return Built(_content(program, "CUBIN"), log)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _content(program: ctypes.c_void_p, what: str) -> bytes:
    library, size = _nvrtc().library, ctypes.c_size_t()
    _check(getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    content = ctypes.create_string_buffer(size.value)
    _check(getattr(library, f"nvrtcGet{what}")(program, content))
    return content.raw


def _strings(texts: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    encoded = [text.encode() for text in texts]
    return (ctypes.c_char_p * len(encoded))(*encoded)


def _check(code: int) -> None:
    if code:
        raise BuildError(f"NVRTC failed: {_said(code)}")


def _said(code: int) -> str:
    said: bytes = _nvrtc().library.nvrtcGetErrorString(code)
    return said.decode()


# -- the library ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Library:
    library: ctypes.CDLL
    identity: tuple[int, int, str, int]
    """Version, place, size in bytes."""


@functools.cache
def _nvrtc() -> _Library:
    """The first NVRTC that can be loaded.

    Raises:
        BuildError: there is none.
    """
    why = ""
    for path in _candidates():
        try:
            # It would look for its second half on the loader's path alone.
            for half in sorted(path.parent.glob("libnvrtc-builtins*.so*")):
                if ".alt." not in half.name:
                    ctypes.CDLL(str(half), mode=ctypes.RTLD_GLOBAL)
            library = ctypes.CDLL(str(path))
            return _Library(library, _declare(library, path))
        except (OSError, AttributeError) as error:
            why = why or f" ({error})"
    raise BuildError(
        f"no NVRTC, CUDA's compiler, could be loaded{why}: install PyTorch's build for CUDA, "
        "or pip install nvidia-cuda-nvrtc"
    )


def _declare(library: ctypes.CDLL, path: Path) -> tuple[int, int, str, int]:
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    texts = ctypes.POINTER(text)
    size = ctypes.POINTER(ctypes.c_size_t)
    for name, argtypes in {
        "CreateProgram": [pointer, text, text, number, texts, texts],
        "CompileProgram": [pointer, number, texts],
        "DestroyProgram": [pointer],
        "GetProgramLogSize": [pointer, size],
        "GetProgramLog": [pointer, text],
        "GetCUBINSize": [pointer, size],
        "GetCUBIN": [pointer, text],
        "Version": [ctypes.POINTER(number), ctypes.POINTER(number)],
        "GetErrorString": [number],
    }.items():
        function = getattr(library, f"nvrtc{name}")
        function.argtypes, function.restype = argtypes, number
    library.nvrtcGetErrorString.restype = text
    major, minor = number(), number()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value, str(path), path.stat().st_size


def _candidates() -> Iterator[Path]:
    """Where NVRTC may be: what PyTorch brings, a package of its own, the system's."""
    places = []
    nvidia = importlib.util.find_spec("nvidia")
    for location in (nvidia and nvidia.submodule_search_locations) or ():
        places += sorted(Path(location).glob("*/lib"))
    places.append(Path(torch.__file__).parent / "lib")
    for name in (os.environ.get("CUDA_HOME"), "/usr/local/cuda"):
        places += [Path(name) / part for part in ("lib64", "lib")] if name else []
    places += [Path("/usr/lib") / f"{os.uname().machine}-linux-gnu", Path("/usr/lib64")]
    wanted = (torch.version.cuda or "13").partition(".")[0]
    for place in places:
        found = [path for path in place.glob("libnvrtc*.so*") if _NVRTC.fullmatch(path.name)]
        # A driver that runs PyTorch's CUDA runs kernels of the same version.
        yield from sorted(found, key=lambda path: f".so.{wanted}" not in path.name)


_NVRTC = re.compile(r"libnvrtc(-[0-9a-f]{8})?\.so(\.[\d.]+)?")
