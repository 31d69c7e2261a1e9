from __future__ import annotations

import gc
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elman.data.streams import PADDING, Evaluation, Stream, TokenFile, fitting, split
from elman.errors import ElmanError, InputError


@st.composite
def streams(draw):
    batch = draw(st.integers(1, 4))
    steps = draw(st.integers(1, 5))
    length = draw(st.integers(batch * steps + 1, batch * steps * 4 + 9))
    return Stream(np.arange(length), batch, steps)


@given(stream=streams(), data=st.data())
def test_rows_are_contiguous_and_targets_follow(stream, data):
    offset = data.draw(st.integers(0, stream.offsets - 1))
    windows = list(stream.batches(offset))
    assert len(windows) == stream.windows(offset) >= 1
    inputs = torch.cat([window.inputs for window in windows])
    targets = torch.cat([window.targets for window in windows])
    assert inputs.dtype == targets.dtype == torch.int64
    # No token of the rows is left out, no window is too long, and all are of about one length.
    sizes = {len(window.inputs) for window in windows}
    assert max(sizes) <= stream.steps
    assert max(sizes) - min(sizes) <= 1
    assert torch.equal(targets, inputs + 1)
    # Down a column, time goes on by one, across windows too.
    assert torch.equal(inputs[1:], inputs[:-1] + 1)
    assert int(inputs[0, 0]) == offset
    row = (len(stream.tokens) - offset - 1) // stream.batch
    assert (inputs[0, 1:] - inputs[0, :-1] == row).all()
    assert inputs.shape == (row, stream.batch)


@given(stream=streams(), data=st.data())
def test_starting_at_a_window_is_skipping_those_before(stream, data):
    start = data.draw(st.integers(0, len(stream)))
    resumed = list(stream.batches(start=start))
    expected = list(stream.batches())[start:]
    assert len(resumed) == len(expected)
    for a, b in zip(resumed, expected, strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)


def test_the_textbook_example():
    # Dive into Deep Learning, sequential partitioning: 35 tokens, 2 rows, windows of 5. It
    # leaves out the two columns that make no whole window; here they are learned from.
    stream = Stream(np.arange(35), 2, 5)
    first, *rest = stream.batches()
    assert [len(window.inputs) for window in rest] == [4, 4, 5]
    first = next(Stream(np.arange(31), 2, 5).batches())
    assert first.inputs.T.tolist() == [[0, 1, 2, 3, 4], [15, 16, 17, 18, 19]]
    assert first.targets.T.tolist() == [[1, 2, 3, 4, 5], [16, 17, 18, 19, 20]]


def test_a_text_just_long_enough_and_one_too_short():
    assert len(Stream(np.arange(13), 3, 4)) == 1
    with pytest.raises(ElmanError, match=r"12 tokens, expected at least 13 \(batch 3 × steps 4"):
        Stream(np.arange(12), 3, 4)


def test_arguments_out_of_range():
    stream = Stream(np.arange(14), 3, 4)
    assert stream.offsets == 2
    with pytest.raises(InputError, match="offset is 2, expected 0 to 1"):
        stream.batches(2)
    with pytest.raises(InputError, match="offset is -1"):
        stream.batches(-1)
    with pytest.raises(InputError, match="start is 2, expected 0 to 1"):
        stream.batches(start=2)
    with pytest.raises(InputError, match="batch is 0, expected at least 1"):
        Stream(np.arange(14), 0, 4)
    with pytest.raises(InputError, match="steps is -1, expected at least 1"):
        Evaluation(np.arange(14), 1, -1)


def test_windows_do_not_share_memory_with_the_tokens():
    tokens = np.arange(5)
    next(Stream(tokens, 1, 4).batches()).inputs.zero_()
    assert tokens.tolist() == [0, 1, 2, 3, 4]


@given(length=st.integers(2, 60), rows=st.integers(1, 7), steps=st.integers(1, 9))
def test_every_target_is_judged_once(length, rows, steps):
    evaluation = Evaluation(np.arange(length), rows, steps)
    windows = list(evaluation)
    assert len(windows) == len(evaluation)
    inputs = torch.cat([window.inputs for window in windows])
    targets = torch.cat([window.targets for window in windows])
    judged = targets != PADDING
    assert sorted(targets[judged].tolist()) == list(range(1, length))
    assert torch.equal(inputs[judged] + 1, targets[judged])
    assert (inputs[~judged] == 0).all()
    assert evaluation.targets == length - 1
    # Padding stands at the end of a row only, so it never comes between a state and its text.
    assert torch.equal(judged, judged.cummin(0).values)
    assert all(len(window.inputs) == steps for window in windows[:-1])


def test_a_text_without_a_target():
    with pytest.raises(ElmanError, match="has 1 token, expected at least 2"):
        Evaluation(np.arange(1), 1, 1)


def test_split():
    train, validation = split(np.arange(1_115_394), 0.1)
    # The lengths that nanoGPT prints for the same text.
    assert (len(train), len(validation)) == (1_003_854, 111_540)
    assert validation[0] == 1_003_854
    assert len(split(np.arange(10), 0.0)[1]) == 0


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_split_out_of_range(share):
    with pytest.raises(InputError, match=f"validation is {share}"):
        split(np.arange(10), share)


@pytest.mark.parametrize(
    ("vocabulary", "dtype"), [(28, np.uint16), (65_536, np.uint16), (65_537, np.int32)]
)
def test_token_file(vocabulary, dtype):
    blocks = [np.arange(3, dtype=np.int32), np.array([vocabulary - 1], np.int32)]
    with TokenFile(blocks, vocabulary) as tokens:
        assert len(tokens) == 4
        assert tokens[:].dtype == dtype
        assert tokens[1:].tolist() == [1, 2, vocabulary - 1]
        window = next(Stream(tokens, 1, 3).batches())
        assert window.targets[:, 0].tolist() == [1, 2, vocabulary - 1]


def test_token_file_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    gc.collect()  # what earlier tests left open must not be closed between the two counts
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    tokens = TokenFile([np.arange(10)], 28)
    kept = tokens[2:4]
    tokens.close()
    assert len(tokens) == 0
    assert kept.tolist() == [2, 3]
    del tokens, kept
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before


def test_an_empty_token_file():
    with TokenFile([], 28) as tokens, pytest.raises(ElmanError, match="0 tokens"):
        Stream(tokens, 1, 1)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(10_000, (32, 35)), (9_000, (32, 35)), (2_000, (8, 35)), (36, (1, 4)), (2, (1, 1))],
)
def test_short_texts_have_fewer_rows_and_then_shorter_windows(length, expected):
    batch, steps = fitting(length, 32, 35, windows=8)
    assert (batch, steps) == expected
    assert len(Stream(np.zeros(length, np.int64), batch, steps)) >= min(8, length - 1)


def test_what_was_chosen_stays():
    assert fitting(400, 4, 35, windows=8, fixed=["batch"]) == (4, 12)
    assert fitting(400, 32, 35, windows=8, fixed=["steps"]) == (1, 35)
    assert fitting(400, 32, 35, windows=8, fixed=["batch", "steps"]) == (32, 35)
