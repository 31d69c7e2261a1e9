"""Does a model of 宋词 write in form? Each tune has its own pattern of clause lengths.

    python benchmarks/song_lyrics.py RUN [--tunes 20] [--lyrics 10] [--temperature 0.8] [--json]

A lyric is in form where its clause lengths, line by line, are a pattern that some real lyric of
the same tune has. Beside the model's share stand what it cannot beat and what it must beat: the
share among real lyrics, each judged by the others, and the share for patterns of other tunes.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

from elman.data.text import open_text
from elman.tasks import open_run
from elman.training.storage import to_json

Pattern = tuple[tuple[int, ...], ...]
_BREAKS = re.compile("[，。！？；、：]")


def pattern(lines: list[str]) -> Pattern:
    """The clause lengths of each line: 床前明月光，疑是地上霜。 is (5, 5)."""
    return tuple(tuple(len(c) for c in _BREAKS.split(line) if c) for line in lines)


def real_lyrics() -> dict[str, list[Pattern]]:
    """The patterns of the corpus, by tune."""
    patterns: dict[str, list[Pattern]] = defaultdict(list)
    for lyric in "".join(open_text("song-lyrics").blocks()).split("\n\n"):
        tune, *lines = lyric.strip().split("\n")
        if lines:
            patterns[tune].append(pattern(lines))
    return patterns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tunes", type=int, default=20, help="the most frequent ones")
    parser.add_argument("--lyrics", type=int, default=10, help="lyrics of each")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    job = open_run(options.run)
    corpus = real_lyrics()
    tunes = sorted(corpus, key=lambda tune: -len(corpus[tune]))[: options.tunes]
    counts, draw = Counter[str](), random.Random(0)
    example = ""
    for tune in tunes:
        known = Counter(corpus[tune])
        others = [p for other in tunes if other != tune for p in corpus[other]]
        for seed in range(options.lyrics):
            text = "".join(
                job.generate(
                    f"\n\n{tune}\n", 300, temperature=options.temperature, seed=seed, stop="\n\n"
                )
            )
            written = pattern(text.strip().split("\n"))
            counts["in form"] += written in known
            counts["lines of lengths that the tune has"] += sum(
                line in {each for p in known for each in p} for line in written
            )
            counts["lines"] += len(written)
            if written in known and not example and len(written) > 3:
                example = f"{tune}\n{text.strip()}"
            one = draw.choice(corpus[tune])
            counts["real, judged by the others"] += known[one] > 1
            counts["of another tune"] += draw.choice(others) in known
    total = len(tunes) * options.lyrics
    figures = {
        "lyrics": total,
        "in_form": counts["in form"] / total,
        "lines_in_form": counts["lines of lengths that the tune has"] / counts["lines"],
        "real_lyrics_in_form": counts["real, judged by the others"] / total,
        "other_tunes_in_form": counts["of another tune"] / total,
    }
    if options.json:
        print(to_json(figures))
        return
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):<22} {value:.3g}")
    print(f"\n{example}", file=sys.stdout)


if __name__ == "__main__":
    main()
