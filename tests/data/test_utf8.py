from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import shlex
import subprocess
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman.data.utf8 import read_lines, read_text
from elman.errors import ElmanError


@given(text=st.text(alphabet="aé中𝄞\r\n \ufeff", max_size=40), block=st.integers(1, 9))
def test_block_size_never_shows(tmp_path_factory, text, block):
    path = tmp_path_factory.mktemp("text") / "file.txt"
    path.write_bytes(text.encode())
    expected = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    assert "".join(read_text(path, block)) == expected


def test_no_block_is_empty(tmp_path):
    path = tmp_path / "file.txt"
    path.write_bytes("\ufeff中\r\n".encode())
    assert all(read_text(path, 1))


def test_a_file_in_gb18030_names_offset_and_command(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_bytes(b"ok\n" + "床前明月光，疑是地上霜。".encode("gb18030"))
    with pytest.raises(ElmanError, match=r"offset 3\b.*`iconv -f GB18030 -t UTF-8 .*poem.txt"):
        list(read_text(path))


def test_a_file_in_latin_1_names_offset_and_command(tmp_path):
    path = tmp_path / "letter.txt"
    path.write_bytes("a café au lait, déjà vu".encode("latin-1"))
    expected = r"0xE9 on line 1, at offset 5\b.*`iconv -f ISO-8859-1 -t UTF-8"
    with pytest.raises(ElmanError, match=expected):
        list(read_text(path))


def test_offset_counts_from_the_start_of_the_file(tmp_path):
    path = tmp_path / "late.txt"
    path.write_bytes(b"x" * 1000 + b"\xff")
    with pytest.raises(ElmanError, match="offset 1,000"):
        list(read_text(path, 7))


@pytest.mark.parametrize("block", [3, 1 << 20])
def test_utf8_that_was_cut_off_is_called_so(tmp_path, block):
    path = tmp_path / "my cut.txt"
    path.write_bytes(("时间机器" * 9).encode()[:-1])
    expected = r"ends in the middle of a character .*offset 105\).*`head -c 105 '.*my cut.txt' > "
    with pytest.raises(ElmanError, match=expected):
        list(read_text(path, block))
    subprocess.run(f"head -c 105 {shlex.quote(str(path))} > {tmp_path}/whole.txt", shell=True)
    assert "".join(read_text(tmp_path / "whole.txt")) == ("时间机器" * 9)[:-1]


def test_latin_1_that_ends_in_an_accent_is_not_taken_for_cut_off_utf8(tmp_path):
    path = tmp_path / "cafe.txt"
    path.write_bytes("un café".encode("latin-1"))
    with pytest.raises(ElmanError, match="iconv -f ISO-8859-1 -t UTF-8"):
        list(read_text(path))


@pytest.mark.parametrize("block", [7, 1 << 20])
def test_utf8_that_is_damaged_inside_is_called_so(tmp_path, block):
    path = tmp_path / "damaged.txt"
    path.write_bytes("时间机器".encode() * 5 + b"\xff" + "时间机器".encode())
    with pytest.raises(ElmanError, match=r"is UTF-8 that is damaged.*offset 60.*iconv -c -f UTF-8"):
        list(read_text(path, block))


def test_commands_in_hints_take_any_file_name(tmp_path):
    path = tmp_path / "it's $HOME.txt"
    path.write_bytes("床前明月光".encode("gb18030"))
    with pytest.raises(ElmanError) as caught:
        list(read_text(path))
    command = re.search("`(.*)`", str(caught.value))[1]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / "converted.txt").read_text(encoding="utf-8") == "床前明月光"


PACKED = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("ending", PACKED)
def test_packed_files_are_read_whatever_they_are_called(tmp_path, ending):
    path = tmp_path / f"book.{'txt' if ending == 'bz2' else ending}"
    content = PACKED[ending]("时间机器\r\n".encode() * 300)
    path.write_bytes(content)
    assert "".join(read_text(path, 64)) == "时间机器\n" * 300
    path.write_bytes(content[:-9])
    with pytest.raises(ElmanError, match=r"cannot be unpacked .*damaged or was cut off"):
        list(read_text(path))


