"""The registry of corpora that elman knows by name.

To add a corpus: put its files in the folder that ``ELMAN_DATA`` names, enter their checksums with
``python -m elman.data.checksums``, and add one entry to ``CORPORA``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import partial

from elman.data import checksums, published, readers
from elman.data.corpus import Corpus, Reader, RecordReader
from elman.errors import InputError


def find(name: str) -> Corpus:
    """Return the corpus of that name.

    Raises:
        InputError: there is none; the message lists the names that come close.
    """
    if name in CORPORA:
        return CORPORA[name]
    raise InputError(
        f"{name!r} is not the name of a corpus{did_you_mean(name, CORPORA)}; "
        "`elman data` lists them all."
    )


def did_you_mean(word: str, candidates: Mapping[str, object] | Sequence[str]) -> str:
    """Return " (did you mean …?)" with the candidates that come close, or nothing."""
    names = list(candidates)
    holding = [name for name in names if len(word) > 2 and word.lower() in name.lower()]
    close = [*dict.fromkeys(holding + difflib.get_close_matches(word.lower(), names))][:3]
    return f" (did you mean {' or '.join(close)}?)" if close else ""


_CHECKSUMS = checksums.load()
_GITHUB = "https://raw.githubusercontent.com"
_POETRY = f"{_GITHUB}/chinese-poetry/chinese-poetry/99ebbef7e1345c0985c44b9fd96a3f9e776f117b"


_PARTS = ("train", "validation", "test")


def _corpus(
    name: str,
    title: str,
    *,
    licence: str,
    language: str,
    folder: str,
    base: str,
    files: str | None = None,
    reader: Reader | None = None,
    shipped: bool = False,
    records: Mapping[str, RecordReader | None] | None = None,
    parts: Sequence[Sequence[str]] = (),
    elsewhere: Mapping[str, str] | None = None,
) -> Corpus:
    """Make an entry.

    Args:
        files: the name that its files are entered under; default its own.
        parts: the files of training, validation and test.
    """
    return Corpus(
        name, title, licence, language, folder, base, _CHECKSUMS[files or name], reader, shipped,
        records or {}, dict(zip(_PARTS, parts, strict=False)), elsewhere or {},
    )  # fmt: skip


_BROWN_TEXTS = [*_CHECKSUMS["brown"]]
_NLTK = f"{_GITHUB}/teropa/nlp/f89bc5a15b516208de1cfe2abe9692b7ed9a43e2/resources/corpora"
_SIMILARITIES = (
    f"{_GITHUB}/mfaruqui/eval-word-vectors/09a5106f50818c0f4ad0a597d8c7d333ec0659fb/data/word-sim/"
)
_DIALOGUES = f"{_GITHUB}/liuzeming01/XDailyDialog/62949b52bf2eae170f47c24c3afc226d94d70c39/data/"
_HELD_OUT = f"{_GITHUB}/liuzeming01/XDailyDialog/6e7ecf54c9f169215b4b8c18995c7aac74117127/data/"
_TREES = f"{_GITHUB}/munikarmanish/RNTN/12bb731ba9fbdcdf2368b8515a241773f2b97547/trees/"


def _sst(name: str, title: str, names: Sequence[str | None], phrases: bool = False) -> Corpus:
    return _corpus(
        name,
        title,
        licence="research use",
        language="en",
        folder="sst",
        base=_TREES,
        files="sst",
        records={"labels": partial(published.sentiment, names=names, phrases=phrases)},
        parts=(["train.txt"], ["dev.txt"], ["test.txt"]),
        # Its source has those of dev.txt behind those of train.txt.
        elsewhere={"train.txt": ""},
    )


def _lives(language: str, title: str) -> Corpus:
    parts = [[f"lives-{language}.{part}.jsonl"] for part in ("train", "test")]
    return _corpus(
        f"lives-{language}",
        f"Sentences of lives, {title}: people, places, works, dates, and their relations",
        licence="MIT",
        language=language,
        folder="lives",
        base="",
        shipped=True,
        records={"annotations": None},
        parts=(parts[0], [], parts[1]),
    )


def _dailydialog(
    name: str,
    title: str,
    language: str,
    kind: str,
    reader: RecordReader | None,
    parts: Sequence[Sequence[str]],
) -> Corpus:
    return _corpus(
        name,
        title,
        licence="CC BY-NC-SA 4.0",
        language=language,
        folder="xdailydialog",
        base=_DIALOGUES,
        records={kind: reader},
        parts=parts,
        elsewhere={path: _HELD_OUT for files in parts[1:] for path in files},
    )


CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        _corpus(
            "time-machine",
            "The Time Machine, H. G. Wells (1895)",
            licence="public domain",
            language="en",
            folder="timemachine",
            base=f"{_GITHUB}/d2l-ai/d2l-zh/5918a8b9e8dd92e5085c15118e76c919b04f09a7/data/",
            reader=readers.plain,
            shipped=True,
        ),
        _corpus(
            "tiny-shakespeare",
            "Shakespeare's plays, 40,000 lines of them",
            licence="public domain",
            language="en",
            folder="tinyshakespeare",
            base=f"{_GITHUB}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
            "/data/tinyshakespeare/",
            reader=readers.plain,
        ),
        _corpus(
            "wikitext-2",
            "WikiText-2, the validation and test parts only, pre-tokenised",
            licence="CC BY-SA",
            language="en",
            folder="wikitext2",
            base=f"{_GITHUB}/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8"
            "/word_language_model/data/wikitext-2/",
            reader=readers.plain,
        ),
        _corpus(
            "brown",
            "Brown corpus: 500 texts of American English of 1961, without the tags",
            licence="redistribution permitted",
            language="en",
            folder="brown",
            base=f"{_NLTK}/brown/",
            reader=readers.brown,
        ),
        _corpus(
            "song-lyrics",
            "宋词: lyrics of the Song dynasty, 20,000 of them, each under its tune's name",
            licence="MIT",
            language="zh",
            folder="chinese-poetry/宋词",
            base=f"{_POETRY}/宋词/",
            reader=readers.poems,
            records={"poems": published.lyrics},
        ),
        _corpus(
            "tang-poems",
            "唐诗: the first 10,000 poems of the Complete Tang Poems, in traditional characters",
            licence="MIT",
            language="zh",
            folder="chinese-poetry/唐诗",
            base=f"{_POETRY}/全唐诗/",
            reader=readers.poems,
            records={"poems": published.lyrics},
        ),
        _corpus(
            "song-poets",
            "宋词 by the ten poets who wrote most of them: who wrote which",
            licence="MIT",
            language="zh",
            folder="chinese-poetry/宋词",
            base=f"{_POETRY}/宋词/",
            files="song-lyrics",
            records={"labels": published.poets},
            parts=([*_CHECKSUMS["song-lyrics"]],) * 3,
        ),
        _sst(
            "sst-2",
            "Stanford Sentiment Treebank: sentences of film reviews, negative or positive",
            published.POLARITIES,
        ),
        _sst(
            "sst-2-phrases",
            "sst-2 with every phrase in its trees to learn from, too",
            published.POLARITIES,
            phrases=True,
        ),
        _sst(
            "sst-5",
            "Stanford Sentiment Treebank: sentences of film reviews, five classes",
            published.SENTIMENTS,
        ),
        _sst(
            "sst-5-phrases",
            "sst-5 with every phrase in its trees to learn from, too",
            published.SENTIMENTS,
            phrases=True,
        ),
        _corpus(
            "japanese-vowels",
            "Japanese vowels: 12 LPC cepstra a frame, nine speakers",
            licence="CC BY 4.0",
            language="ja",
            folder="japanese-vowels",
            base=f"{_GITHUB}/littleowen/Conceptor/fa98a949a24af7666dd5395df15b8d52a6f33b4f/",
            records={"labels": published.vowels},
            parts=(["ae.train"], [], ["ae.test"]),
        ),
        _corpus(
            "ud-english-ewt",
            "Universal Dependencies English EWT: parts of speech",
            licence="CC BY-SA 4.0",
            language="en",
            folder="ud-en-ewt",
            base=f"{_GITHUB}/UniversalDependencies/UD_English-EWT"
            "/15d613d8447b3478787d4c278730a1e48a945efb/",
            records={"tags": None},
            parts=[[f"en_ewt-ud-{part}.conllu"] for part in ("train", "dev", "test")],
            # Its source has it in pieces, of which it is built.
            elsewhere={"en_ewt-ud-train.conllu": ""},
        ),
        _corpus(
            "ud-chinese-gsd",
            "Universal Dependencies Chinese GSD 1.3, traditional: words, parts of speech",
            licence="CC BY-NC-SA 4.0",
            language="zh",
            folder="ud-zh-gsd",
            base="",  # it is in the history of its source alone
            records={"tags": None},
            parts=[[f"zh-ud-{part}.conllu"] for part in ("train", "dev", "test")],
        ),
        _corpus(
            "conll2000",
            "CoNLL-2000: chunks of sentences of the Wall Street Journal",
            licence="research use",
            language="en",
            folder="conll2000",
            base=f"{_NLTK}/conll2000/",
            records={"tags": None},
            parts=(["train.txt"], [], ["test.txt"]),
        ),
        _corpus(
            "brown-tagged",
            "Brown corpus with its parts of speech; of ten texts, two are held out",
            licence="redistribution permitted",
            language="en",
            folder="brown",
            base=f"{_NLTK}/brown/",
            files="brown",
            records={"tags": published.brown},
            parts=(
                [text for k, text in enumerate(_BROWN_TEXTS) if k % 10 not in (4, 9)],
                _BROWN_TEXTS[4::10],
                _BROWN_TEXTS[9::10],
            ),
        ),
        _lives("en", "English"),
        _lives("zh", "Chinese"),
        _corpus(
            "multi30k-de-en",
            "Multi30k: captions of photographs, German and English; test of 2016",
            licence="research use",
            language="de-en",
            folder="multi30k",
            base=f"{_GITHUB}/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a"
            "/data/task1/raw/",
            records={"pairs": None},
            parts=[
                [f"{part}.de.gz", f"{part}.en.gz"] for part in ("train", "val", "test_2016_flickr")
            ],
        ),
        _corpus(
            "tatoeba-en-fr",
            "Tatoeba: short sentences, English and French",
            licence="CC BY 2.0",
            language="en-fr",
            folder="fra-eng",
            base=f"{_GITHUB}/genimind/seq2seq/843b8bc40396fbea4ac9171097122aacfc8b9660/",
            records={"pairs": published.tatoeba},
            parts=(["fra-eng.zip"],) * 3,
        ),
        _dailydialog(
            "dailydialog-en-zh",
            "XDailyDialog: turns of everyday dialogues, English and Chinese",
            "en-zh",
            "pairs",
            published.parallel_dialogues,
            (
                ["dialogues_text_En.txt", "dialogues_text_Zh.txt"],
                ["en_dev_human.txt", "zh_dev_human.txt"],
                ["en_test_human.txt", "zh_test_human.txt"],
            ),
        ),
        _dailydialog(
            "dailydialog-en",
            "DailyDialog: everyday dialogues in English, 8,000 of them",
            "en",
            "dialogues",
            None,
            (["dialogues_text_En.txt"], ["en_dev_human.txt"], ["en_test_human.txt"]),
        ),
        _dailydialog(
            "dailydialog-zh",
            "XDailyDialog: the dialogues of dailydialog-en in Chinese",
            "zh",
            "dialogues",
            None,
            (["dialogues_text_Zh.txt"], ["zh_dev_human.txt"], ["zh_test_human.txt"]),
        ),
        _corpus(
            "word-judgements",
            "SimLex-999, RG-65: how similar words are to people; 19,544 analogies of Google's",
            licence="Apache-2.0; free for research",
            language="en",
            folder="word-vectors",
            base=f"{_GITHUB}/dav/word2vec/fb150971c2accbe86c3c6b0a86a57804807f8ec4/data/",
            records={"judgements": None},  # gensim's scorers read the files themselves
            elsewhere={"EN-SIMLEX-999.txt": _SIMILARITIES, "EN-RG-65.txt": _SIMILARITIES},
        ),
    )
}
