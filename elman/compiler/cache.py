"""What is compiled once and kept, in a folder that nobody else can write to."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import fcntl
import functools
import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from elman.compiler.targets import BuildError
from elman.errors import EngineWarning, callers_level
from elman.folders import make_private, trusted, trusted_file, user_cache

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where libraries are kept: ``$ELMAN_CACHE``, or ``elman`` in the user's cache folder.

    Raises:
        FileNotFoundError: nothing is named, and the user has no home folder.
    """
    named = os.environ.get("ELMAN_CACHE")
    return Path(named) if named else user_cache()


def cache_trouble() -> str | None:
    """One sentence on why libraries cannot be kept in the cache folder, or None where they can."""
    folder: Path | None = None
    try:
        folder = cache_folder()
        trusted(folder)
        make_private(folder)
        trusted(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))  # about a library
            file.flush()
        return None
    except OSError as error:
        return _trouble(folder, said(error))


def library(name: str, make: Callable[[Path], None]) -> ctypes.CDLL:
    """A library from the cache, or else, with a warning, from a folder of this process alone.

    Args:
        name: what it is known by; it stands for all that the library is made from.
        make: makes it at the path that it receives.

    Raises:
        BuildError: it can be kept nowhere, or ``make`` raised it.
    """
    return _kept(f"{name}.so", make, lambda path, _: ctypes.CDLL(str(path)))


def content(name: str, make: Callable[[Path], None]) -> bytes:
    """What is in a file of the cache, as of a :func:`library`; its name has a suffix of its own."""
    return _kept(name, make, lambda _, content: content)


T = TypeVar("T")
Read = Callable[[Path, bytes], T]
"""What a file of the cache is taken for, from its path and its content."""


def _kept(name: str, make: Callable[[Path], None], read: Read[T]) -> T:
    folder: Path | None = None
    try:
        folder = cache_folder()
        return _cached(folder, name, make, read)
    except OSError as error:
        why = said(error)
    try:
        found = _cached(_temporary(), name, make, read)
    except OSError as error:
        where = "" if folder is None else f" in {folder}"
        raise BuildError(
            f"libraries can be kept neither{where} ({why}) nor for this process alone "
            f"({said(error)}); name a folder with space in ELMAN_CACHE"
        ) from None
    _warn(folder, why)
    return found


def _cached(folder: Path, name: str, make: Callable[[Path], None], read: Read[T]) -> T:
    # From here on by its real path: a link on the way to it may belong to somebody else.
    folder = trusted(folder)
    path = folder / name
    found = _load(path, read)
    if found is None:
        make_private(folder)
        trusted(folder)
        _clear_once(folder)
        with _lock(path.with_suffix(".lock")):
            found = _load(path, read)  # another process may have made it meanwhile
            if found is None:
                _announce(folder, "the GPU" if path.suffix == ".cubin" else "this processor")
                make(path)
                found = read(path, path.read_bytes()[:-_DIGEST])
    return found


@functools.cache
def _announce(folder: Path, machine: str) -> None:
    """Say once why the first call takes so long, to who listens, as the command line does."""
    alone = folder.name.startswith(_ASIDE)
    where = "for this process alone" if alone else f"to be kept in {folder}"
    _log.info("compiling kernels for %s, %s …", machine, where)


def _load(path: Path, read: Read[T]) -> T | None:
    """What is there, if it is whole, for this machine, and nobody else's to change."""
    try:
        # No link, whose target may lie anywhere; and no pipe, which could be waited for.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    with os.fdopen(handle, "rb") as file:
        if not trusted_file(handle):
            return None
        content = file.read()
    # A part of a library would not be refused by the loader, but end the process.
    if content[-_DIGEST:] != _digest(content[:-_DIGEST]):
        return None
    try:
        return read(path, content[:-_DIGEST])
    except OSError:
        return None


def is_marked(name: str) -> bool:
    """Whether :func:`mark` was called with this name, in this process or in one of before."""
    try:
        return name in _marks or (trusted(cache_folder()) / f"{name}.checked").exists()
    except OSError:
        return False


