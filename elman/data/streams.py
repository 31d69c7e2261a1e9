"""Token ids on disk, cut into the contiguous windows that truncated BPTT learns from."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import IO, NamedTuple, Protocol, Self

import numpy as np
import torch

from elman.data.shards import Shard
from elman.errors import ElmanError, InputError

PADDING = -100  # the target that torch's cross entropy ignores by default


class Tokens(Protocol):
    """A long row of token ids: an integer array (N) or a ``TokenFile``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice, /) -> np.ndarray: ...


class Window(NamedTuple):
    """Steps of a batch: inputs and the targets that follow them, both int64 (T, B)."""

    inputs: torch.Tensor
    targets: torch.Tensor


class TokenFile:
    """Token ids in a temporary file, read through the page cache: a text may outgrow memory.

    The file has no name and is gone once the object and all slices of it are.

    Args:
        blocks: the ids, integer arrays (N) one after the other.
        vocabulary: how many ids there are; up to 65,536 take two bytes each, else four.

    Raises:
        ElmanError: the temporary folder is full.
    """

    def __init__(self, blocks: Iterable[np.ndarray], vocabulary: int) -> None:
        dtype = np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.int32)
        with tempfile.TemporaryFile(prefix="elman-") as file:
            length = 0
            for ids in blocks:
                _write(file, ids.astype(dtype).tobytes())
                length += len(ids)
            # An empty file cannot be mapped. The mapping outlives the closed file.
            self._ids: np.ndarray = (
                np.memmap(file, dtype, "r", shape=(length,)) if length else np.zeros(0, dtype)
            )

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: slice) -> np.ndarray:
        return self._ids[index]

    def close(self) -> None:
        """Let go of the file; slices taken before stay readable."""
        self._ids = self._ids[:0].copy()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stream:
    """A text cut into ``batch`` rows of equal length, and the rows into windows.

    Row b of a window continues row b of the window before it, so a recurrent network carries its
    state from one to the next (Williams & Peng, 1990). The windows of a row are of equal length,
    give or take one step, and as few as ``steps`` allows: so every token of the rows is learned
    from, and no window is too short to give a good gradient. Fewer than ``batch`` tokens are left
    over at the end of the text; a different offset in every epoch moves the cuts.

    Args:
        tokens: the text's ids (N).
        batch: rows, B, of all processes together.
        steps: time steps a window at the most, T.

    Raises:
        InputError: an argument is below 1.
        ElmanError: the text is shorter than one window.
    """

    def __init__(self, tokens: Tokens, batch: int, steps: int) -> None:
        _at_least_one(batch=batch, steps=steps)
        needed = batch * steps + 1
        if len(tokens) < needed:
            lower = (
                "lower `batch` or `steps`, or give more text" if needed > 2 else "give more text"
            )
            raise ElmanError(
                f"the text has {_counted(tokens)}, expected at least {needed:,} "
                f"(batch {batch} × steps {steps} + 1); {lower}."
            )
        self.tokens = tokens
        self.batch = batch
        self.steps = steps

    @property
    def offsets(self) -> int:
        """How many offsets there are to choose from: 0 up to T − 1, as far as the text allows."""
        return min(self.steps, len(self.tokens) - self.batch * self.steps)

    def __len__(self) -> int:
        return self.windows()

    def windows(self, offset: int = 0) -> int:
        """Return the number of windows when the first ``offset`` tokens are left out."""
        return -(-self._row(offset) // self.steps)

    def batches(
        self, offset: int = 0, start: int = 0, shard: tuple[int, int] = (0, 1)
    ) -> Iterator[Window]:
        """Yield the windows in order.

        Args:
            offset: tokens to leave out at the start; default 0.
            start: number of the first window, to resume at once where training stopped.
            shard: rank r of w processes gets the rows from r B/w up to (r + 1) B/w of each window,
                which go on from window to window as in the whole; by default all rows.

        Raises:
            InputError: an argument is negative or past the end, or w does not divide B.
        """
        rows = Shard(*shard).rows(self.batch, even=True)
        windows = self.windows(offset)
        if offset >= self.offsets:
            raise InputError(
                f"offset is {offset}, expected 0 to {self.offsets - 1} for a text of "
                f"{len(self.tokens):,} tokens; lower it."
            )
        if not 0 <= start <= windows:
            raise InputError(
                f"start is {start}, expected 0 to {windows}, the number of windows; lower it."
            )
        return self._windows(offset, range(start, windows), rows)

    def _windows(self, offset: int, numbers: Iterable[int], rows: slice) -> Iterator[Window]:
        row = self._row(offset)
        begin, count = offset + rows.start * row, rows.stop - rows.start
        end = begin + count * row
        inputs = self.tokens[begin:end].reshape(count, row)
        targets = self.tokens[begin + 1 : end + 1].reshape(count, row)
        windows = self.windows(offset)
        for number in numbers:
            span = slice(row * number // windows, row * (number + 1) // windows)
            yield Window(_by_time(inputs[:, span]), _by_time(targets[:, span]))

    def _row(self, offset: int) -> int:
        if offset < 0:
            raise InputError(f"offset is {offset}, expected at least 0; raise it.")
        return max(0, len(self.tokens) - offset - 1) // self.batch


class Evaluation:
    """A text cut for judging a model: every token but the first is a target exactly once.

    As in ``Stream``, each row continues from window to window. The last row is filled up with
    input 0 and target −100, which cross entropy leaves out, and the last window may be shorter.

    Args:
        tokens: the text's ids (N).
        rows: rows, B; one row gives every prediction its whole past.
        steps: time steps a window, T.

    Raises:
        InputError: an argument is below 1.
        ElmanError: the text has no target.
    """

    def __init__(self, tokens: Tokens, rows: int, steps: int) -> None:
        _at_least_one(rows=rows, steps=steps)
        if len(tokens) < 2:
            raise ElmanError(
                f"the text has {_counted(tokens)}, expected at least 2, one to predict from and "
                "one to predict; give more text."
            )
        self.tokens = tokens
        self.rows = rows
        self.steps = steps

    @property
    def targets(self) -> int:
        """How many tokens are predicted: all but the first."""
        return len(self.tokens) - 1

    def __len__(self) -> int:
        return -(-self._row // self.steps)

    def __iter__(self) -> Iterator[Window]:
        return self.batches()

    def batches(self, shard: tuple[int, int] = (0, 1)) -> Iterator[Window]:
        """Yield the windows in order.

        Args:
            shard: rank r of w processes gets its share of the rows, as evenly as they can be split;
                so that sums over all processes' targets are sums over the text's. With fewer rows
                than processes, some have none and yield no window.

        Raises:
            InputError: there is no such rank.
        """
        return self._windows(range(self.rows)[Shard(*shard).rows(self.rows)])

    def _windows(self, rows: range) -> Iterator[Window]:
        for begin in range(0, self._row if rows else 0, self.steps):
            end = min(begin + self.steps, self._row)
            inputs = np.zeros((len(rows), end - begin), np.int64)
            targets = np.full((len(rows), end - begin), PADDING, np.int64)
            for k, number in enumerate(rows):
                first = number * self._row + begin
                past = min(number * self._row + end, self.targets)
                if first < past:
                    inputs[k, : past - first] = self.tokens[first:past]
                    targets[k, : past - first] = self.tokens[first + 1 : past + 1]
            yield Window(_by_time(inputs), _by_time(targets))

    @property
    def _row(self) -> int:
        return -(-self.targets // self.rows)


def fitting(
    length: int, batch: int, steps: int, windows: int, fixed: Collection[str] = ()
) -> tuple[int, int]:
    """Rows and steps for a text that is short, so that it makes some windows.

    Args:
        length: tokens of the text.
        batch: rows at the most; they are lowered first, so that the gradient still reaches back.
        steps: time steps a window at the most.
        windows: how many there should be.
        fixed: which of ``"batch"`` and ``"steps"`` is to stay.

    Returns:
        ``batch`` and ``steps``, as they are where the text makes so many windows.
    """
    targets = max(1, length - 1)

    def enough() -> bool:
        return -(-(targets // batch) // steps) >= windows

    if not enough() and "batch" not in fixed:
        batch = min(batch, max(1, targets // ((windows - 1) * steps + 1)))
    if not enough() and "steps" not in fixed:
        steps = min(steps, max(1, targets // batch // windows))
    return batch, steps


def blocks_of(*parts: Tokens, size: int = 1 << 20) -> Iterator[np.ndarray]:
    """Yield the ids of several texts, one after the other, in blocks that fit into memory."""
    for part in parts:
        for begin in range(0, len(part), size):
            yield part[begin : begin + size]


def joined(parts: Sequence[Tokens], vocabulary: int) -> Tokens:
    """Return the ids of several texts, one after the other, as one.

    Args:
        parts: the texts' ids.
        vocabulary: how many ids there are.
    """
    return parts[0] if len(parts) == 1 else TokenFile(blocks_of(*parts), vocabulary)


def split(tokens: Tokens, validation: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the first part of a text, to train on, and its last part, to validate on.

    Args:
        tokens: the text's ids (N).
        validation: the share of the last part, at least 0 and below 1; 0.1 keeps 90 % to train.

    Raises:
        InputError: ``validation`` is out of range.
    """
    if not 0 <= validation < 1:
        raise InputError(
            f"validation is {validation}, expected a share of at least 0 and below 1, such as 0.1; "
            "correct it."
        )
    cut = int(len(tokens) * (1 - validation))
    return tokens[:cut], tokens[cut:]


def _write(file: IO[bytes], content: bytes) -> None:
    try:
        file.write(content)
        # Here, or a full disk would show where the file is mapped.
        file.flush()
    except OSError as error:
        raise ElmanError(
            f"the temporary folder {tempfile.gettempdir()} cannot hold the tokens "
            f"({error.strerror or error}); make room there, or name another folder in TMPDIR."
        ) from error


def _counted(tokens: Tokens) -> str:
    return f"{len(tokens):,} token{'' if len(tokens) == 1 else 's'}"


def _by_time(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(rows.T, np.int64, order="C"))


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise InputError(f"{name} is {value}, expected at least 1; raise it.")
