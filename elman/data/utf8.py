"""UTF-8 files as streams of text, and what is wrong with one that cannot be read."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import shlex
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from elman.errors import ElmanError

BLOCK = 1 << 20

# Bytes that text files do not hold: the C0 controls but tab, line feed, vertical tab, form feed,
# carriage return and escape.
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

# Texts that are packed one by one, by their first bytes: what unpacks them, here and in a shell.
_PACKED = (
    (re.compile(rb"\x1f\x8b"), gzip.open, "gzip"),
    (re.compile(rb"BZh[1-9]1AY&SY"), bz2.open, "bzip2"),
    (re.compile(rb"\xfd7zXZ\0"), lzma.open, "xz"),
)
PACKED_ENDINGS = (".gz", ".bz2", ".xz")

# What people take for a text, by its first bytes.
_KNOWN = {
    b"PK\x03\x04": "a zip archive, as .docx, .odt and .epub are",
    b"%PDF": "a PDF",
    b"\x28\xb5\x2f\xfd": "packed by zstd",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
}
# So many characters of more than one byte are no chance: the file was written as UTF-8.
_PLENTY = 8


def inner(path: Path) -> Path:
    """A path without the ending of what has packed the file: book.txt for book.txt.gz."""
    return path.with_suffix("") if path.suffix.lower() in PACKED_ENDINGS else path


def ending_of(path: Path) -> str:
    """A file's ending in lower case, that of what is packed where it is packed."""
    return inner(path).suffix.lower()


def read_text(path: Path, block: int = BLOCK, name: str = "", member: str = "") -> Iterator[str]:
    r"""Yield the text of a UTF-8 file in blocks; ``\r\n`` and ``\r`` become ``\n``.

    A file that gzip, bzip2 or xz has packed is unpacked as it is read, whatever it is called.

    Args:
        path: the file; a byte order mark at its start is dropped.
        block: how many bytes to read at a time; default 1 MiB.
        name: what errors call it, for one that the user has not named; default: its path.
        member: of a zip archive, the file in it to read.

    Raises:
        ElmanError: the file cannot be opened or unpacked, is binary, or is not UTF-8.
    """
    offset = lines = 0
    rest = b""
    held = ""
    beyond_ascii = False
    fault = _Fault(path, name)
    for chunk, last in _chunks(path, block, fault, member):
        data = rest + chunk
        if offset == 0:
            fault.refuse_other_formats(data)
        if b"\0" in data:
            raise ElmanError(
                f"{fault.name} is a binary file (a NUL byte at offset "
                f"{offset + data.index(0):,}); expected plain text in UTF-8."
            )
        try:
            text, used = codecs.utf_8_decode(data, "strict", last)
        except UnicodeDecodeError as error:
            lines += bool(held) and not data.startswith(b"\n")
            raise fault.not_utf8(data, error, offset, lines, last, beyond_ascii) from None
        if offset == 0 and used:
            text = text.removeprefix("\ufeff")
        beyond_ascii = beyond_ascii or not text.isascii()
        offset += used
        rest = data[used:]
        text = held + text
        # A \r at the end may be the first half of \r\n.
        held = "\r" if text.endswith("\r") and not last else ""
        if held:
            text = text[:-1]
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines += text.count("\n")
        if text:
            yield text


def read_lines(path: Path, name: str = "", member: str = "") -> Iterator[tuple[int, str]]:
    r"""Yield the lines of a UTF-8 file with their numbers, from 1 on, without their ``\n``.

    Only ``\n``, ``\r\n`` and ``\r`` end a line, not what Unicode calls a line separator.

    Args:
        path, name, member: as :func:`read_text` takes them.

    Raises:
        ElmanError: as :func:`read_text`.
    """
    number, parts = 1, list[str]()
    for block in read_text(path, name=name, member=member):
        first, *others = block.split("\n")
        parts.append(first)
        for line in others:
            yield number, "".join(parts)
            number, parts = number + 1, [line]
    if any(parts):
        yield number, "".join(parts)


def _chunks(path: Path, block: int, fault: _Fault, member: str) -> Iterator[tuple[bytes, bool]]:
    """Yield each chunk with whether it is the last; there is always a last one."""
    try:
        with _in_zip(path, member) if member else _opened(path, fault) as file:
            chunk = file.read(block)
            while True:
                following = file.read(block)
                yield chunk, not following
                if not following:
                    return
                chunk = following
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, KeyError, OSError) as error:
        # Of what is damaged, gzip and bz2 raise an OSError, too: one without the system's number.
        if not isinstance(error, OSError) or error.errno is None:
            raise ElmanError(
                f"{fault.name} cannot be unpacked ({error}): it is damaged or was cut off; fetch "
                "it anew."
            ) from error
        raise ElmanError(
            f"{fault.name} could not be read ({error.strerror or error}); expected a text file "
            "that this user may open."
        ) from error