def mark(name: str) -> None:
    """Remember a name beside the libraries, so that what has been checked is not checked again."""
    _marks.add(name)
    with contextlib.suppress(OSError):
        (trusted(cache_folder()) / f"{name}.checked").touch(mode=0o600)


_marks: set[str] = set()

_DIGEST = hashlib.sha256().digest_size


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def put(made: Path, path: Path) -> None:
    """Keep what was ``made`` at ``path``: with its digest, and for nobody else to change.

    Raises:
        OSError: it cannot be written.
    """
    with made.open("ab") as file:
        file.write(_digest(made.read_bytes()))
    made.chmod(made.stat().st_mode & ~0o022)  # whatever the user lets others do elsewhere
    os.replace(made, path)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process alone make a library."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        handle = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(f"{path} is a symbolic link: delete it") from None
        raise
    # Where the file system has no locks, the same library is made twice: no harm.
    with _locked(handle):
        yield


@contextlib.contextmanager
def _locked(handle: int) -> Iterator[None]:
    """Hold the lock of an open file, where there are locks, and close it afterwards."""
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


# -- folders that are left when their process ends ------------------------------------------------

_ASIDE = "tmp-elman-"
_HELD = "held"
_OURS = re.compile(rf"{_ASIDE}\w{{8}}")
_EARLIER = re.compile(r"tmp\w{8}")
"""The names of folders before they said whose they are."""


@contextlib.contextmanager
def aside(folder: Path) -> Iterator[Path]:
    """A folder of this process in ``folder``, gone afterwards: at the latest with the next build.

    Raises:
        OSError: it cannot be made.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=_ASIDE, ignore_cleanup_errors=True) as made:
        # A lock in it is a sign to others that its process is alive.
        place = Path(made)
        with _locked(os.open(place / _HELD, os.O_RDWR | os.O_CREAT, 0o600)):
            yield place


@functools.cache
def _clear_once(folder: Path) -> None:
    """Delete what processes that were killed have left in the folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("tmp") and _is_left(entry):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_left(entry: os.DirEntry[str]) -> bool:
    """Whether this is a folder that was built in, and its process is gone."""
    if not entry.is_dir(follow_symlinks=False):
        return False
    found = entry.stat(follow_symlinks=False)
    # One that has just been made does not hold its lock yet.
    if found.st_uid != os.geteuid() or time.time() - found.st_mtime < _MINUTE:
        return False
    if _OURS.fullmatch(entry.name):
        return _is_let_go(Path(entry.path) / _HELD)
    if _EARLIER.fullmatch(entry.name):
        old = time.time() - found.st_mtime > 60 * _MINUTE
        return old and set(os.listdir(entry.path)) <= {"cell.cpp", "cell.so"}
    return False


_MINUTE = 60.0


def _is_let_go(held: Path) -> bool:
    try:
        handle = os.open(held, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


@functools.cache
def _temporary() -> Path:
    """A folder of this process, where nobody else can put another in its place.

    Raises:
        OSError: there is no such place.
    """
    tried = tempfile.gettempdir()
    for base in dict.fromkeys((tried, "/tmp", "/var/tmp")):
        with contextlib.suppress(OSError), contextlib.ExitStack() as made:
            _clear_once(Path(base))
            place = trusted(made.enter_context(aside(Path(base))))
            atexit.register(made.pop_all().close)
            return place
    raise OSError(f"others may write to {tried}")


def said(error: OSError) -> str:
    """What the system says went wrong, without its number."""
    return error.strerror or str(error)


def _trouble(folder: Path | None, why: str) -> str:
    which = "the cache folder" if folder is None else f"the cache folder {folder}"
    return (
        f"{which} cannot be used ({why}): kernels are built anew in every process; name another "
        "folder in ELMAN_CACHE."
    )


@functools.cache
def _warn(folder: Path | None, why: str) -> None:
    warnings.warn(_trouble(folder, why), EngineWarning, stacklevel=callers_level())
