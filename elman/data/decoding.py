"""Reads a text file as a stream of blocks, and says what is wrong with one it cannot read."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from elman.errors import ElmanError

BLOCK = 1 << 20

# Bytes that text files do not hold: the C0 controls but tab, line feed, vertical tab, form feed,
# carriage return and escape.
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path, block: int = BLOCK) -> Iterator[str]:
    r"""Yield the text of a UTF-8 file in blocks; ``\r\n`` and ``\r`` become ``\n``.

    Args:
        path: the file; a byte order mark at its start is dropped.
        block: how many bytes to read at a time; default 1 MiB.

    Raises:
        ElmanError: the file cannot be opened, is binary, or is not UTF-8.
    """
    offset = 0
    rest = b""
    held = ""
    for chunk, last in _chunks(path, block):
        data = rest + chunk
        if offset == 0:
            _reject_utf16(path, data)
        if b"\0" in data:
            raise ElmanError(
                f"{path} is a binary file (a NUL byte at offset {offset + data.index(0):,}); "
                "expected plain text in UTF-8."
            )
        try:
            text, used = codecs.utf_8_decode(data, "strict", last)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, data, error.start, offset) from None
        if offset == 0 and used:
            text = text.removeprefix("\ufeff")
        offset += used
        rest = data[used:]
        text = held + text
        # A \r at the end may be the first half of \r\n.
        held = "\r" if text.endswith("\r") and not last else ""
        if held:
            text = text[:-1]
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        if text:
            yield text


def _chunks(path: Path, block: int) -> Iterator[tuple[bytes, bool]]:
    """Yield each chunk with whether it is the last; there is always a last one."""
    try:
        with path.open("rb") as file:
            chunk = file.read(block)
            while True:
                following = file.read(block)
                yield chunk, not following
                if not following:
                    return
                chunk = following
    except OSError as error:
        raise ElmanError(
            f"{path} could not be read ({error.strerror or error}); expected a text file that "
            "this user may open."
        ) from error


def _reject_utf16(path: Path, data: bytes) -> None:
    if data.startswith(_UTF16):
        raise ElmanError(
            f"{path} is UTF-16, expected UTF-8; convert it with "
            f"`iconv -f UTF-16 -t UTF-8 {path} > converted.txt`."
        )


def _not_utf8(path: Path, data: bytes, start: int, offset: int) -> ElmanError:
    if len(_CONTROL.findall(data)) > len(data) // 20:
        return ElmanError(
            f"{path} is a binary file (not UTF-8 from byte {offset + start:,} on, and full of "
            "control bytes); expected plain text in UTF-8."
        )
    return ElmanError(
        f"{path} is not UTF-8 (byte 0x{data[start]:02X} at offset {offset + start:,}); convert it "
        f"with `iconv -f {_guess(data[start:])} -t UTF-8 {path} > converted.txt`."
    )


def _guess(data: bytes) -> str:
    """Name the encoding to try first: GB18030 if the bytes make sense in it, else Latin-1."""
    # A lone accented Latin-1 letter in front of a space is an error in GB18030, so Western text
    # does not pass for Chinese.
    try:
        codecs.getincrementaldecoder("gb18030")().decode(data)
    except UnicodeDecodeError:
        return "ISO-8859-1"
    return "GB18030"
