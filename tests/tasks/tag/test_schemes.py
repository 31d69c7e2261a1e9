"""Tags of spans in whatever scheme people write them: learned as their scheme allows, or said."""

from __future__ import annotations

import pytest

from elman.tasks.tag.task import Tagger, TagSettings

SMALL = {"hidden": 4, "embedding": 4, "validation": 0.0}


def _tagger(tmp_path, sentences):
    path = tmp_path / "spans.conll"
    path.write_text(
        "\n\n".join("\n".join(f"w{k} {tag}" for k, tag in enumerate(s.split())) for s in sentences)
    )
    return Tagger.create([str(path)], TagSettings(**SMALL)), path


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("O I-PER I-PER O I-LOC", "O B-PER I-PER O B-LOC"),  # IOB1
        ("I-PER B-PER I-LOC", "B-PER B-PER B-LOC"),
        ("O B-PER I-PER", "O B-PER I-PER"),
    ],
)
def test_the_same_spans_are_learned(tmp_path, caplog, given, meant):
    with caplog.at_level("WARNING", logger="elman"):
        job, path = _tagger(tmp_path, [given, "B-PER I-PER O"])
    assert job.examples("train")[0].tags == tuple(meant.split())
    assert ("1 sentences have tags that BIO does not allow" in caplog.text) == (given != meant)
    batch = next(iter(job.batches("train")))
    assert job.loss(job.model, batch, None).value.isfinite()
    # Whoever measures a trained model finds them read in the same way.
    again = Tagger.restore(job.settings, job.assets())
    assert again.as_example(again.kind.read([str(path)])[0]).tags == tuple(meant.split())


def test_parts_of_speech_stay_as_they_are(tmp_path):
    job, _ = _tagger(tmp_path, ["NOUN VERB", "I B O"])
    assert job.examples("train")[1].tags == ("I", "B", "O")
