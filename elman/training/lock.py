"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from pathlib import Path


class Lock:
    """The system's lock on a folder, so that one whose process has died holds nobody up.

    Args:
        folder: which must be there.

    Attributes:
        taken: whether this process has it, and the folder is still the one at that path.

    Raises:
        OSError: the folder cannot be opened.
    """

    def __init__(self, folder: Path):
        self._file = os.open(folder, os.O_RDONLY)
        self._close = weakref.finalize(self, os.close, self._file)
        self.taken = self._take() and self._is(folder)
        if not self.taken:
            self._close()

    def release(self) -> None:
        """Give it back."""
        if self._close.alive:
            # Not by closing alone: a forked process may have the folder open, too.
            with contextlib.suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)
            self._close()

    def _take(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
        return True

    def _is(self, folder: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(folder))
        except FileNotFoundError:  # somebody has moved it meanwhile
            return False
