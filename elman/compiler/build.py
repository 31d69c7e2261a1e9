"""Source to a loaded library: the system's compiler, and a cache private to the user."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

HEADERS = Path(__file__).parent / "engine"
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-w")


REALS = {torch.float32: "float", torch.float64: "double"}
"""The types of number that there are kernels for, and their names in C++."""


class BuildError(Exception):
    """The native engine cannot be built here; the message says why and what to do."""


@functools.cache
def compiler() -> str:
    """The C++ compiler: what ``CXX`` names, or else g++ or clang++.

    Raises:
        BuildError: there is none.
    """
    named = os.environ.get("CXX")
    if named:
        if shutil.which(shlex.split(named)[0]) is None:
            raise BuildError(
                f"CXX names {named!r}, which is no command here: set CXX to a C++ compiler"
            )
        return named
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name):
            return name
    install = {
        "Darwin": "xcode-select --install",
        "Linux": "apt-get install g++ (or dnf install gcc-c++)",
    }
    raise BuildError(
        "no C++ compiler was found; install one with "
        f"{install.get(platform.system(), 'your package manager')}, or name one in CXX"
    )


@functools.cache
def version() -> str:
    """The compiler's version line."""
    done = subprocess.run(
        [*shlex.split(compiler()), "--version"], capture_output=True, text=True, check=False
    )
    return done.stdout.splitlines()[0] if done.stdout else compiler()


@functools.cache
def cpu() -> str:
    """What distinguishes this processor from another that the cache may also serve."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", text, re.M)
    return "\n".join(sorted(set(kept)))


@functools.cache
def openmp() -> str:
    """The path of the OpenMP library that PyTorch has loaded: there is to be no second one.

    Raises:
        BuildError: PyTorch has none.
    """
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        maps = ""
    for name in ("libgomp", "libomp", "libiomp5"):
        found = re.search(rf"\S*/{name}[^/\s]*\.so\S*", maps)
        if found:
            return found.group()
    raise BuildError("PyTorch has loaded no OpenMP library whose threads could be shared")


def cache_folder() -> Path:
    """Where libraries are kept: ``$ELMAN_CACHE``, or ``elman`` in the user's cache folder."""
    named = os.environ.get("ELMAN_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elman"


def build(source: str, real: torch.dtype, *, threads: bool = False) -> ctypes.CDLL:
    """Compile ``source`` for one type of number, or take it from the cache.

    Args:
        source: C++ that may include the engine's headers.
        real: the type of its numbers.
        threads: whether it uses OpenMP.

    Raises:
        BuildError: there is no compiler, or it failed.
    """
    command = [*shlex.split(compiler()), *FLAGS, *_machine(), f"-DELMAN_REAL={REALS[real]}"]
    parts = [
        source,
        openmp() if threads else "",
        *_headers(),
        " ".join(command),
        version(),
        cpu(),
        _package_version(),
    ]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    folder = _usable(cache_folder())
    path = folder / f"{key}.so"
    if not path.exists():
        with _lock(folder / f"{key}.lock"):
            if not path.exists():  # another process may have made it meanwhile
                _compile(command, source, path, threads)
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        # Cut short by a full disk, or for another machine: make it anew.
        with _lock(folder / f"{key}.lock"):
            path.unlink(missing_ok=True)
            _compile(command, source, path, threads)
        return ctypes.CDLL(str(path))


@functools.cache
def engine(real: torch.dtype) -> ctypes.CDLL:
    """The engine's library for one type of number.

    Raises:
        BuildError: it cannot be built here.
    """
    library = build((HEADERS / "engine.cpp").read_text(), real, threads=True)
    pointer, number = ctypes.c_void_p, ctypes.c_long
    for name, arguments in (
        ("elman_run", [pointer]),
        ("elman_chain", [pointer, number, number]),
        ("elman_product", [pointer, number]),
        ("elman_sum_rows", [pointer, number, number, number, pointer, number]),
        ("elman_scan", [pointer, number, number]),
        ("elman_packed_size", [number] * 2),
        ("elman_pack", [pointer, *[number] * 4, pointer, number]),
        ("elman_vector_bytes", []),
    ):
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = number
    return library


def _machine() -> list[str]:
    named = os.environ.get("ELMAN_MARCH", "native")
    flag = "-mcpu" if platform.machine() in ("aarch64", "arm64") else "-march"
    wide = ["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []
    return [f"{flag}={named}", *wide]


@functools.cache
def _headers() -> tuple[str, ...]:
    return tuple(path.read_text() for path in sorted(HEADERS.glob("*.hpp")))


def _package_version() -> str:
    from elman import __version__

    return __version__


def _compile(command: list[str], source: str, path: Path, threads: bool) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        written, made = Path(folder) / "cell.cpp", Path(folder) / "cell.so"
        written.write_text(source)
        if threads:
            # Linked by its path and without -fopenmp, PyTorch's library is the only one.
            part = Path(folder) / "cell.o"
            _call([*command, "-fopenmp", "-c", f"-I{HEADERS}", str(written), "-o", str(part)])
            _call([*shlex.split(compiler()), "-shared", str(part), openmp(), "-o", str(made)])
        else:
            _call([*command, "-shared", f"-I{HEADERS}", str(written), "-o", str(made)])
        os.replace(made, path)


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.splitlines()
        first = next((x for x in lines if "error" in x), done.stderr[:300])
        raise BuildError(f"{command[0]} failed: {first.strip()}")


def _usable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user")
        with tempfile.NamedTemporaryFile(dir=folder):
            return folder
    except OSError as error:
        return _temporary(str(folder), str(error))


@functools.cache
def _temporary(folder: str, why: str) -> Path:
    from elman.compiler.engine import EngineWarning

    made = tempfile.TemporaryDirectory(prefix="elman-")
    _kept.append(made)
    warnings.warn(
        f"the cache folder {folder} cannot be used ({why}): kernels are built anew in every "
        "process; name another folder in ELMAN_CACHE.",
        EngineWarning,
        stacklevel=2,
    )
    return Path(made.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
