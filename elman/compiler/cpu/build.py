"""Source to a loaded library: the system's compiler, its flags and what they depend on."""

from __future__ import annotations

import ctypes
import errno
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import torch

from elman.compiler import cache
from elman.compiler.cpu import layouts
from elman.compiler.targets import BuildError
from elman.version import __version__

HEADERS = Path(__file__).parent / "runtime"
SHARED = Path(__file__).parents[1] / "runtime"
"""What every target's code includes: the functions of values."""

FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-ffp-contract=fast", "-w")

REALS = {torch.float32: "float", torch.float64: "double"}
"""The types of number that there are kernels for, and their names in C++."""


@functools.cache
def compiler() -> str:
    """The C++ compiler, as a shell reads it: what ``CXX`` names, or else g++ or clang++.

    Raises:
        BuildError: there is none.
    """
    named = os.environ.get("CXX")
    if named:
        if shutil.which(named):  # a path may have spaces in it
            return shlex.quote(named)
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
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", text, re.M)
    return "\n".join(sorted(set(kept)))


@functools.cache
def openmp() -> str:
    """The path of the OpenMP library that PyTorch has loaded: there is to be no second one.

    Raises:
        BuildError: PyTorch has none, or it is no longer where it was.
    """
    # Others, such as scikit-learn, bring one of theirs, whose threads are not PyTorch's.
    home = os.path.dirname(torch.__file__)
    loaded = sorted(_loaded(), key=lambda path: not path.startswith(home))
    for name in ("libgomp", "libomp", "libiomp5"):
        for path in loaded:
            if re.match(rf"{name}[^/]*\.so", os.path.basename(path)):
                if not os.path.exists(path):
                    raise BuildError(
                        f"PyTorch's OpenMP library {path.removesuffix(_DELETED)} was replaced "
                        "while this process ran: start it again"
                    )
                return path
    raise BuildError("PyTorch has loaded no OpenMP library whose threads could be shared")


def _loaded() -> list[str]:
    """The files that are mapped into this process, in whatever characters their names have."""
    try:
        lines = Path("/proc/self/maps").read_bytes().split(b"\n")
    except OSError:
        return []
    # address, permissions, offset, device, inode; what is left is the name, with spaces or without
    names = [fields[5] for line in lines if len(fields := line.split(None, 5)) == 6]
    plain = [os.fsdecode(name.replace(rb"\012", b"\n")) for name in dict.fromkeys(names)]
    return [name for name in plain if name.startswith("/")]


_DELETED = " (deleted)"


def build(source: str, real: torch.dtype, *, threads: bool = False) -> ctypes.CDLL:
    """Compile ``source`` for one type of number, or take it from the cache.

    Args:
        source: C++ that may include the runtime's headers.
        real: the type of its numbers.
        threads: whether it uses PyTorch's threads.

    Raises:
        BuildError: there is no compiler, or it failed.
    """
    command = [
        *shlex.split(compiler()), *FLAGS, *machine_flags(), f"-DELMAN_REAL={REALS[real]}",
        *_further_flags(),
    ]  # fmt: skip
    parts = [
        source,
        openmp() if threads else "",
        *_headers(),
        " ".join(command),
        version(),
        cpu(),
        __version__,
    ]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    try:
        # What has failed once is not tried again at every call.
        if key in _failed:
            raise BuildError(_failed[key])
        return cache.library(key, lambda path: _compile(command, source, path, threads))
    except BuildError as why:
        _failed[key] = str(why)
        raise


_failed: dict[str, str] = {}


@functools.cache
def runtime(real: torch.dtype) -> ctypes.CDLL:
    """The library of loops, products and threads, for one type of number.

    Raises:
        BuildError: it cannot be built here.
    """
    source = (HEADERS / "runtime.cpp").read_text(encoding="utf-8")
    library = build(source + layouts.agreement(), real, threads=True)
    for entry in layouts.ENTRIES:
        getattr(library, entry).argtypes = [ctypes.c_void_p]
    for entry in (*layouts.ENTRIES, "elman_block", "elman_vector_bytes"):
        getattr(library, entry).restype = ctypes.c_long
    return library


def machine_flags() -> list[str]:
    """The flags that name the processor: this one, or what ``ELMAN_MARCH`` names."""
    named = os.environ.get("ELMAN_MARCH", "native")
    flag = "-mcpu" if platform.machine() in ("aarch64", "arm64") else "-march"
    wide = ["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []
    return [f"{flag}={named}", *wide]


def _further_flags() -> list[str]:
    named = os.environ.get("ELMAN_CXXFLAGS", "")
    try:
        return shlex.split(named)
    except ValueError as error:
        raise BuildError(
            f"ELMAN_CXXFLAGS is {named!r} ({str(error).lower()}): expected flags as a shell reads "
            "them"
        ) from None


def includes() -> list[str]:
    """The flags that name the folders of the runtime's headers."""
    return [f"-I{HEADERS}", f"-I{SHARED}"]


def _header_files() -> list[Path]:
    return sorted([*HEADERS.glob("*.hpp"), *SHARED.glob("*.hpp")])


@functools.cache
def _headers() -> tuple[str, ...]:
    return tuple(path.read_text(encoding="utf-8") for path in _header_files())


def _compile(command: list[str], source: str, path: Path, threads: bool) -> None:
    """Make the library aside, and move it into place."""
    with cache.aside(path.parent) as folder:
        written, made = folder / "cell.cpp", folder / "cell.so"
        written.write_text(source, encoding="utf-8")
        # Linked by its path, PyTorch's library of threads is the only one.
        libraries = [openmp()] if threads else []
        done = _run(
            [*command, "-shared", *includes(), str(written), *libraries, "-o", str(made)],
            TMPDIR=str(folder),  # nobody else can write there, as they might elsewhere
        )
        if "No space left on device" in done.stderr:
            raise OSError(errno.ENOSPC, "No space left on device")
        if done.returncode == 0 and not made.exists():
            raise BuildError(f"{command[0]} made no library: set CXX to a C++ compiler")
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            first = next((line for line in lines if "error" in line), lines[0])
            raise BuildError(f"{command[0]} failed: {first.strip()[:300]}")
        cache.put(made, path)


def _run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False,
            env={**os.environ, "LC_ALL": "C", **environment},
        )  # fmt: skip
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run ({cache.said(error)})") from None
