"""Where contexts come from: text shards that are tokenised on the way, or tokens that lie ready.

A source gives the contexts of step n, the same on every machine. Of the global batch each process takes its
rows; nothing about a source knows how many there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from recipes.lm import data
from recipes.lm.budget import Budget
from recipes.lm.model import Shape
from recipes.lm.run_folder import TrainingError
from recipes.training import ahead as reading

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Batch:
    """Some rows of one step's global batch."""

    contexts: np.ndarray
    """(rows, T+1) int64."""
    position: Mapping[str, Any]
    """Where the source stands after this step; what :meth:`Source.seek` takes."""
    whole: Callable[[], tuple[list[str], np.ndarray]]
    """Names of the rows or contexts of the global batch, and all of its tokens: for the report of one."""


class Source(Protocol):
    """Contexts in an order that depends on the data and the seed only."""

    rows: int
    bytes: int
    fingerprint: str
    about: str
    """For people: how much there is."""
    tokenizer: Path

    def seek(self, position: Mapping[str, Any] | None) -> None:
        """Stand where a :class:`Batch` said; at the start for none."""

    def take(self, step: int, first: int, last: int) -> Batch:
        """Rows ``first`` to ``last`` of the global batch of ``step``. Steps are taken one after the other."""

    def epochs(self) -> float:
        """How often the data have been read so far."""


class TextSource:
    """Shards of text, held in memory and tokenised as they are needed. Repeats without end."""

    def __init__(self, folder: Path, shape: Shape, budget: Budget, seed: int) -> None:
        tokenizer = data.load_tokenizer(budget.tokenizer)
        if tokenizer.get_vocab_size() > shape.vocab:
            raise _too_small(budget.tokenizer, tokenizer.get_vocab_size(), shape)
        corpus = data.read_corpus(folder)
        self.tokenizer = data.tokenizer_file(budget.tokenizer)
        self.rows, self.bytes = corpus.rows, corpus.bytes
        self.fingerprint = corpus.fingerprint
        self.about = f"{corpus.rows:,} rows, {corpus.bytes / 1e6:.1f} MB of text"
        self._batch = budget.batch
        self._open = lambda: data.Contexts(
            corpus, tokenizer, shape.context, seed=seed, piece_bytes=budget.piece_bytes
        )
        self._contexts: data.Contexts | None = None

    @property
    def contexts(self) -> data.Contexts:
        if self._contexts is None:
            self._contexts = self._open()
        return self._contexts

    def seek(self, position: Mapping[str, Any] | None) -> None:
        if position:
            self.contexts.seek(data.Position(**position))

    def take(self, step: int, first: int, last: int) -> Batch:
        contexts, ids = self.contexts.take(self._batch)
        return Batch(contexts[first:last], asdict(self.contexts.position), lambda: (ids, contexts))

    def epochs(self) -> float:
        return self.contexts.epochs


