from __future__ import annotations

import gzip
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman.data.decoding import read_text
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
    with pytest.raises(ElmanError, match=r"0xE9 at offset 5\b.*`iconv -f ISO-8859-1 -t UTF-8"):
        list(read_text(path))


def test_offset_counts_from_the_start_of_the_file(tmp_path):
    path = tmp_path / "late.txt"
    path.write_bytes(b"x" * 1000 + b"\xff")
    with pytest.raises(ElmanError, match="offset 1,000"):
        list(read_text(path, 7))


def test_a_character_cut_off_at_the_end_is_an_error(tmp_path):
    path = tmp_path / "cut.txt"
    path.write_bytes("abc中".encode()[:-1])
    with pytest.raises(ElmanError, match="offset 3"):
        list(read_text(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text\0more", r"binary file \(a NUL byte at offset 4\)"),
        (gzip.compress(b"hello " * 50, mtime=0), "binary file"),
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
