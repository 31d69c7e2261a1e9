"""The folder of a run: everything a training leaves behind, readable without elman."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from elman.errors import ElmanError
from elman.training import storage

FORMAT = 1


class Run:
    """A run folder.

    ``config.json`` (task, data, settings), ``vocabulary.json``, ``model.safetensors`` (the best
    weights), ``checkpoint/state.safetensors`` (all that resuming needs), ``metrics.jsonl`` (a line
    an epoch), ``curves.png``, ``samples.txt``. Every file is replaced as a whole.
    """

    def __init__(self, path: Path, config: dict[str, Any]):
        self.path, self.config = path, config
        self._made: list[Path] = []  # the folders that were made for it, the innermost first
        self._locked: tuple[int, Callable[[], Any]] | None = None  # the folder, and to close it

    @classmethod
    def create(cls, path: Path, config: dict[str, Any]) -> Run:
        """Make the folder of a new run, with its ``config.json``.

        Raises:
            ElmanError: the folder is there already, or cannot be made.
        """
        from elman import __version__

        refuse_existing(path)
        run = cls(path, {"format": FORMAT, "elman": __version__, **config})
        run._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            (path / "checkpoint").mkdir(parents=True)
        except OSError as error:
            raise ElmanError(f"the folder {path} cannot be made ({error.strerror}).") from error
        try:
            storage.write_json(path / "config.json", run.config)
        except ElmanError:
            run.remove()
            raise
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open the folder of an earlier run.

        Raises:
            ElmanError: it is not there, is damaged, or another version of elman wrote it.
        """
        if not path.is_dir():
            raise ElmanError(f"no run {str(path)!r}: expected a folder that elman train has made.")
        config = storage.read_json(path / "config.json")
        if not isinstance(config, dict) or "format" not in config:
            raise ElmanError(f"{path / 'config.json'} is not that of a run: name another folder.")
        if config["format"] != FORMAT:
            raise ElmanError(
                f"{path} was written by elman {config.get('elman')} in format {config['format']}; "
                f"this elman reads format {FORMAT}: use that version, or train anew."
            )
        kinds = {"task": str, "data": list, "settings": dict, "checksums": list}
        for key, kind in kinds.items():
            if not isinstance(config.get(key), kind) or not config[key]:
                raise ElmanError(
                    f"{path / 'config.json'} is damaged: {key!r} is {config.get(key)!r}; "
                    "restore it or train anew."
                )
        if not all(isinstance(name, str) for name in config["data"]):
            raise ElmanError(f"{path / 'config.json'} is damaged: 'data' must be names of texts.")
        return cls(path, config)

    def reconfigure(self, settings: dict[str, Any]) -> None:
        """Keep changed settings."""
        self.config["settings"] = settings
        storage.write_json(self.path / "config.json", self.config)

    def remove(self) -> None:
        """Take the folder away again, where its run could not even start.

        Those above it that were made for it go too, unless there is something else in them.
        """
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            for folder in self._made[1:]:
                folder.rmdir()

    # -- one process at a time ----------------------------------------------------------------

    def lock(self) -> None:
        """Let nobody else train this run, until :meth:`unlock`.

        It is the system's lock on the folder, so that one whose process has died holds nobody up.

        Raises:
            ElmanError: it is being trained already.
        """
        if self._locked is not None:
            return
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(folder)
            raise ElmanError(
                f"{self.path} is being trained already: wait for that to end, or train anew."
            ) from None
        except OSError:  # a file system without locks
            pass
        self._locked = folder, weakref.finalize(self, os.close, folder)

    def unlock(self) -> None:
        """Let others train this run again."""
        if self._locked is not None:
            folder, close = self._locked
            # Not by closing alone: a forked process may have the folder open, too.
            with contextlib.suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_UN)
            close()
        self._locked = None

    # -- weights and checkpoints --------------------------------------------------------------

    def save_model(self, state: dict[str, Tensor]) -> None:
        """Keep the model's weights."""
        storage.write_tensors(self.path / "model.safetensors", state)

    @property
    def has_model(self) -> bool:
        """Whether weights have been kept yet."""
        return (self.path / "model.safetensors").exists()

    def load_model(self) -> dict[str, Tensor]:
        """The kept weights."""
        return storage.read_tensors(self.path / "model.safetensors")

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Keep all that resuming needs: any nesting of numbers, texts and tensors."""
        tensors: dict[str, Tensor] = {}
        plain = json.dumps(storage.take_apart(state, tensors))
        ready = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        storage.write_bytes(self._checkpoint, save(ready, metadata={"state": plain}))

    def load_checkpoint(self) -> dict[str, Any]:
        """What :meth:`save_checkpoint` kept.

        Raises:
            ElmanError: there is no checkpoint, or it is damaged.
        """
        if not self._checkpoint.is_file():
            raise ElmanError(f"{self.path} has no checkpoint to resume from: train anew.")
        try:
            with safe_open(self._checkpoint, framework="pt") as file:
                plain = json.loads(file.metadata()["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return storage.put_together(plain, tensors)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise ElmanError(f"{self._checkpoint} is damaged ({error}): train anew.") from None

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint" / "state.safetensors"

    # -- what it tells people -----------------------------------------------------------------

    def add_metrics(self, line: dict[str, Any]) -> None:
        """Append the measures of an epoch."""
        self.append("metrics.jsonl", json.dumps(line) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The measures of every epoch so far."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in map(_measures, lines) if line is not None]

    def forget_after(self, epoch: int) -> None:
        """Drop the measures and samples of epochs after ``epoch``: they will come again."""
        kept = [line for line in self.metrics() if line["epoch"] <= epoch]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        storage.write_bytes(self.path / "metrics.jsonl", text.encode())
        samples = self.path / "samples.txt"
        if samples.is_file():
            text = samples.read_text(encoding="utf-8", errors="replace")
            parts = re.split(r"(?m)^(?=== epoch \d+ ==$)", text)
            starts = [re.match(r"== epoch (\d+) ==", part) for part in parts]
            old = [p for p, m in zip(parts, starts, strict=True) if m and int(m[1]) <= epoch]
            storage.write_bytes(samples, "".join(old).encode())

    def add_sample(self, epoch: int, text: str) -> None:
        """Append something that the model made."""
        self.append("samples.txt", f"== epoch {epoch} ==\n{text}\n\n")

    def append(self, name: str, text: str) -> None:
        """Append ``text`` to the file of that name."""
        path = self.path / name
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise ElmanError(
                f"{path} could not be written ({error.strerror}): free some space, "
                f"then go on with `resume` {shlex.quote(str(self.path))}."
            ) from error


def _measures(line: str) -> dict[str, Any] | None:
    """A line of metrics; None where it was cut short or damaged."""
    try:
        measures = json.loads(line)
    except json.JSONDecodeError:
        return None
    return measures if isinstance(measures, dict) and "epoch" in measures else None


def refuse_existing(path: Path) -> None:
    """Raise an error where a new run's folder is there already."""
    if path.exists():
        go_on = (
            f"go on with that run with `resume` {shlex.quote(str(path))}, or "
            if (path / "config.json").is_file()
            else ""
        )
        raise ElmanError(f"{path} is there already: {go_on}name another folder with `run`.")


def free_folder(name: str, root: Path = Path("runs")) -> Path:
    """``runs/name``, or with the next number behind it where that is taken."""
    path, k = root / name, 1
    while path.exists():
        k += 1
        path = root / f"{name}-{k}"
    return path
