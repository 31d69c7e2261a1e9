"""Images in the format of MNIST: idx files, which are an array's shape and then its bytes."""

from __future__ import annotations

import gzip
import os
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from elman.errors import ElmanError

_BYTES = 8  # the type of number, among those of the format, that images and labels are made of


def read_idx(path: Path) -> Tensor:
    """The array of bytes in an idx file, compressed by gzip or not.

    The file is two zeros, the type of its numbers (8: a byte), the number of axes, each axis as a
    whole number of four bytes, the highest first, and then the numbers, the last axis running
    fastest (LeCun, Cortes & Burges, 1998).

    Args:
        path: of the file.

    Returns:
        The array, ``torch.uint8``, of the shape that the file tells.

    Raises:
        ElmanError: the file cannot be read, or is no idx file of bytes.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ElmanError(f"{path} could not be read ({why}); expected an idx file.") from error
    start = 4 + 4 * content[3] if len(content) > 3 else len(content) + 1
    shape = np.frombuffer(content[4:start], ">u4").tolist() if len(content) >= start else []
    if content[:3] != bytes([0, 0, _BYTES]) or len(content) - start != prod(shape):
        raise ElmanError(
            f"{path} is no idx file of bytes: its {len(content):,} bytes must be two zeros, an 8, "
            "the number of axes, their lengths and one byte for each number."
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).copy()).view(shape)


def mnist(part: str) -> tuple[Tensor, Tensor]:
    """Handwritten digits: images (N, 28, 28) of bytes, 0 for the ground, and which digit (N).

    Args:
        part: ``"train"`` (60,000) or ``"t10k"`` (10,000): of the files
            ``mnist/PART-images-idx3-ubyte.gz`` and ``mnist/PART-labels-idx1-ubyte.gz`` in the
            folder that ``ELMAN_DATA`` names.

    Raises:
        ElmanError: a file is missing, or is not MNIST's.
    """
    folder = Path(os.environ.get("ELMAN_DATA", ".")) / "mnist"
    paths = [folder / f"{part}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
    for path in paths:
        if not path.is_file():
            raise ElmanError(
                f"{path} is not there: put MNIST's four files there and let ELMAN_DATA name the "
                "folder above."
            )
    images, labels = map(read_idx, paths)
    if images.shape != (len(labels), 28, 28):
        raise ElmanError(
            f"{folder} holds images of the shape {tuple(images.shape)} for {len(labels)} digits; "
            f"expected ({len(labels)}, 28, 28), as MNIST's are."
        )
    return images, labels.long()
