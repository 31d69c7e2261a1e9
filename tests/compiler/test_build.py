"""Building and its cache: whatever the folder, the compiler and the other processes do."""

import errno
import os
import stat
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
    cached = (build.compiler, build.version, build.engine, build._temporary, build._warn)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.fixture
def program(tmp_path):
    """Makes a program of a shell script, to stand in for a compiler."""

    def make(text):
        path = tmp_path / "compiler"
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


def test_builds_once(folder, monkeypatch):
    assert build.build(SOURCE % 1, torch.float32).answer() == 1
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("built again"))
    assert build.build(SOURCE % 1, torch.float32).answer() == 1


def test_building_is_told_once_to_those_who_listen(folder, capsys):
    from elman.cli import _told

    build._announce.cache_clear()
    build.build(SOURCE % 1, torch.float32)
    assert capsys.readouterr() == ("", "")
    build._announce.cache_clear()
    with _told():
        build.build(SOURCE % 1, torch.float32)  # from the cache
        assert capsys.readouterr() == ("", "")
        build.build(SOURCE % 2, torch.float32)
        build.build(SOURCE % 3, torch.float32)
    told = f"compiling kernels for this processor, to be kept in {folder} …\n"
    assert capsys.readouterr() == ("", told)


def test_flags_and_types_have_libraries_of_their_own(folder, monkeypatch):
    build.build(SOURCE % 1, torch.float32)
    build.build(SOURCE % 1, torch.float64)
    monkeypatch.setenv("ELMAN_MARCH", "x86-64")
    build.build(SOURCE % 1, torch.float32)
    assert len(list(folder.glob("*.so"))) == 3


def test_extra_flags_are_used_and_have_libraries_of_their_own(folder, monkeypatch):
    text = 'extern "C" int answer() { return ANSWER; }'
    for answer in (7, 8):
        monkeypatch.setenv("ELMAN_CXXFLAGS", f"-DANSWER={answer}")
        assert build.build(text, torch.float32).answer() == answer


@pytest.mark.parametrize("kept", [0, 9, 0.1, 0.5, 0.999])
def test_a_library_that_was_cut_short_is_built_anew(folder, kept):
    build.build(SOURCE % 2, torch.float32)
    (path,) = folder.glob("*.so")
    content = path.read_bytes()
    # A new file in place of the loaded one, which the process still has.
    path.unlink()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    assert build.build(SOURCE % 2, torch.float32).answer() == 2
    assert path.read_bytes() == content


def test_a_read_only_cache_gives_what_it_has(folder, monkeypatch):
    assert build.build(SOURCE % 1, torch.float32).answer() == 1
    lock = build._lock

    def read_only(path):
        if path.parent == folder:
            raise OSError(errno.EROFS, "Read-only file system")
        return lock(path)

    monkeypatch.setattr(build, "_lock", read_only)
    assert build.build(SOURCE % 1, torch.float32).answer() == 1
    with pytest.warns(UserWarning, match="cannot be used .Read-only file system"):
        assert build.build(SOURCE % 3, torch.float32).answer() == 3


def test_a_full_cache_costs_a_warning(folder, monkeypatch, program):
    full = program(
        f'case "$*" in *{folder}*) echo "error: No space left on device" >&2; exit 1;; esac\n'
        'exec g++ "$@"\n'
    )
    monkeypatch.setenv("CXX", f"sh {full}")
    with pytest.warns(UserWarning, match="No space left on device.*ELMAN_CACHE"):
        assert build.build(SOURCE % 3, torch.float32).answer() == 3
    assert not list(folder.glob("*.so"))


def test_nowhere_to_keep_a_library_is_said(folder, monkeypatch, program):
    full = program('echo "error: No space left on device" >&2; exit 1\n')
    monkeypatch.setenv("CXX", f"sh {full}")
    with pytest.raises(
        build.BuildError, match=r"neither in .*No space left.* nor for this process"
    ):
        build.build(SOURCE % 3, torch.float32)


