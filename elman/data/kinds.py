"""The kinds of records, and the formats that each comes in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path

from elman.data import annotated, dialogues, labelled, pairs, poems, tagged
from elman.data.annotated import Annotated
from elman.data.dialogues import Dialogue
from elman.data.labelled import Labelled
from elman.data.pairs import Pair
from elman.data.poems import Poem
from elman.data.records import ANY, FOLDER, File, Kind, Reader
from elman.data.tagged import Tagged
from elman.errors import InputError


def labels(text_column: str | None = None, label_column: str | None = None) -> Kind[Labelled]:
    """Labelled texts or sequences; of tables, which columns: see :func:`labelled.read_table`."""
    table = partial(labelled.read_table, text_column=text_column, label_column=label_column)
    jsonl = partial(labelled.read_jsonl, text_column=text_column, label_column=label_column)
    readers: Mapping[str, Reader[Labelled]] = {
        ".tsv": table, ".csv": table, ".jsonl": jsonl, ".txt": labelled.read_lines_of_text,
        ".npz": labelled.read_array, ".npy": labelled.read_array, FOLDER: labelled.read_folder,
    }  # fmt: skip
    return Kind("labels", "labelled inputs", readers)


def tags(column: str | None = None, features: Sequence[str] = ()) -> Kind[Tagged]:
    """Tagged sentences.

    Args:
        column: the tag's: a number from 1, or from the end with -1, for CoNLL columns (default the
            last); a name for CoNLL-U (default UPOS).
        features: the columns of what else is known of the tokens, likewise.
    """

    def columns(path: Path, name: str) -> Iterator[Tagged]:
        numbers = [_number("tag_column", column or "-1", name)]
        numbers += [_number("feature_columns", feature, name) for feature in features]
        return tagged.read_columns(path, name, numbers[0], numbers[1:])

    def slashed(path: Path, name: str) -> Iterator[Tagged]:
        if features:
            raise InputError(
                f"{name} has words with their tags and nothing beside: leave out "
                "`feature_columns`, or give columns."
            )
        return tagged.read_slashed(path, name)

    conllu = partial(tagged.read_conllu, column=column or "UPOS", features=features)
    readers: Mapping[str, Reader[Tagged]] = {
        ".conll": columns, ".txt": columns, ".tsv": columns, ".iob": columns, ".bio": columns,
        ".conllu": conllu, ".tagged": slashed, ".pos": slashed,
    }  # fmt: skip
    return Kind("tags", "tagged sentences", readers, given=Tagged.untagged)


def _number(setting: str, column: str, name: str) -> int:
    try:
        return int(column)
    except ValueError:
        raise InputError(
            f"`{setting}` is {column!r}, expected a number for {name}, such as 2 or -1."
        ) from None


def _two_by_two(kind: Kind[Pair], files: Sequence[File]) -> Iterator[Pair]:
    """Pairs of files whose endings say nothing have the lines of a source and of its target."""
    sides = [file for file in files if file.ending == ANY]
    if len(sides) % 2:
        raise InputError(
            f"received {len(sides)} file{'s' if len(sides) > 1 else ''} of lines "
            f"({', '.join(file.name for file in sides)}), expected two by two, such as train.de "
            "train.en; or name pairs in one .tsv or .jsonl."
        )
    waiting: File | None = None
    for file in files:
        if file.ending != ANY:
            yield from kind.each([file])
        elif waiting is None:
            waiting = file
        else:
            yield from pairs.read_parallel(waiting.path, file.path, waiting.name, file.name)
            waiting = None


def _one_side(path: Path, name: str) -> Iterator[Pair]:
    raise InputError(
        f"{name} has lines of one language, expected pairs: .tsv or .jsonl with source and target."
    )


PAIRS: Kind[Pair] = Kind(
    "pairs",
    "pairs of texts",
    {".tsv": pairs.read_tsv, ".jsonl": pairs.read_jsonl, ANY: _one_side},
    _two_by_two,
)

DIALOGUES: Kind[Dialogue] = Kind(
    "dialogues", "dialogues", {".txt": dialogues.read_text, ".jsonl": dialogues.read_jsonl}
)

POEMS: Kind[Poem] = Kind(
    "poems",
    "poems",
    {".txt": poems.read_text, ".jsonl": poems.read_jsonl, ".json": poems.read_json},
    given=attrgetter("lines"),
)

ANNOTATIONS: Kind[Annotated] = Kind(
    "annotations", "annotated texts", {".jsonl": annotated.read_jsonl}
)
