"""Who wrote it, by characters alone: the baseline that a classifier of song-poets must beat.

    python benchmarks/poets.py

Bags of single characters, counted or weighed by TF–IDF, and of single ones and pairs weighed by it,
in front of a logistic regression (scikit-learn). C is chosen by the validation part; the test part
is read once.
"""

from __future__ import annotations

from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline

from elman.cli.output import print_json
from elman.data.kinds import labels

BAGS = ((CountVectorizer, 1), (TfidfVectorizer, 1), (TfidfVectorizer, 2))
STRENGTHS = (1.0, 10.0, 100.0)


def main() -> None:
    parts = {}
    for part in ("train", "validation", "test"):
        records = labels().read(["song-poets"], part)
        parts[part] = ["".join(r.input.split()) for r in records], [r.label for r in records]
    for kind, longest in BAGS:
        tried = [
            make_pipeline(
                kind(analyzer="char", ngram_range=(1, longest)),
                LogisticRegression(C=strength, max_iter=1000),
            ).fit(*parts["train"])
            for strength in STRENGTHS
        ]
        best = max(tried, key=lambda model: model.score(*parts["validation"]))
        texts, poets = parts["test"]
        print_json(
            {
                "features": f"{kind.__name__}, up to {longest} characters",
                "C": best[-1].C,
                "validation_accuracy": best.score(*parts["validation"]),
                "accuracy": best.score(texts, poets),
                "macro_f1": f1_score(poets, best.predict(texts), average="macro"),
            }
        )


if __name__ == "__main__":
    main()