class TokenSource:
    """Token shards or tars of contexts: step n is contexts n x batch and on, in the order they lie in.

    Past the last one come seeded permutations (``recipes.lm.tokens.reading_order``), where that is allowed.
    """

    def __init__(
        self,
        path: Path,
        shape: Shape,
        budget: Budget,
        seed: int,
        allow_repeat: bool = False,
        compat: str | None = None,
    ) -> None:
        from recipes.lm.tokens import open_tokens

        tokens = open_tokens(path, vocab=shape.vocab, compat=compat)
        if tokens.length != shape.context + 1:
            raise TrainingError(
                f"{path}: contexts of {tokens.length:,} tokens, but the model's context of {shape.context:,} "
                f"needs {shape.context + 1:,} (inputs and the target one further); tokenise for this scale"
            )
        if tokens.vocab > shape.vocab:
            raise _too_small(str(path), tokens.vocab, shape)
        self.tokenizer = _same_tokenizer(path, budget, tokens.tokenizer_hash)
        needed = budget.steps * budget.batch
        # whoever made the tokens may have allowed the repeats already
        if needed > max(len(tokens), tokens.budget) and not allow_repeat:
            raise TrainingError(
                f"{path} has {len(tokens):,} contexts ({len(tokens) * shape.context:,} tokens to predict), "
                f"the budget reads {needed:,} ({needed * shape.context:,} tokens): that would be "
                f"{needed / len(tokens):.2f} epochs. Tokenise more text, or allow repeats"
            )
        self._tokens, self._shape, self._budget, self._seed = tokens, shape, budget, seed
        self._path, self._done = path, 0
        made_of = getattr(tokens, "info", {})  # tars do not say
        self.rows = made_of.get("documents", len(tokens))
        width = 2 if tokens.vocab <= 1 << 16 else 4
        self.bytes = made_of.get("text_bytes", len(tokens) * tokens.length * width)
        self.fingerprint = tokens.fingerprint
        self.about = f"{len(tokens):,} contexts, {needed / max(1, len(tokens)):.2f} epochs"

    def seek(self, position: Mapping[str, Any] | None) -> None:
        self._done = position["contexts"] // self._budget.batch if position else 0

    def take(self, step: int, first: int, last: int) -> Batch:
        self._done = step + 1
        contexts = self._rows(step, first, last)
        low, high = int(contexts.min()), int(contexts.max())
        if low < 0 or high >= self._shape.vocab:
            wrong = ((contexts < 0) | (contexts >= self._shape.vocab)).any(axis=1)
            names = [name for name, bad in zip(self._names(step, first, last), wrong, strict=True) if bad]
            raise TrainingError(
                f"{self._path}: step {step + 1} has token ids from {low} to {high}, the model knows 0 to "
                f"{self._shape.vocab - 1}; contexts (file:row) {', '.join(names[:10])}"
            )
        batch = self._budget.batch
        position = {"contexts": (step + 1) * batch}
        return Batch(contexts, position, lambda: (self._names(step, 0, batch), self._rows(step, 0, batch)))

    def epochs(self) -> float:
        return self._done * self._budget.batch / len(self._tokens)

    def _indices(self, step: int, first: int, last: int) -> np.ndarray:
        from recipes.lm.tokens import reading_order

        begin = step * self._budget.batch
        return reading_order(len(self._tokens), self._seed, np.arange(begin + first, begin + last))

    def _rows(self, step: int, first: int, last: int) -> np.ndarray:
        return self._tokens.rows(self._indices(step, first, last))

    def _names(self, step: int, first: int, last: int) -> list[str]:
        places = (self._tokens.place(int(i)) for i in self._indices(step, first, last))
        return [f"{file}:{row}" for file, row in places]


def open_source(
    path: Path,
    shape: Shape,
    budget: Budget,
    seed: int,
    allow_repeat: bool = False,
    compat: str | None = None,
) -> Source:
    """Tokens where ``path`` is a folder with ``tokens.json`` or a ``manifest.jsonl`` (or its folder); else
    text shards."""
    if (path / "tokens.json").is_file() or (path / MANIFEST).is_file() or path.name.endswith(MANIFEST):
        return TokenSource(path, shape, budget, seed, allow_repeat, compat)
    return TextSource(path, shape, budget, seed)


def batches(source: Source, first: int, steps: int, rows: tuple[int, int], ahead: bool) -> Iterator[Batch]:
    """The batches of steps ``first`` to ``steps``. ``ahead``: each is read while the one before is in use."""
    yield from reading.ahead((source.take(step, *rows) for step in range(first, steps)), int(ahead))


def _same_tokenizer(path: Path, budget: Budget, made_with: str) -> Path:
    """The tokenizer file of the scale, which the tokens must have been made with (where they say)."""
    file = data.tokenizer_file(budget.tokenizer)
    if made_with and _sha256(file) != made_with:
        raise TrainingError(
            f"{path} was made with another tokenizer (sha256 {made_with[:12]}…) than the scale's "
            f"{budget.tokenizer} ({_sha256(file)[:12]}…); tokenise for this scale"
        )
    return file


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _too_small(what: str, have: int, shape: Shape) -> TrainingError:
    return TrainingError(f"tokenizer {what!r} has {have} entries, the model only {shape.vocab}")
