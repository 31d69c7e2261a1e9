"""The cache of libraries: whatever its folder, other users and killed processes do."""

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import elman
from elman import folders
from elman.cells.options import Reading
from elman.compiler import cache
from elman.compiler.cpu.target import CPU
from elman.engines.check import fingerprint
from elman.engines.choice import EngineWarning

NOBODY = 65534
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user, whom root can be")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A library that answers 1."""
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "a.c").write_text("int answer() { return 1; }", encoding="utf-8")
    made = folder / "a.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", made, folder / "a.c"], check=True)
    return made


@pytest.fixture
def make(compiled):
    """What makes it in the cache; ``make.times`` counts."""

    def make(path):
        make.times += 1
        with cache.aside(path.parent) as folder:
            shutil.copy(compiled, folder / "cell.so")
            cache.put(folder / "cell.so", path)

    make.times = 0
    return make


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shared(monkeypatch):
    """A cache that other users can reach, as those of pytest cannot be."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        os.chmod(made, 0o755)
        place = Path(made) / "cache"
        place.mkdir()
        monkeypatch.setenv("ELMAN_CACHE", str(place))
        yield place


@pytest.fixture(autouse=True)
def nothing_kept():
    cached = (cache._temporary, cache._warn, cache._clear_once)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@contextlib.contextmanager
def refused(why):
    """What is asked for comes from a folder of this process, with one warning that says why."""
    with pytest.warns(EngineWarning) as warned:
        yield
    (warning,) = warned
    assert warning.filename == __file__  # the line that uses elman, not one within
    assert re.search(f"cannot be used .*{why}.*ELMAN_CACHE", str(warning.message))


def test_a_library_is_made_once(folder, make):
    for _ in range(2):
        assert cache.library("a", make).answer() == 1
    assert make.times == 1 and folder.stat().st_mode & 0o077 == 0
    assert sorted(os.listdir(folder)) == ["a.lock", "a.so"]


@pytest.mark.parametrize("kept", [0, 9, 0.1, 0.5, 0.999])
def test_a_library_that_was_cut_short_is_built_anew(folder, make, kept):
    cache.library("a", make)
    path = folder / "a.so"
    content = path.read_bytes()
    # A new file in place of the loaded one, which the process still has.
    path.unlink()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    assert cache.library("a", make).answer() == 1
    assert path.read_bytes() == content


def test_a_read_only_cache_gives_what_it_has(folder, make, monkeypatch):
    cache.library("a", make)
    lock = cache._lock

    def read_only(path):
        if path.parent == folder:
            raise OSError(errno.EROFS, "Read-only file system")
        return lock(path)

    monkeypatch.setattr(cache, "_lock", read_only)
    assert cache.library("a", make).answer() == 1 and make.times == 1
    with refused("Read-only file system"):
        assert cache.library("b", make).answer() == 1


def test_a_full_cache_costs_a_warning(folder, make):
    def full(path):
        if path.parent == folder:
            raise OSError(errno.ENOSPC, "No space left on device")
        make(path)

    with refused("No space left on device"):
        assert cache.library("a", full).answer() == 1
    assert not list(folder.glob("*.so"))


def test_nowhere_to_keep_a_library_is_said(folder):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        cache.BuildError, match=r"neither in .*No space left.* nor for this process"
    ):
        cache.library("a", full)


def test_a_folder_that_cannot_be_used_costs_one_warning(tmp_path, monkeypatch, make):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path / "file" / "cache"))
    with refused("Not a directory"):
        assert cache.library("a", make).answer() == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.library("b", make).answer() == 1


def test_without_a_home_folder_libraries_are_built_for_the_process(monkeypatch, make):
    for name in ("ELMAN_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)  # which the system does not know
    with refused("no home folder"):
        assert cache.library("a", make).answer() == 1
    assert "no home folder" in cache.cache_trouble()


def test_a_file_system_without_locks_is_no_obstacle(folder, make, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert cache.library("a", make).answer() == 1


# -- other users ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702, 0o770])
def test_a_folder_that_others_can_write_to_is_not_used(folder, make, mode, monkeypatch):
    folder.mkdir()
    monkeypatch.setattr(folders, "_alone_in_group", lambda *_: False)
    folder.chmod(mode)
    with refused("can be written by"):
        assert cache.library("a", make).answer() == 1
    assert os.listdir(folder) == []


def test_neither_is_one_below_it(folder, make):
    (folder / "mine").mkdir(parents=True)
    folder.chmod(0o777)
    os.environ["ELMAN_CACHE"] = str(folder / "mine")
    with refused(f"{folder} can be written by everybody: chmod o-w"):
        assert cache.library("a", make).answer() == 1
    assert os.listdir(folder / "mine") == []
    folder.chmod(0o1777)  # as /tmp is: what lies there stays its owner's
    assert cache.library("a", make).answer() == 1
    assert (folder / "mine" / "a.so").exists()


def test_what_a_link_leads_to_counts(folder, make, tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    folder.symlink_to(tmp_path / "open")
    with refused("open can be written by everybody"):
        assert cache.library("a", make).answer() == 1


def test_folders_are_made_for_their_user_alone(folder, make, monkeypatch):
    monkeypatch.setenv("ELMAN_CACHE", str(folder / "a" / "b"))
    before = os.umask(0)
    try:
        assert cache.library("a", make).answer() == 1
    finally:
        os.umask(before)
    for made in (folder, folder / "a", folder / "a" / "b", folder / "a" / "b" / "a.so"):
        assert made.stat().st_mode & 0o022 == 0


def test_a_folder_of_another_user_is_not_trusted(folder, monkeypatch):
    folder.mkdir()
    if os.geteuid() == 0:  # whom everybody trusts
        os.chown(folder, 4711, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 4712)
    with pytest.raises(PermissionError, match=f"{folder} belongs to another user"):
        folders.trusted(folder)


@pytest.mark.parametrize("what", ["mode", "link", "pipe", "owner"])
def test_a_library_that_others_may_have_changed_is_built_anew(folder, make, tmp_path, what):
    cache.library("a", make)
    path = folder / "a.so"
    good = path.read_bytes()
    if what == "mode":
        path.chmod(0o666)
    elif what == "link":
        shutil.copy(path, tmp_path / "theirs.so")
        path.unlink()
        path.symlink_to(tmp_path / "theirs.so")
    elif what == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif os.geteuid() == 0:
        os.chown(path, NOBODY, -1)
    else:
        pytest.skip("needs root")
    assert cache.library("a", make).answer() == 1
    assert make.times == 2 and path.is_file() and not path.is_symlink()
    assert path.read_bytes() == good and path.stat().st_mode & 0o022 == 0
    assert path.stat().st_uid == os.geteuid()


def test_a_lock_follows_no_link_and_empties_nothing(folder, make, tmp_path):
    folder.mkdir(mode=0o700)
    precious = tmp_path / "precious"
    precious.write_text("kept", encoding="utf-8")
    (folder / "a.lock").symlink_to(precious)
    with refused("a.lock is a symbolic link: delete it"):
        assert cache.library("a", make).answer() == 1
    (folder / "b.lock").write_text("kept", encoding="utf-8")
    assert cache.library("b", make).answer() == 1
    assert precious.read_text("utf-8") == (folder / "b.lock").read_text("utf-8") == "kept"


@root
def test_a_second_user_is_not_run(shared, make, tmp_path):
    """As whoever may write to the cache would have it: a lock as a link, a library of theirs."""
    precious = tmp_path / "precious"
    precious.write_text("kept", encoding="utf-8")
    shared.chmod(0o777)
    subprocess.run(
        ["sh", "-c", f"ln -s {precious} {shared}/a.lock && echo theirs > {shared}/a.so"],
        check=True, user=NOBODY,
    )  # fmt: skip
    before = sorted(os.listdir(shared))
    with refused("can be written by everybody"):
        assert cache.library("a", make).answer() == 1
    assert precious.read_text("utf-8") == "kept" and sorted(os.listdir(shared)) == before
    shared.chmod(0o700)  # what they have left there is still not trusted
    with refused("a symbolic link"):
        assert cache.library("a", make).answer() == 1
    (shared / "a.lock").unlink()
    assert cache.library("a", make).answer() == 1 and make.times == 2
    assert (shared / "a.so").stat().st_uid == 0


@root
def test_a_folder_of_a_second_user_is_not_run(shared, make):
    os.chown(shared, NOBODY, -1)
    with refused("belongs to another user"):
        assert cache.library("a", make).answer() == 1
    assert os.listdir(shared) == []


def test_a_group_of_ones_own_is_no_other_user(monkeypatch):
    import grp
    import pwd

    users = {1000: SimpleNamespace(pw_name="ada", pw_gid=1000)}
    groups = {
        1000: SimpleNamespace(gr_name="ada", gr_mem=[]),
        1001: SimpleNamespace(gr_name="ada", gr_mem=["bob"]),
        100: SimpleNamespace(gr_name="users", gr_mem=[]),
    }
    monkeypatch.setattr(pwd, "getpwuid", users.__getitem__)
    monkeypatch.setattr(grp, "getgrgid", groups.__getitem__)
    alone = folders._alone_in_group.__wrapped__
    assert alone(1000, 1000)
    assert not alone(1000, 1001) and not alone(1000, 100) and not alone(1000, 7)
    assert not alone(1001, 1000)


def test_the_process_trusts_no_temporary_folder_blindly(tmp_path, monkeypatch):
    tmp_path.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cache._temporary().parent in (Path("/tmp"), Path("/var/tmp"))
    assert os.listdir(tmp_path) == []


# -- processes that were killed -------------------------------------------------------------------


def test_what_killed_builds_have_left_is_cleared(folder, make):
    """By the next run, unless the builder is alive, or it is something else."""
    folder.mkdir(mode=0o700)
    left, earlier, new, mine = "tmp-elman-aaaaaaaa", "tmpabcdefgh", "tmp-elman-bbbbbbbb", "tmpmine"
    for name in (left, earlier, new, mine):
        (folder / name).mkdir()
        (folder / name / "cell.cpp").touch()
    (folder / "tmptheirs").mkdir()
    (folder / "tmptheirs" / "letter.txt").touch()
    yesterday = time.time() - 86_400
    with cache.aside(folder) as alive:
        for place in folder.iterdir():
            if place.name != new:
                os.utime(place, (yesterday, yesterday))
        cache.library("a", make)
        assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == sorted(
            [new, mine, "tmptheirs", alive.name]
        )


def test_the_status_leaves_no_file(folder):
    assert cache.cache_trouble() is None
    assert os.listdir(folder) == []


def test_a_library_can_be_loaded_from_a_folder_with_any_name(tmp_path, make, monkeypatch):
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path / "mes modèles, 语言 (2)"))
    assert isinstance(cache.library("a", make), ctypes.CDLL)
    assert cache.library("a", make).answer() == 1 and make.times == 1


# -- what was checked -----------------------------------------------------------------------------


def test_marks_are_kept_beside_the_libraries_where_nobody_else_can_write(folder, make, monkeypatch):
    def in_new_process(name):
        monkeypatch.setattr(cache, "_marks", set())
        return cache.is_marked(name)

    cache.mark("a")  # there is no folder yet: for this process
    assert cache.is_marked("a") and not in_new_process("a")
    cache.library("a", make)
    cache.mark("a")
    assert in_new_process("a") and not in_new_process("b")
    folder.chmod(0o777)
    assert not in_new_process("a")
    cache.mark("b")
    assert cache.is_marked("b") and not (folder / "b.checked").exists()


def test_a_mark_is_the_same_in_every_process():
    """Functions lie elsewhere in each: were their places part of it, nothing would stay checked."""

    def mark():
        def function():
            pass

        hoisted = SimpleNamespace(recording=["a"], operations=[function])
        compiled = SimpleNamespace(hoisted=hoisted, digest="program")
        kept.append(function)
        key = Reading(elman.cells.LSTM(2, 3), elman.Cell).key, function.__code__
        return fingerprint(compiled, CPU, "cpu", torch.float32, key)

    kept = []
    assert mark() == mark() and kept[0] is not kept[1]
