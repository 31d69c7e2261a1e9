"""Images in idx files."""

from __future__ import annotations

import gzip

import pytest
import torch

from elman.data.images import mnist, read_idx
from elman.errors import ElmanError


def idx(array: torch.Tensor) -> bytes:
    """The file of an array of bytes."""
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.dim()]) + lengths + bytes(array.flatten().tolist())


@pytest.mark.parametrize("shape", [(3,), (2, 4, 5), (0, 4)])
def test_an_array_comes_back_compressed_or_not(shape, tmp_path):
    array = torch.randint(256, shape, dtype=torch.uint8)
    for content in (idx(array), gzip.compress(idx(array))):
        (tmp_path / "array").write_bytes(content)
        found = read_idx(tmp_path / "array")
        assert found.dtype == torch.uint8 and torch.equal(found, array)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x08\x02\0\0\0\x01",  # ends among the lengths
        b"\0\0\x08\x01\0\0\0\x02\x07",  # one byte of two
        b"\0\0\x08\x01\0\0\0\x01\x07\x07",  # two bytes of one
        b"\0\0\x0d\x01\0\0\0\x01\x07",  # real numbers
        gzip.compress(bytes(100), mtime=0)[:-9],
        gzip.compress(idx(torch.zeros(1000, dtype=torch.uint8)), 0, mtime=0)[:500] + b"\x01" * 600,
    ],
)
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "array").write_bytes(content)
    with pytest.raises(ElmanError, match=r"array (is no idx file|could not be read)"):
        read_idx(tmp_path / "array")


def test_mnist_files(tmp_path, monkeypatch):
    monkeypatch.setenv("ELMAN_DATA", str(tmp_path))
    with pytest.raises(ElmanError, match="put MNIST's four files there"):
        mnist("t10k")
    (tmp_path / "mnist").mkdir()
    images = torch.randint(256, (2, 28, 28), dtype=torch.uint8)
    for labels in (torch.tensor([7, 1]), torch.tensor([7])):
        for kind, array in {"images-idx3": images, "labels-idx1": labels}.items():
            path = tmp_path / "mnist" / f"t10k-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(idx(array)))
        if len(labels) == 2:
            got, digits = mnist("t10k")
            assert torch.equal(got, images) and digits.tolist() == [7, 1]
        else:
            with pytest.raises(ElmanError, match=r"expected \(1, 28, 28\), as MNIST's are"):
                mnist("t10k")
