"""Source to a loaded library: the system's compiler, and a cache private to the user."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

HEADERS = Path(__file__).parent / "engine"
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-ffp-contract=fast", "-w")


_log = logging.getLogger(__name__)

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
        try:
            command = shlex.split(named)[0]
        except (ValueError, IndexError):  # a quotation without an end; blanks
            command = named
        if shutil.which(command) is None:
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
    """The compiler's version line.

    Raises:
        BuildError: there is no compiler, or it cannot be run.
    """
    done = _run([*shlex.split(compiler()), "--version"])
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
        threads: whether it uses PyTorch's threads.

    Raises:
        BuildError: there is no compiler, or it failed.
    """
    extra = shlex.split(os.environ.get("ELMAN_CXXFLAGS", ""))
    command = [
        *shlex.split(compiler()), *FLAGS, *machine_flags(), f"-DELMAN_REAL={REALS[real]}", *extra
    ]  # fmt: skip
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
    try:
        # What has failed once is not tried again at every call.
        if key in _failed:
            raise BuildError(_failed[key])
        return _library(key, lambda path: _compile(command, source, path, threads))
    except BuildError as why:
        _failed[key] = str(why)
        raise


_failed: dict[str, str] = {}


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
        ("elman_step", [pointer]),
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


def machine_flags() -> list[str]:
    """The flags that name the processor: this one, or what ``ELMAN_MARCH`` names."""
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


def _library(name: str, make: Callable[[Path], None]) -> ctypes.CDLL:
    """A library from the cache, or else, with a warning, from a folder of this process."""
    folder = cache_folder()
    try:
        return _cached(folder, name, make)
    except OSError as error:
        why = _said(error)
    try:
        library = _cached(_temporary(), name, make)
    except OSError as error:
        raise BuildError(
            f"libraries can be kept neither in {folder} ({why}) nor for this process alone "
            f"({_said(error)}); name a folder with space in ELMAN_CACHE"
        ) from None
    _warn(folder, why)
    return library


def _cached(folder: Path, name: str, make: Callable[[Path], None]) -> ctypes.CDLL:
    path = folder / f"{name}.so"
    found = _load(path)
    if found is None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _lock(folder / f"{name}.lock"):
            found = _load(path)  # another process may have made it meanwhile
            if found is None:
                _announce(folder)
                make(path)
                found = ctypes.CDLL(str(path))
    return found


@functools.cache
def _announce(folder: Path) -> None:
    """Say once why the first call takes so long, to who listens, as the command line does."""
    _log.info("compiling kernels for this processor, to be kept in %s …", folder)


def _load(path: Path) -> ctypes.CDLL | None:
    """The library that is there, unless it was cut short or is for another machine.

    Raises:
        PermissionError: others may have written it.
    """
    try:
        owners = {path.parent.stat().st_uid, path.stat().st_uid}
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if not owners <= {os.getuid(), 0}:
        raise PermissionError(f"{path.parent} belongs to another user")
    # A part of a library would not be refused by the loader, but end the process.
    if content[-_DIGEST:] != _digest(content[:-_DIGEST]):
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def is_marked(name: str) -> bool:
    """Whether :func:`mark` was called with this name, in this process or in one of before."""
    try:
        return name in _marks or (cache_folder() / f"{name}.checked").exists()
    except OSError:
        return False


def mark(name: str) -> None:
    """Remember a name beside the libraries, so that what has been checked is not checked again."""
    _marks.add(name)
    with contextlib.suppress(OSError):
        (cache_folder() / f"{name}.checked").touch()


_marks: set[str] = set()

_DIGEST = hashlib.sha256().digest_size


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _compile(command: list[str], source: str, path: Path, threads: bool) -> None:
    """Make the library, with its digest after its end, and move it into place."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        written, made = Path(folder) / "cell.cpp", Path(folder) / "cell.so"
        written.write_text(source)
        # Linked by its path, PyTorch's library of threads is the only one.
        libraries = [openmp()] if threads else []
        done = _run(
            [*command, "-shared", f"-I{HEADERS}", str(written), *libraries, "-o", str(made)]
        )
        if "No space left on device" in done.stderr:
            raise OSError(errno.ENOSPC, "No space left on device")
        if done.returncode == 0 and not made.exists():
            raise BuildError(f"{command[0]} made no library: set CXX to a C++ compiler")
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            first = next((line for line in lines if "error" in line), lines[0])
            raise BuildError(f"{command[0]} failed: {first.strip()[:300]}")
        with made.open("ab") as file:
            file.write(_digest(made.read_bytes()))
        os.replace(made, path)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run ({_said(error)})") from None


def _said(error: OSError) -> str:
    return error.strerror or str(error)


@functools.cache
def _temporary() -> Path:
    made = tempfile.TemporaryDirectory(prefix="elman-")
    _kept.append(made)
    return Path(made.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def cache_trouble() -> str | None:
    """One sentence on why libraries cannot be kept in the cache folder, or None where they can."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))  # about a library
            file.flush()
        return None
    except OSError as error:
        return _trouble(folder, _said(error))


def _trouble(folder: Path, why: str) -> str:
    return (
        f"the cache folder {folder} cannot be used ({why}): kernels are built anew in every "
        "process; name another folder in ELMAN_CACHE."
    )


@functools.cache
def _warn(folder: Path, why: str) -> None:
    from elman.compiler.engine import EngineWarning

    warnings.warn(_trouble(folder, why), EngineWarning, stacklevel=2)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