def test_a_library_of_another_user_is_not_loaded(folder, monkeypatch):
    build.build(SOURCE % 1, torch.float32)
    (path,) = folder.glob("*.so")
    if os.getuid() == 0:  # whom everybody trusts
        os.chown(path, 4711, -1)
    monkeypatch.setattr(os, "getuid", lambda: 4712)
    with pytest.raises(PermissionError, match="belongs to another user"):
        build._load(path)


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


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("#!/bin/sh\n", "made no library: set CXX"),
        ("#!/bin/sh\nexit 3\n", "failed: exit status 3"),
        ("no program", "cannot be run"),
    ],
)
def test_a_cxx_that_is_no_compiler_is_said(folder, monkeypatch, program, script, why):
    monkeypatch.setenv("CXX", program(script))
    with pytest.raises(build.BuildError, match=why):
        build.build(SOURCE % 5, torch.float32)


def test_what_has_failed_is_not_tried_at_every_call(folder, monkeypatch):
    for _ in range(2):
        with pytest.raises(build.BuildError, match="error"):
            build.build("this is no C++, either", torch.float32)
        monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("tried again"))


def test_an_error_of_the_compiler_is_said(folder):
    with pytest.raises(build.BuildError, match="error"):
        build.build("this is no C++", torch.float32)


@pytest.mark.parametrize(
    ("compiler", "why"),
    [
        (None, "no C++ compiler"),
        ("no-such-compiler", "names 'no-such-compiler'"),
        (sys.executable, "failed"),  # which does not compile
    ],
)
def test_networks_train_without_a_compiler(tmp_path, compiler, why):
    code = (
        "import torch, elman, warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    for _ in range(2):\n"
        "        network = elman.LSTM(3, 4)\n"
        "        network(torch.randn(2, 1, 3))[0].sum().backward()\n"
        "messages = [str(w.message) for w in caught]\n"
        f"assert len(messages) == 1 and {why!r} in messages[0], messages\n"
        "assert 'torch engine' in messages[0] and network.weight_hh_l0.grad.abs().sum() > 0\n"
    )
    environment = {
        **os.environ,
        "PATH": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "ELMAN_CACHE": str(tmp_path / "cache"),
    }
    environment.pop("CXX", None)
    if compiler:
        environment["CXX"] = compiler
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

    monkeypatch.setenv("ELMAN_CXXFLAGS", "-O0")
    found = status()
    assert found["engine"] == "native" and "bits" in found["instructions"]
    assert found["cache"] == str(folder)
    monkeypatch.setenv("CXX", "no-such-compiler")
    build.compiler.cache_clear()
    build.version.cache_clear()
    assert "no-such-compiler" in status()["compiler"]


def test_the_status_says_what_is_wrong_in_a_sentence(tmp_path, monkeypatch):
    from elman.compiler import status

    monkeypatch.setenv("ELMAN_CXXFLAGS", "-O0")
    (tmp_path / "file").touch()
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path / "file" / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = status()
    assert found["engine"] == "native"
    assert found["cache"].endswith("name another folder in ELMAN_CACHE.")
    monkeypatch.setenv("CXX", "true")
    for function in (build.compiler, build.version, build.engine):
        function.cache_clear()
    found = status()
    assert found["compiler"] == "true made no library: set CXX to a C++ compiler."
    assert found["engine"] == "torch and reference"


def test_a_first_use_waits_for_no_import():
    """Of what PyTorch imports only when asked, the least costs half a second."""
    code = (
        "import sys, torch, elman\n"
        "import torch.nn.functional as F\n"
        "class Own(elman.Cell):\n"
        "    net = elman.Affine('a b')\n"
        "    def step(self, z, h):\n"
        "        v = F.softplus(z.a) * F.hardsigmoid(z.b) + F.layer_norm(h, h.shape[-1:])\n"
        "        return torch.lerp(h, F.gelu(v), F.hardtanh(v, 0.0, 1.0))\n"
        "for cell in (elman.cells.GRUResetBefore(3, 4), Own(3, 4)):\n"
        "    network = elman.Recurrent(cell)\n"
        "    network(torch.randn(2, 1, 3))[0].sum().backward()\n"
        "    assert network.engine == 'native'\n"
        "class Without(Own):\n"
        "    def step(self, z, h):\n"
        "        return torch.special.i0(h).cumsum(-1) + z.a\n"
        "network = elman.Recurrent(Without(3, 4))\n"
        "assert network.engine == 'reference'\n"
        "assert not {'sympy', 'torch._dynamo', 'torch._inductor'} & sys.modules.keys()\n"
    )
    root = str(Path(build.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, check=True)
