"""Downloads the files of a corpus into the user's cache, each checked against its SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import quote

from elman.data.checksums import Entry
from elman.errors import ElmanError
from elman.folders import user_cache


def cache_folder() -> Path | None:
    """Where downloads are kept: ``$XDG_CACHE_HOME/elman``, by default ``~/.cache/elman``.

    None where that is nowhere: the user has no home folder.
    """
    try:
        return user_cache()
    except FileNotFoundError:
        return None


def download(
    name: str, addresses: Mapping[str, str], files: Mapping[str, Entry], folder: str
) -> Path:
    """Download the files of a corpus; a file appears under its name only once it is whole.

    Args:
        name: the corpus, for messages.
        addresses: file path → where it is.
        files: file path → size and SHA-256.
        folder: the corpus's place under the cache folder, and under ``ELMAN_DATA``.

    Returns:
        where the corpus is now, under the cache folder.

    Raises:
        ElmanError: there is no cache folder, an address cannot be reached, what came is not what
            was expected, or the folder cannot be written to.
    """
    import pooch  # only now: most commands download nothing

    # pooch announces every file on its own; the bar says it once.
    pooch.get_logger().setLevel("WARNING")
    instead = f"or put the files in FOLDER/{folder} and set ELMAN_DATA to FOLDER"
    cache = cache_folder()
    if cache is None:
        raise ElmanError(
            f"{name} has to be downloaded, and this user has no home folder to keep it in: name a "
            f"cache folder in XDG_CACHE_HOME, {instead}."
        )
    with bar(name, sum(entry.size for entry in files.values())) as listener:
        for path, entry in files.items():
            url = quote(addresses[path], safe=":/")
            _download_one(url, cache / folder / path, entry, instead, listener)
    return cache / folder


def _download_one(url: str, target: Path, entry: Entry, instead: str, listener: Bar) -> None:
    import pooch
    from requests import HTTPError, RequestException

    failed = f"{url} could not be downloaded"
    try:
        pooch.retrieve(
            url,
            known_hash=f"sha256:{entry.sha256}",
            fname=target.name,
            path=target.parent,
            downloader=pooch.HTTPDownloader(progressbar=listener, timeout=30),
        )
    except HTTPError as error:
        answer = str(error).partition(" for url")[0]
        raise ElmanError(
            f"{failed} (the server answered {answer}), expected {entry.size:,} bytes; try again "
            f"later, {instead}."
        ) from error
    except RequestException as error:
        raise ElmanError(
            f"{failed} ({type(error).__name__}), expected {entry.size:,} bytes; check the network, "
            f"{instead}."
        ) from error
    except ValueError as error:
        raise ElmanError(
            f"{url} sent a file whose SHA-256 is not the expected {entry.sha256}, and it was not "
            f"kept; try again, {instead}."
        ) from error
    except OSError as error:
        raise ElmanError(
            f"{target} could not be written ({error.strerror or error}); make room there, name "
            f"another cache folder in XDG_CACHE_HOME, {instead}."
        ) from error


class Bar:
    """Hears of a download, in the shape that pooch drives, and shows nothing.

    Args:
        name: the corpus.
        size: of all its files, in bytes.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self.total = 0  # of the present file; pooch says it
        self._file = self._before = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, done: int) -> None:
        """Show how many bytes have come."""

    def update(self, size: int) -> None:
        """Hear that so many bytes more have come."""
        # pooch counts whole chunks, even when the last one is short.
        self._file = min(self._file + size, self.total)
        self.show(self._before + self._file)

    def reset(self) -> None:
        """Hear that a file begins."""
        self._file = 0

    def close(self) -> None:
        """Hear that a file is there."""
        self._before += self._file
        self._file = 0


bar: type[Bar] = Bar
"""What hears of downloads: the command line puts one here that shows them."""