@pytest.mark.parametrize("ending", PACKED)
def test_packed_files_that_are_damaged_within_are_said_to_be(tmp_path, ending):
    whole = bytearray(PACKED[ending](b"The Time Traveller. " * 500))
    whole[len(whole) // 2] ^= 0xFF  # which zlib may only find out by the checksum at the end
    path = tmp_path / f"book.txt.{ending}"
    path.write_bytes(whole)
    with pytest.raises(ElmanError, match=r"cannot be unpacked .*damaged or was cut off"):
        list(read_text(path))
    path.write_bytes(gzip.compress(b"some text") + b"more")
    with pytest.raises(ElmanError, match=r"cannot be unpacked .*damaged or was cut off"):
        list(read_text(path))


def test_a_packed_file_in_another_encoding(tmp_path):
    path = tmp_path / "poem.gz"
    path.write_bytes(gzip.compress("床前明月光".encode("gb18030")))
    with pytest.raises(ElmanError, match=r"`gzip -dc .*poem.gz \| iconv -f GB18030 -t UTF-8 > "):
        list(read_text(path))


def test_what_has_no_name_in_a_shell_gets_a_hint_without_one(tmp_path):
    path = tmp_path / "stdin"
    path.write_bytes("床前明月光".encode("gb18030"))
    hint = r"^standard input is not UTF-8.*`iconv -f GB18030 -t UTF-8`, in front of elman"
    with pytest.raises(ElmanError, match=hint):
        list(read_text(path, name="standard input"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text\0more", r"binary file \(a NUL byte at offset 4\)"),
        (b"PK\x03\x04 and more", "a zip archive, as .docx, .odt and .epub are"),
        (b"%PDF-1.7 and more", "no plain text but a PDF"),
        (bytes(range(1, 256)) * 4, "binary file"),
        ("hello".encode("utf-16"), "UTF-16, expected UTF-8.*iconv -f UTF-16"),
    ],
)
def test_what_is_no_text_is_called_so(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ElmanError, match=message):
        list(read_text(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_an_error(tmp_path):
    path = tmp_path / "locked.txt"
    path.write_text("secret")
    path.chmod(0)
    with pytest.raises(ElmanError, match="could not be read \\(Permission denied\\)"):
        list(read_text(path))


@pytest.mark.parametrize("block", [1, 4, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_is_not_utf8_is_told_with_its_line(tmp_path, block, end):
    path = tmp_path / "mixed.txt"
    path.write_bytes(f"时{end}{end}间{end}".encode() + "café".encode("latin-1") + b" au lait")
    with pytest.raises(ElmanError, match="0xE9 on line 4, at offset"):
        list(read_text(path, block))


@pytest.mark.parametrize("text", ["", "\n", "a", "a\n", "\n\na\n\nb", "a\u2028b\x0bc\n"])
def test_lines_end_in_line_feeds_alone(tmp_path, text):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode().replace(b"\n", b"\r\n"))
    expected = text.removesuffix("\n").split("\n") if text else []
    assert list(read_lines(path)) == list(enumerate(expected, 1))


def test_a_line_may_be_longer_than_a_block(tmp_path):
    path = tmp_path / "long.txt"
    long = "word " * 500_000
    path.write_text(f"{long}\nshort")
    assert list(read_lines(path)) == [(1, long), (2, "short")]


def test_a_file_of_a_zip_archive(tmp_path):
    path = tmp_path / "packed.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("poem.txt", "床前\r\n明月光")
    assert list(read_lines(path, member="poem.txt")) == [(1, "床前"), (2, "明月光")]
    with pytest.raises(ElmanError, match=r"packed.zip cannot be unpacked.*verse.txt"):
        list(read_lines(path, member="verse.txt"))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ElmanError, match=r"packed.zip cannot be unpacked"):
        list(read_lines(path, member="poem.txt"))
