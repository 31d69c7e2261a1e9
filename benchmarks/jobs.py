"""The field's jobs in one table: what elman reaches beside what is published, as recorded.

    python benchmarks/jobs.py              the table of docs/jobs.md, from benchmarks/results
    python benchmarks/jobs.py --write      put it there

Record a row anew with ``python benchmarks/record.py benchmarks/recipes/NAME.toml``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"


class Row(NamedTuple):
    """A recipe, the figure that it is judged by, and what others have published.

    Attributes:
        recipe: its name in ``benchmarks/recipes``.
        what: the job and its data.
        figure: name, how to write it, and what it is called.
        published: the figures of others, and where they stand.
    """

    recipe: str
    what: str
    figure: tuple[str, str, str]
    published: str


ACCURACY, F1, EXACT = (
    (name, "{:.1%}", called)
    for name, called in (("accuracy", "right"), ("f1", "F1"), ("exact", "exact"))
)
BLEU, PERPLEXITY = ((name, "{:.1f}", name) for name in ("bleu", "perplexity"))
FORM = ("written/without the mask/in_form", "{:.1%}", "in form, by the condition alone")
NATS = ("nats_per_token", "{:.3f}", "nats a character")
NONE = "–"
TAI = "{} by a BiLSTM with GloVe vectors ([Tai et al., 2015](https://arxiv.org/abs/1503.00075))"
ROWS = (
    Row("sst-2", "classify, SST-2 sentences", ACCURACY, TAI.format(87.5)),
    Row("sst-5", "classify, SST-5 sentences", ACCURACY, TAI.format(49.1)),
    Row("japanese-vowels", "classify, nine speakers of Japanese vowels", ACCURACY, NONE),
    Row("song-poets", "classify, which of ten poets wrote a 宋词", ACCURACY, NONE),
    Row(
        "tag-english", "tag, parts of speech of UD English EWT", ACCURACY,
        "about 95.4 with vectors ([Qi et al., 2020](https://arxiv.org/abs/2003.07082))",
    ),
    Row(
        "tag-chunks", "tag, chunks of CoNLL-2000", F1,
        "94.46 by a BiLSTM-CRF ([Huang et al., 2015](https://arxiv.org/abs/1508.01991))",
    ),
    Row("tag-chunks-vectors", "tag, the same from vectors of Brown", F1, NONE),
    Row("tag-segment-chinese", "tag, words of UD Chinese GSD", F1, NONE),
    Row("tag-segment-chinese-joint", "tag, words and their parts of speech", F1, NONE),
    Row("extract-english", "extract, entities and relations, English", F1, NONE),
    Row("extract-chinese", "extract, entities and relations, Chinese", F1, NONE),
    Row(
        "multi30k", "translate, Multi30k German–English, 2016", BLEU,
        "28.3 with 20.5 M parameters",
    ),
    Row("multi30k-plain", "translate, the same without attention", BLEU, NONE),
    Row("tatoeba", "translate, Tatoeba English–French", BLEU, NONE),
    Row("dailydialog-en-zh", "translate, DailyDialog English–Chinese", BLEU, NONE),
    Row("dialogue-en", "dialogue, DailyDialog", PERPLEXITY, NONE),
    Row("dialogue-zh", "dialogue, XDailyDialog in Chinese", PERPLEXITY, NONE),
    Row("lyrics", "lyrics, 宋词 by their tunes", FORM, NONE),
    Row("arithmetic", "arithmetic, sums of three digits", EXACT, NONE),
    Row("dates", "dates, as ISO 8601 has them", EXACT, NONE),
    Row(
        "tiny-shakespeare-weight-drop", "language-model, Tiny Shakespeare", NATS,
        "1.4697 by a transformer on a GPU ([nanoGPT](https://github.com/karpathy/nanoGPT))",
    ),
    Row("wikitext-2", "language-model, WikiText-2, of its validation part", PERPLEXITY, NONE),
)  # fmt: skip


def recorded(recipe: str) -> dict[str, Any] | None:
    """What :mod:`record` has kept of a recipe."""
    path = RESULTS / f"{recipe}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def found(figures: Any, path: str) -> Any:
    """A figure by its name, or by those of the tables that it stands in, with strokes between."""
    for name in path.split("/"):
        figures = figures.get(name, {}) if isinstance(figures, dict) else {}
    return figures if isinstance(figures, (int, float)) else None


def table() -> str:
    """The rows that are recorded, as Markdown."""
    lines = ["| job and data | elman | seconds | parameters | published | recipe |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in ROWS:
        result = recorded(row.recipe)
        if result is None:
            continue
        figures, (name, written, called) = result["figures"], row.figure
        value = found(figures, name)
        shown = "–" if value is None else f"**{written.format(value)}** {called}"
        # A run that was gone on with has no record of the processor's time in all.
        processor, wall = result.get("processor_seconds"), figures.get("seconds", 0)
        seconds = f"{wall:,.0f} on the wall" if processor is None else f"{processor:,.0f}"
        lines.append(
            f"| {row.what} | {shown} | {seconds} | {figures.get('parameters', 0):,} | "
            f"{row.published} | [{row.recipe}](../benchmarks/recipes/{row.recipe}.toml) |"
        )
    return "\n".join(lines)


PAGE = Path(__file__).parent.parent / "docs" / "jobs.md"
BEGIN, END = "<!-- python benchmarks/jobs.py --write -->", "<!-- end -->"


def page() -> str:
    """The page with the table as it is now."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(), "utf-8")
    else:
        print(table())
