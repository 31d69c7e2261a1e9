"""Building: whatever the compiler, its flags and the paths are."""

import os
import re
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from elman.compiler import cache
from elman.compiler.cpu import build

SOURCE = '#include "vector.hpp"\nextern "C" int answer() { return %d; }\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def nothing_built():
    cached = (build.compiler, build.version, build.runtime, cache._temporary, cache._warn)
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
    from elman.cli.messages import Typed, listening

    cache._announce.cache_clear()
    build.build(SOURCE % 1, torch.float32)
    assert capsys.readouterr() == ("", "")
    cache._announce.cache_clear()
    with listening(Typed([], "", {})):
        build.build(SOURCE % 1, torch.float32)  # from the cache
        assert capsys.readouterr() == ("", "")
        build.build(SOURCE % 2, torch.float32)
        build.build(SOURCE % 3, torch.float32)
    announced = f"compiling kernels for this processor, to be kept in {folder} …\n"
    assert capsys.readouterr() == ("", announced)


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


def test_paths_with_spaces_and_letters_of_any_script(folder, monkeypatch, tmp_path):
    place = tmp_path / "mes outils, 工具"
    place.mkdir()
    compiler = place / "g++ (mine)"
    compiler.write_text('#!/bin/sh\nexec g++ "$@"\n', encoding="utf-8")
    compiler.chmod(0o755)
    (place / "answer.hpp").write_text("#define ANSWER 5\n", encoding="utf-8")
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("ELMAN_CXXFLAGS", f"-O0 '-I{place}'")
    monkeypatch.setenv("ELMAN_CACHE", str(place / "ca che"))
    text = '#include "answer.hpp"\nextern "C" int answer() { return ANSWER; } // 五'
    assert build.build(text, torch.float32).answer() == 5


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory map")
def test_the_threads_library_is_found_wherever_it_lies(tmp_path, monkeypatch):
    place = tmp_path / "mon env, 环境" / "libgomp-1.so.1"
    place.parent.mkdir()
    place.touch()
    maps = (
        "7f00-7f01 r-xp 00000000 00:00 0\n"
        "7f02-7f03 r--p 00000000 08:01 12                  /usr/lib/libc.so.6\n"
        f"7f04-7f05 r-xp 00000000 08:01 13                  {place}\n"
        "7ffe-7fff rw-p 00000000 00:00 0                   [stack]\n"
    )
    monkeypatch.setattr(Path, "read_bytes", lambda _: maps.encode())
    assert build.openmp.__wrapped__() == str(place)
    maps = maps.replace(str(place), f"{place} (deleted)")
    with pytest.raises(build.BuildError, match=f"{re.escape(str(place))} was replaced"):
        build.openmp.__wrapped__()


def test_flags_that_no_shell_could_read_are_said(folder, monkeypatch):
    monkeypatch.setenv("ELMAN_CXXFLAGS", "-I'/a b")
    with pytest.raises(build.BuildError, match=r"ELMAN_CXXFLAGS is .*no closing quotation"):
        build.build(SOURCE % 5, torch.float32)


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
        "import torch\nfrom elman.compiler.cpu.build import build\n"
        f"assert build({SOURCE % 6!r}, torch.float32).answer() == 6"
    )
    root = str(Path(build.__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root}
    children = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    assert len(list(folder.glob("*.so"))) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory map")
def test_another_librarys_openmp_is_not_pytorchs():
    program = (
        "import sklearn.metrics, torch, os; from elman.compiler.cpu import build;"
        "print(build.openmp().startswith(os.path.dirname(torch.__file__)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


def test_there_is_one_openmp_library():
    # In a process of its own: other libraries that tests import bring one of theirs.
    program = (
        "import torch, elman, pathlib; elman.LSTM(3, 4)(torch.randn(2, 1, 3));"
        "maps = pathlib.Path('/proc/self/maps').read_text().splitlines();"
        "print(len({line.split()[-1] for line in maps if 'libgomp' in line}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert int(done.stdout) <= 1, done.stderr


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
    root = str(Path(build.__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root, "ELMAN_MARCH": march}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_the_status_names_what_there_is(folder, monkeypatch):
    from elman.compiler.cpu import status

    monkeypatch.setenv("ELMAN_CXXFLAGS", "-O0")
    found = status()
    assert found["engine"] == "native" and "bits" in found["instructions"]
    assert found["cache"] == str(folder)
    monkeypatch.setenv("CXX", "no-such-compiler")
    build.compiler.cache_clear()
    build.version.cache_clear()
    assert "no-such-compiler" in status()["compiler"]


def test_the_status_says_what_is_wrong_in_a_sentence(tmp_path, monkeypatch):
    from elman.compiler.cpu import status

    monkeypatch.setenv("ELMAN_CXXFLAGS", "-O0")
    (tmp_path / "file").touch()
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path / "file" / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = status()
    assert found["engine"] == "native"
    assert found["cache"].endswith("name another folder in ELMAN_CACHE.")
    monkeypatch.setenv("CXX", "true")
    for function in (build.compiler, build.version, build.runtime):
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
    root = str(Path(build.__file__).parents[3])
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, check=True)
