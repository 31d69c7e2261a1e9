"""Where a user's files are kept, and whether anybody else could write into them."""

from __future__ import annotations

import functools
import grp
import os
import pwd
import stat
from pathlib import Path


def user_cache() -> Path:
    """elman's folder in the user's cache: ``$XDG_CACHE_HOME/elman``, or ``~/.cache/elman``.

    Raises:
        FileNotFoundError: the user has no home folder, and the variable names none either.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    if named:
        return Path(named) / "elman"
    try:
        return Path.home() / ".cache" / "elman"
    except (RuntimeError, KeyError):  # no HOME, and a user whom the system does not know
        raise FileNotFoundError("this user has no home folder") from None


def make_private(folder: Path) -> None:
    """Make the folder, and those above it that are missing, for this user alone.

    Raises:
        OSError: it cannot be made.
    """
    for place in reversed((folder, *folder.parents)):
        if not place.is_dir():  # or a file: then the system says what is wrong
            try:
                place.mkdir(mode=0o700)
            except FileExistsError:
                if not place.is_dir():
                    raise


def trusted(folder: Path) -> Path:
    """The folder's real path, if nobody else can change what lies in it.

    Whoever may write to a folder can put another file in a file's place, and whoever may write to
    one above it, another folder in the folder's place: but not where it is sticky, as ``/tmp`` is.
    What is not there yet is no danger.

    Raises:
        PermissionError: another user than this one and root owns or may write to it, or to one
            above it.
        OSError: it cannot be looked at.
    """
    real = Path(os.path.realpath(folder))
    for place in (real, *real.parents):
        try:
            found = place.lstat()
        except FileNotFoundError:
            continue
        why = _untrusted(found, sticky=place != real)
        if why is not None:
            raise PermissionError(f"{place} {why}")
    return real


def trusted_file(handle: int) -> bool:
    """Whether an open file is a regular one that nobody but this user and root can change."""
    found = os.fstat(handle)
    return stat.S_ISREG(found.st_mode) and _untrusted(found) is None


def _untrusted(found: os.stat_result, sticky: bool = False) -> str | None:
    """Why others may change what was found; None where they cannot."""
    # Who owns the root of all folders owns them all. In some sandboxes that is not user 0.
    if found.st_uid not in {os.geteuid(), 0, _owner_of_all()}:
        return "belongs to another user"
    if sticky and found.st_mode & stat.S_ISVTX:
        return None
    if found.st_mode & stat.S_IWOTH:
        return "can be written by everybody: chmod o-w helps"
    if found.st_mode & stat.S_IWGRP and not _alone_in_group(found.st_uid, found.st_gid):
        return "can be written by a group: chmod g-w helps"
    return None


@functools.cache
def _owner_of_all() -> int:
    return os.stat("/").st_uid


@functools.cache
def _alone_in_group(user: int, group: int) -> bool:
    """Whether it is the user's own group, as many systems give each user one, without others."""
    try:
        entry, owner = grp.getgrgid(group), pwd.getpwuid(user)
    except KeyError:
        return False
    own = owner.pw_gid == group and entry.gr_name == owner.pw_name
    return own and set(entry.gr_mem) <= {owner.pw_name}
