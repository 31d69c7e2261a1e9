"""Building and its cache: whatever the folder, the compiler and the other processes do."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from elman.compiler import build

SOURCE = '#include "vector.hpp"\nextern "C" int answer() { return %d; }\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def fresh():
    cached = (build.compiler, build.version, build._temporary)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def test_builds_once(folder, monkeypatch):
    assert build.build(SOURCE % 1, torch.float32).answer() == 1
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("built again"))
    assert build.build(SOURCE % 1, torch.float32).answer() == 1


def test_flags_and_types_have_libraries_of_their_own(folder, monkeypatch):
    build.build(SOURCE % 1, torch.float32)
    build.build(SOURCE % 1, torch.float64)
    monkeypatch.setenv("ELMAN_MARCH", "x86-64")
    build.build(SOURCE % 1, torch.float32)
    assert len(list(folder.glob("*.so"))) == 3


def test_a_broken_library_is_built_anew(folder):
    build.build(SOURCE % 2, torch.float32)
    (path,) = folder.glob("*.so")
    # A new file in place of the loaded one, which the process still has.
    path.unlink()
    path.write_bytes(b"cut short")
    assert build.build(SOURCE % 2, torch.float32).answer() == 2


def test_a_folder_that_cannot_be_used_costs_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be used.*ELMAN_CACHE"):
        assert build.build(SOURCE % 3, torch.float32).answer() == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build.build(SOURCE % 4, torch.float32).answer() == 4


def test_no_compiler_is_said_with_the_command_that_installs_one(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(build.BuildError, match=r"install one with .*g\+\+"):
        build.build(SOURCE % 5, torch.float32)


def test_a_wrong_cxx_is_said(folder, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.BuildError, match="no-such-compiler"):
        build.build(SOURCE % 5, torch.float32)


def test_an_error_of_the_compiler_is_said(folder):
    with pytest.raises(build.BuildError, match="error"):
        build.build("this is no C++", torch.float32)


def test_networks_run_without_a_compiler(tmp_path):
    code = (
        "import torch, elman, warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    y, _ = elman.LSTM(3, 4)(torch.randn(2, 1, 3))\n"
        "    elman.LSTM(3, 4)(torch.randn(2, 1, 3))\n"
        "messages = [str(w.message) for w in caught]\n"
        "assert len(messages) == 1 and 'no C++ compiler' in messages[0], messages\n"
    )
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("CXX", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_processes_that_build_the_same_at_once(folder):
    code = (
        "import torch\nfrom elman.compiler.build import build\n"
        f"assert build({SOURCE % 6!r}, torch.float32).answer() == 6"
    )
    root = str(Path(build.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    children = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    assert len(list(folder.glob("*.so"))) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory map")
def test_there_is_one_openmp_library():
    import elman

    elman.LSTM(3, 4)(torch.randn(2, 1, 3))
    maps = Path("/proc/self/maps").read_text().splitlines()
    assert len({line.split()[-1] for line in maps if "libgomp" in line}) <= 1


@pytest.mark.parametrize("march", ["x86-64-v3", "x86-64"])
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="flags of x86")
def test_narrower_machines_compute_the_same(march):
    code = (
        "import torch, elman\n"
        "torch.manual_seed(0)\n"
        "n = elman.LSTM(5, 21).double(); x = torch.randn(4, 9, 5, dtype=torch.float64)\n"
        "y, _ = n(x)\n"
        "elman.engine('reference')\n"
        "assert (n(x)[0] - y).abs().max() < 1e-12\n"
    )
    root = str(Path(build.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "ELMAN_MARCH": march}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_the_status_names_what_there_is(folder, monkeypatch):
    from elman.compiler import status

    found = status()
    assert found["engine"] == "native" and "bits" in found["instructions"]
    assert found["cache"] == str(folder)
    monkeypatch.setenv("CXX", "no-such-compiler")
    build.compiler.cache_clear()
    build.version.cache_clear()
    assert "no-such-compiler" in status()["compiler"]
