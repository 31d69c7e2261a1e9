"""Trees in brackets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman.data.trees import Node, read_trees
from elman.errors import ElmanError


@pytest.fixture
def read(tmp_path):
    def through(text):
        path = tmp_path / "a.txt"
        path.write_text(text, encoding="utf-8")
        return list(read_trees(path, "a"))

    return through


def test_a_tree_a_line(read):
    (one, two) = read("(3 (2 It) (4 (4 really) (3 works)))\n\n(1 and\\/or)\n")
    works = Node("4", (Node("4", (), "really"), Node("3", (), "works")))
    assert one.root == Node("3", (Node("2", (), "It"), works))
    assert [node.label for node in one.root.nodes()] == ["3", "2", "4", "4", "3"]
    assert one.root.words() == ("It", "really", "works")
    assert (two.root.word, two.place.line) == ("and/or", 3)


def test_marks_are_brackets_again_and_words_may_hold_a_no_break_space(read):
    assert read("(2 (2 -LRB-) (2 (2 2\u00a01\\/2) (2 -RRB-)))")[0].root.words() == (
        "(", "2\u00a01/2", ")",
    )  # fmt: skip


def test_a_tree_may_be_deep(read):
    depth = 50_000
    tree = read("(2 " * depth + "(2 a)" + " (2 b))" * depth)[0]
    assert len(tree.root.words()) == depth + 1


words = st.text(st.characters(categories=["L", "N"]), min_size=1)
trees = st.recursive(
    st.tuples(words, words).map(lambda leaf: Node(leaf[0], (), leaf[1])),
    lambda below: st.tuples(words, st.lists(below, min_size=1).map(tuple)).map(lambda n: Node(*n)),
)


def written(node):
    return f"({node.label} {node.word or ' '.join(map(written, node.children))})"


@given(tree=trees)
def test_what_is_written_is_read(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("trees") / "a.txt"
    path.write_text(written(tree), encoding="utf-8")
    assert next(iter(read_trees(path, "a"))).root == tree


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(1 a", "1 brackets are not closed"),
        ("\n1 a)", "a bracket closes that was not open"),
        ("(1 a) (2 b)", "there is not one root"),
        ("(1 a) b", "there is not one root"),
        ("((1 a))", "a bracket opens without a label"),
        ("(1 a", "not closed"),
        ("(1", "not closed"),
        ("(", "without a label"),
        ("(1)", "'1' has neither children nor one word"),
        ("(1 a b)", "'1' has neither children nor one word"),
        ("(1 a (2 b))", "'1' has neither children nor one word"),
    ],
)
def test_what_is_no_tree_is_told_with_its_line(read, text, why):
    with pytest.raises(ElmanError, match=rf"a, line {1 + text.count(chr(10))}: .*tree such.*{why}"):
        read(text)
