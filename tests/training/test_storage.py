from __future__ import annotations

import json
import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from elman import files
from elman.errors import ElmanError
from elman.training import schema, storage
from elman.training.run import Run

DTYPES = [
    torch.bool, torch.uint8, torch.int16, torch.int64, torch.float16, torch.bfloat16, torch.float32,
    torch.float64, torch.complex64, torch.complex128,
]  # fmt: skip


@st.composite
def tensors(draw):
    """Tensors of every type: without axes, without entries, views with bits to resolve, shared."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    values = torch.randn(shape, dtype=torch.complex128) * 9
    if not dtype.is_complex:
        values = values.real
    value = values.to(dtype)
    if dtype.is_complex and draw(st.booleans()):
        value = value.conj().imag if draw(st.booleans()) else value.conj()
    return value.requires_grad_() if dtype.is_floating_point and draw(st.booleans()) else value


SHARED = torch.arange(12.0).reshape(3, 4)
keys = st.recursive(
    st.text(alphabet="ab01/~[]$ \ud800界", max_size=3)
    | st.integers(-1, 3)
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False),
    lambda inner: st.tuples(inner, inner),
    max_leaves=3,
)
trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False)
    | tensors()
    | st.sampled_from([SHARED, SHARED.t(), SHARED[1]]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


def _same(a, b):
    """Whether two trees are equal: types of containers, numbers and tensors among the rest."""
    if isinstance(a, torch.Tensor):
        known = isinstance(b, torch.Tensor) and (a.dtype, a.shape) == (b.dtype, b.shape)
        return known and torch.equal(a.detach(), b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        # Keys in order, each of its type: 1 and True are one key to Python, 1 and "1" are not.
        return [_typed(k) for k in a] == [_typed(k) for k in b] and all(
            _same(a[k], b[k]) for k in a
        )
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b


def _typed(key):
    return (tuple, tuple(map(_typed, key))) if isinstance(key, tuple) else (type(key), key)


@settings(max_examples=60)
@given(tree=trees)
def test_any_nesting_survives_a_checkpoint(tree, tmp_path_factory):
    run = Run(tmp_path_factory.getbasetemp(), {})
    (run.path / "checkpoint").mkdir(exist_ok=True)
    run.save_checkpoint({"tree": tree})
    assert _same({"tree": tree}, run.load_checkpoint())


def test_places_are_read_by_people_and_never_one():
    one, two = torch.ones(1), torch.zeros(1)
    for tree in (
        {"a/b": one, "a": {"b": two}},
        {1: one, "1": two},
        {"": {"": one}, "/": two},
        {"[1]": one, 1: two},
        {"~2f~": one, "/": two},
        {None: one, "None": two},
        [{"0": one}, {0: two}],
        {(1, "a"): one, "[(1, 'a')]": two},
    ):
        tensors = {}
        assert _same(tree, storage.put_together(storage.take_apart(tree, tensors), tensors)), tree
        assert len(tensors) == 2
    tensors = {}
    storage.take_apart({"optimizer": {"state": {0: {"exp_avg": one}}}, "state": (two,)}, tensors)
    assert list(tensors) == ["/optimizer/state/[0]/exp_avg", "/state/0"]


def test_a_checkpoint_of_an_earlier_version(tmp_path):
    # Its places were the keys as they are; the tree, not the names, says what is where.
    run = Run.create(tmp_path / "run", {})
    plain = {"$pairs": [["a", {"$pairs": [[0, {"$tensor": "/a/0"}]]}], ["b", {"$tuple": [1, [2]]}]]}
    content = save({"/a/0": torch.ones(2)}, metadata={"state": json.dumps(plain)})
    run.checkpoint.write_bytes(content)
    assert _same(run.load_checkpoint(), {"a": {0: torch.ones(2)}, "b": (1, [2])})


def test_what_no_checkpoint_can_hold_is_named():
    with pytest.raises(TypeError, match=r"/a/1 is \{1\}, expected numbers, texts and tensors"):
        storage.take_apart({"a": [0, {1}]}, {})


def test_json_is_json_to_every_reader(tmp_path):
    content = {"a": [math.inf, -math.inf, math.nan, 1.5], "name": "\ud800 界"}
    storage.write_json(tmp_path / "f.json", content)
    text = (tmp_path / "f.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail)["a"] == [None, None, None, 1.5]
    assert "界" in text
    assert storage.read_json(tmp_path / "f.json")["name"] == content["name"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "no JSON: Exceeds the limit"),
        ('{"a": ', "no JSON: Expecting value"),
        (b"\xff", "codec can't decode"),
        ('{"a": "' + "x" * 500 + '"}', r"'a' is 'x+\.\.\.x+', expected a whole number"),
    ],
)
def test_json_that_cannot_be_used(tmp_path, content, words):
    path = tmp_path / "f.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ElmanError, match=rf"f.json is damaged \(.*{words}") as caught:
        storage.read_json(path, schema.record({"a": schema.whole()}))
    assert len(str(caught.value).removeprefix(str(path))) < 280
    assert "\n" not in str(caught.value)


def test_what_killed_writes_have_left_is_cleared_and_nothing_else(tmp_path):
    ours = [".state.safetensors.ab_12xyz", ".metrics.jsonl.abcdefgh", ".curves.png.00000000"]
    others = [
        ".state.safetensors.mine",
        "state.safetensors",
        ".config.json",
        ".x.abcdefgh",
        "a.txt",
    ]
    for name in ours + others:
        (tmp_path / name).write_text("")
    files.clear_temporary(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(others)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "f.json"
    storage.write_json(path, {"a": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ElmanError, match=r"No space left on device.*untouched"):
        storage.write_json(path, {"a": 2})
    assert storage.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["f.json"]