def unpacked(path: Path) -> IO[bytes]:
    """Open a file for its bytes; one that gzip, bzip2 or xz has packed is unpacked as it is read.

    Raises:
        OSError: it cannot be opened.
    """
    return _opened(path, _Fault(path, ""))


def _opened(path: Path, fault: _Fault) -> IO[bytes]:
    with path.open("rb") as file:
        begin = file.read(10)
    for sign, unpack, tool in _PACKED:
        if sign.match(begin):
            fault.unpack = f"{tool} -dc"
            return unpack(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def _in_zip(path: Path, member: str) -> IO[bytes]:
    with zipfile.ZipFile(path) as archive:
        return archive.open(member)


class _Fault:
    """Says what is wrong with a file, and what a shell can do about it.

    Attributes:
        name: what the file is called.
        unpack: the command that unpacks it, where it is packed.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name, self.unpack = name or str(path), ""
        self._typed = "" if name else shlex.quote(str(path))

    def through(self, command: str, into: str) -> str:
        """The command line that sends the file through a command."""
        if not self._typed:  # standard input has no name that a shell knows
            return f"`{command}`, in front of elman"
        whole = f"{self.unpack} {self._typed} | {command}" if self.unpack else None
        return f"`{whole or f'{command} {self._typed}'} > {into}`"

    def refuse_other_formats(self, data: bytes) -> None:
        """Raise an error where the first bytes are those of something else than UTF-8."""
        if data.startswith(_UTF16):
            command = self.through("iconv -f UTF-16 -t UTF-8", "converted.txt")
            raise ElmanError(f"{self.name} is UTF-16, expected UTF-8; convert it with {command}.")
        for sign, what in _KNOWN.items():
            if data.startswith(sign):
                raise ElmanError(
                    f"{self.name} is no plain text but {what}; take the text out of it first, "
                    "into a .txt file in UTF-8."
                )

    def not_utf8(
        self,
        data: bytes,
        error: UnicodeDecodeError,
        offset: int,
        lines: int,
        last: bool,
        beyond_ascii: bool,
    ) -> ElmanError:
        """What is wrong with bytes that are not UTF-8: cut off, damaged, binary or another code.

        Args:
            data: bytes that end the file (``last``) or are followed by more.
            error: what decoding them raised.
            offset: their place in the file.
            lines: the line ends before them.
            last: whether nothing follows.
            beyond_ascii: whether the text before them has characters of more than one byte.
        """
        start = error.start
        before = data[:start].decode().replace("\r\n", "\n").replace("\r", "\n")
        line = 1 + lines + before.count("\n")
        where = f"byte 0x{data[start]:02X} on line {line:,}, at offset {offset + start:,}"
        if len(_CONTROL.findall(data)) > len(data) // 20:
            return ElmanError(
                f"{self.name} is a binary file (not UTF-8 from byte {offset + start:,} on, and "
                "full of control bytes); expected plain text in UTF-8."
            )
        wide = _PLENTY if beyond_ascii else sum(c > "\x7f" for c in before)
        # Latin-1 that ends in é looks cut off, too; but then there is no UTF-8 before it.
        if last and error.reason == "unexpected end of data" and wide:
            command = self.through(f"head -c {offset + start}", "whole.txt")
            return ElmanError(
                f"{self.name} is UTF-8 that ends in the middle of a character ({where}): it was "
                f"cut off; fetch it anew, or leave that character out with {command}."
            )
        if wide >= _PLENTY:
            command = self.through("iconv -c -f UTF-8 -t UTF-8", "mended.txt")
            return ElmanError(
                f"{self.name} is UTF-8 that is damaged ({where}): fetch it anew, or leave out "
                f"what is damaged with {command}."
            )
        command = self.through(f"iconv -f {_guess(data[start:], last)} -t UTF-8", "converted.txt")
        return ElmanError(f"{self.name} is not UTF-8 ({where}); convert it with {command}.")


def _guess(data: bytes, last: bool) -> str:
    """Name the encoding to try first: GB18030 if the bytes make sense in it, else Latin-1."""
    # A lone accented Latin-1 letter in front of a space is an error in GB18030, so Western text
    # does not pass for Chinese.
    try:
        codecs.getincrementaldecoder("gb18030")().decode(data, last)
    except UnicodeDecodeError:
        return "ISO-8859-1"
    return "GB18030"
