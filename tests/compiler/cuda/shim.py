"""Kernels on the CPU: the functions of ``elman.compiler.cuda.launch``, over ``shim.hpp``."""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from elman.compiler.cpu.build import compiler
from elman.compiler.cuda.build import HEADERS, SHARED
from elman.compiler.cuda.launch import LaunchError

HERE = Path(__file__).parent
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\(")


class Module:
    """The kernels of a source.

    Args:
        source: as ``elman.compiler.cuda.build.compile`` takes it.
        options: of them those that define a macro, ``-D…``, are used.
        names: the kernels, where they are not written as ``__global__ void name(…)``.
        seed: of the order in which threads run, which can be changed; 0 is by turns.
    """

    def __init__(self, source, options=("-DELMAN_REAL=float",), names=None, seed=0):
        names = KERNEL.findall(source) if names is None else names
        kernels = "\n".join(f"SHIM_KERNEL({name})" for name in names)
        options = tuple(option for option in options if option.startswith("-D"))
        self.library = _library(f"{source}\nusing namespace elman;\n{kernels}\n", options)
        self.seed = seed

    def function(self, name):
        return Function(self, name)


class Function:
    """A kernel. A launch that cannot end, or writes past its memory, is a LaunchError."""

    def __init__(self, module, name):
        self.module, self.name = module, name
        self.entry = getattr(module.library, f"shim_launch_{name}")
        self.parameter_bytes = getattr(module.library, f"shim_bytes_{name}")()

    def blocks_per_multiprocessor(self, block, shared_bytes):
        return 1

    def clusters(self, grid, block, shared_bytes, cluster):
        return grid // cluster

    def launch(self, grid, block, shared_bytes, parameters, *, stream=0, cluster=1):
        assert block % 32 == 0 and 0 < block <= 1024, block
        assert grid % cluster == 0, (grid, cluster)
        assert len(parameters) == self.parameter_bytes, (len(parameters), self.parameter_bytes)
        trouble = ctypes.create_string_buffer(1000)
        if self.entry(
            bytes(parameters), ctypes.c_uint(grid), ctypes.c_uint(block),
            ctypes.c_size_t(shared_bytes), ctypes.c_uint(cluster),
            ctypes.c_uint64(self.module.seed), trouble, ctypes.c_size_t(len(trouble)),
        ):  # fmt: skip
            raise LaunchError(f"{self.name}: {trouble.value.decode()}")


@functools.cache
def _folder():
    made = Path(tempfile.mkdtemp(prefix="elman-shim-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@functools.cache
def _library(source, options):
    stem = _folder() / hashlib.sha256(repr((source, options)).encode()).hexdigest()[:16]
    stem.with_suffix(".cpp").write_text(source, encoding="utf-8")
    done = subprocess.run(
        [compiler(), "-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-fno-math-errno", *options,
         "-include", str(HERE / "shim.hpp"), f"-I{HEADERS}", f"-I{SHARED}",
         str(stem.with_suffix(".cpp")), "-o", str(stem.with_suffix(".so"))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:3000]
    return ctypes.CDLL(str(stem.with_suffix(".so")))
