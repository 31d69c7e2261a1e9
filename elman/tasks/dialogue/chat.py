"""Replies: what a model of dialogues answers, to dialogues side by side or turn after turn."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman.data.batches import in_order, pad
from elman.data.dialogues import END_OF_TURN, Dialogue, dialogue
from elman.data.place import Place
from elman.data.words import END, UNKNOWN
from elman.decoding import beam, draw
from elman.errors import InputError, brief
from elman.networks.conversation import Encoding
from elman.training.settings import Settings, option
from elman.training.task import Verb

if TYPE_CHECKING:
    from elman.tasks.dialogue.task import Conversation

NEW = "/new"
"""What is typed to begin anew."""

_REMEMBERED = 8
"""How many of its last replies a model is kept from repeating."""


@dataclass
class ReplyingSettings(Settings):
    """How replies are written."""

    beam: int = option(0, "Width of a beam that finds a likely reply; 0 draws one.", least=0)
    temperature: float = option(
        0.7, "Above 1 bolder, below 1 safer.", least=0, below=1e6, only=("beam", 0)
    )
    top_k: int | None = option(
        None, "Draw from the k likeliest only, such as 40.", least=1, only=("beam", 0)
    )
    top_p: float = option(
        0.9, "Draw from the likeliest that add up to p.", above=0, only=("beam", 0)
    )
    length: int = option(60, "The most tokens of a reply.", least=1, below=10**6)
    no_repeat: int = option(
        3, "So many tokens in a row never come twice in a reply; 0: they may.", least=0
    )
    repetition_penalty: float = option(
        1.0, "What two tokens in a row lose that earlier replies have, in nats.", least=0, below=1e6
    )
    seed: int | None = option(None, "Fixes the draws.", least=0, below=2**63, unset="drawn")


def _chat(
    task: Conversation, inputs: Iterable[Any], settings: ReplyingSettings
) -> Iterator[dict[str, str]]:
    chat = Chat(task, settings)
    for turn in inputs:
        if not isinstance(turn, str):
            raise InputError(
                f"a chat reads one turn after the other, received {brief(turn)}: give texts, or "
                "let `reply` answer whole dialogues."
            )
        if turn.strip() == NEW:
            chat = Chat(task, settings)
        elif turn.strip():
            yield {"reply": chat.answer(turn)}


def _reply(
    task: Conversation, inputs: Iterable[Any], settings: ReplyingSettings
) -> Iterator[dict[str, str]]:
    given = (_dialogue(each, number) for number, each in enumerate(inputs, 1))
    some = task.settings.batch

    def length(each: Dialogue) -> int:
        return sum(map(len, each.turns))

    def answers(dialogues: list[Dialogue]) -> list[dict[str, str]]:
        return [{"reply": reply} for reply in replies(task, dialogues, settings)]

    return in_order(given, some, length, answers)


CHAT = Verb(
    "chat",
    "Talk with a model: a turn a line, /new begins anew.",
    "RUN\nRUN --temperature 0.5 --top-p 0.8",
    _chat,
    "Turns",
    asks="> ",
    Settings=ReplyingSettings,
)

REPLY = Verb(
    "reply",
    f"Answer dialogues: a dialogue a line, {END_OF_TURN} between its turns.",
    f"RUN 'How are you ? {END_OF_TURN} Fine , and you ?'\nRUN --file dialogues.jsonl --beam 5",
    _reply,
    "Dialogues",
    each=True,
    Settings=ReplyingSettings,
)


def _dialogue(given: Any, number: int) -> Dialogue:
    """A dialogue of its turns, or of one text with what stands between turns."""
    place = Place("the inputs", number, "number")
    if isinstance(given, str):
        given = given.split(END_OF_TURN)
    if not isinstance(given, (list, tuple)) or not all(isinstance(turn, str) for turn in given):
        raise InputError(f"{place}: received {brief(given)}, expected a text, or a list of turns.")
    return dialogue(given, place)


class Chat:
    """A conversation. What was said is the encoder's state: it is not read again for a reply::

        chat = Chat(task, ReplyingSettings(seed=1))
        chat.answer("How are you ?")

    A reply is what ``reply`` writes for all turns so far, those of the model among them. Without
    attention the memory that it takes does not grow.

    Args:
        task: the trained model.
        settings: how it replies.
    """

    def __init__(self, task: Conversation, settings: ReplyingSettings):
        task.model.eval()
        self._task, self._settings = task, settings
        self._encoding: Encoding | None = None
        self._said: deque[list[int]] = deque(maxlen=_REMEMBERED)
        self._key = 0

    def answer(self, turn: str) -> str:
        """The reply to a turn, which is then part of the conversation."""
        encoding = self._hear(turn.strip())
        (reply,) = _written(self._task, encoding, [list(self._said)], [self._key], self._settings)
        self._hear(reply)
        self._said.append(self._task.side.encode(reply))
        return reply

    def _hear(self, turn: str) -> Encoding:
        self._key = _key(turn, self._key)
        self._encoding = _encode(self._task, [self._task.read(turn)], self._encoding)
        return self._encoding


def replies(
    task: Conversation, dialogues: Sequence[Dialogue], settings: ReplyingSettings
) -> list[str]:
    """The next turn of each dialogue, none of which depends on the others."""
    task.model.eval()
    read, said, keys = [], [], []
    for each in dialogues:
        ids = [task.read(turn) for turn in each.turns]
        read.append([id for turn in ids for id in turn])
        said.append([turn[:-1] for turn in ids[-2::-2][:_REMEMBERED]])
        keys.append(0)
        for turn in each.turns:
            keys[-1] = _key(turn, keys[-1])
    return _written(task, _encode(task, read), said, keys, settings)


@torch.inference_mode()
def _encode(task: Conversation, read: list[list[int]], before: Encoding | None = None) -> Encoding:
    tokens, lengths = pad(read)
    device = task.model.output.weight.device
    encoding: Encoding = task.model.hear(tokens.to(device), lengths.to(device), before)
    return encoding


def _written(
    task: Conversation,
    encoding: Encoding,
    said: list[list[list[int]]],
    keys: list[int],
    settings: ReplyingSettings,
) -> list[str]:
    """A reply to each of what was heard.

    Args:
        task: the trained model.
        encoding: by B encoders.
        said: the earlier replies, for each of them.
        keys: numbers that differ where what was heard differs, which draws are fixed by.
        settings: how to reply.
    """
    its, side, device = settings, task.side, task.model.output.weight.device
    with torch.inference_mode():
        start = task.model.answer(encoding)
    pairs, _ = pad([_pairs(each, side.end) for each in said], -1)
    asked: dict[str, Any] = {
        "step": _Reluctant(task.model, its.repetition_penalty),
        "state": (start, pairs.to(device)),
        "start": torch.full((len(said),), side.end, device=device),
        "end": side.end,
        "max_length": its.length,
        "min_length": 1,
        "no_repeat": its.no_repeat,
        "allowed": torch.tensor(
            [token not in (UNKNOWN, END, "\n") for token in side.vocabulary.tokens] + [True],
            device=device,
        ),
    }
    if its.beam:
        found = [best for best, *_ in beam(**asked, width=its.beam, length_penalty=1.0)]
    else:
        found = draw(
            **asked,
            temperature=its.temperature,
            top_k=its.top_k,
            top_p=its.top_p,
            seeds=None if its.seed is None else [(its.seed + key) % 2**63 for key in keys],
        )
    return [side.decode(each.tokens) for each in found]


class _Reluctant:
    """A step of a model that says again what it has said before less gladly.

    Its state has, beside the model's, the pairs of tokens that follow each other in earlier replies
    (K, B, 2). The second loses ``penalty`` nats after the first.
    """

    def __init__(self, model: Any, penalty: float):
        self._model, self._penalty = model, penalty

    def __call__(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        decoding, pairs = state
        logits, decoding = self._model.step(token, decoding)
        place, row = (pairs[..., 0] == token).nonzero(as_tuple=True)
        logits[row, pairs[place, row, 1]] -= self._penalty
        return logits, (decoding, pairs)


def _pairs(said: list[list[int]], start: int) -> Tensor:
    """The different pairs of tokens in a row (K, 2); a reply's start counts as one."""
    found = {pair for turn in said for pair in pairwise([start, *turn])}
    return torch.tensor(sorted(found), dtype=torch.int64).view(-1, 2)


def _key(turn: str, before: int) -> int:
    return zlib.crc32(f"{turn}\n".encode("utf-8", "surrogatepass"), before)


def distinct(texts: Iterable[Sequence[str]], n: int) -> float:
    """The share of n-grams that are different ones (Li et al., 2016)."""
    grams = [gram for words in texts for gram in zip(*(words[k:] for k in range(n)), strict=False)]
    return len(set(grams)) / max(1, len(grams))
