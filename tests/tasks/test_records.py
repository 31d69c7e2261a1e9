"""What jobs share whose data is records: here what a file asks a model."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pytest

from elman.tasks import TASKS

PACKING = {"": bytes, ".gz": gzip.compress, ".BZ2": bz2.compress, ".xz": lzma.compress}
ASKED = [
    ("dialogue", ".jsonl", '["hi", "hello"]\n', [("hi", "hello")]),
    ("extract", ".JSONL", '{"text": "Ada in Ulm"}\n', ["Ada in Ulm"]),
    ("translate", ".tsv", "ein Hund\ta dog\n", ["ein Hund"]),
    ("classify", ".Csv", "text,label\nfine,good\n", ["fine"]),
    *((job, ".TXT", "one\n\ntwo\n", ["one", "", "two"]) for job in ("dialogue", "tag", "extract")),
    ("translate", ".de", "ein Hund\n", ["ein Hund"]),
    ("tag", ".log", "the dog\n", ["the dog"]),
]


@pytest.mark.parametrize("packed", PACKING)
@pytest.mark.parametrize(("name", "ending", "text", "asked"), ASKED)
def test_a_file_asks_what_its_records_give(tmp_path, name, ending, text, asked, packed):
    path = tmp_path / f"asked{ending}{packed}"
    path.write_bytes(PACKING[packed](text.encode()))
    job = TASKS[name]
    assert job(job.Settings()).inputs_of(path) == asked


@pytest.mark.parametrize("packed", PACKING)
def test_a_file_of_tagged_sentences_asks_them_without_their_tags(tmp_path, packed):
    path = tmp_path / f"asked.CoNLL{packed}"
    path.write_bytes(PACKING[packed](b"the DET\ndog NOUN\n"))
    job = TASKS["tag"]
    (sentence,) = job(job.Settings()).inputs_of(path)
    assert (sentence.tokens, sentence.tags) == (("the", "dog"), ())
