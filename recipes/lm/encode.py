"""Text to token ids, many documents at a time: Arrow strings in, one array of ids out.

    from recipes.lm import encode
    encoder = encode.load("bpe4096")              # or a tokenizer.json, or "gpt-neox-20b"
    offsets, ids = encoder.encode(texts)          # document i is ids[offsets[i]:offsets[i + 1]]

The ids are those of the `tokenizers` library with ``encode_batch(texts, add_special_tokens=False)`` and
``encode_special_tokens``: no token is added, and a special token that a document spells out is read as plain
text, so that no page can end itself. Truncation and padding that a file asks for are turned off.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from filters.text.buffers import Utf8, utf8
from recipes.lm.train_tokenizer import DATA, ENDS, end_of_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from recipes.lm.bpe_tables import Plan

GROUP_BYTES = 8 << 20  # text handed to the library at a time
MEMO_SLOTS = 1 << 20  # of 60 bytes; three quarters of them are filled before it starts anew
DIRECTORY = "WINNOW_TOKENIZER_DIR"  # where tokenizers lie that are fetched otherwise: NAME.json
KNOWN = {  # name -> (where it is, digest of what decides its ids: see ``content_digest``)
    "gpt-neox-20b": (
        "https://huggingface.co/EleutherAI/gpt-neox-20b/resolve/main/tokenizer.json",
        "7f473f27ac83aa9d1e7131f248c15a463e80edee00cba1fc8262fdc7f234f8d7",
    )
}


class TokenizerError(ValueError):
    """A tokenizer that cannot be read or text that cannot be encoded; the message names what and the mend."""


@dataclass(frozen=True)
class Encoder:
    """A tokenizer as documents are read for training."""

    path: Path
    tokenizer: Tokenizer = field(repr=False, compare=False)
    hash: str  # sha256 of the tokenizer file
    vocab: int  # ids are below this
    end: int  # id of the token that ends a document
    why_not: str = ""
    _passes: Passes | None = field(default=None, repr=False, compare=False)

    @property
    def fast(self) -> bool:
        """Do the compiled passes serve this tokenizer? If not, ``why_not`` says why."""
        return not self.why_not

    def encode(self, texts: pa.StringArray | pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
        """(offsets (n+1,) int64, ids (m,) uint32) of ``n`` documents; a null is an empty one.

        Raises TokenizerError with the row of a document that is not UTF-8.
        """
        texts = _checked(texts)
        parts = [
            self._passes.encode(texts.slice(first, last - first), self.tokenizer)
            if self._passes
            else self._plainly(texts.slice(first, last - first))
            for first, last in _groups(texts)
        ]
        return _joined(parts)

    def encode_plainly(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """The same by the `tokenizers` library alone: the oracle of ``encode``."""
        texts = _checked(texts)
        return _joined([self._plainly(texts.slice(first, last - first)) for first, last in _groups(texts)])

    def _plainly(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        group = [text or "" for text in texts.to_pylist()]
        encoded = self.tokenizer.encode_batch_fast(group, add_special_tokens=False)
        found = [np.array(encoding.ids, np.uint32) for encoding in encoded]
        return np.cumsum([0, *map(len, found)], dtype=np.int64), np.concatenate(found)

    @property
    def memo_bytes(self) -> int:
        """Memory of the memo at its fullest; 0 without one."""
        return self._passes.memo_bytes if self._passes else 0

    def memo_state(self) -> dict[str, int]:
        """Words that the memo holds, how often it was emptied, words that were not in it so far."""
        state = self._passes.state.tolist() if self._passes else [0] * 5
        return {"words": state[0], "emptied": state[3], "missed": state[4]}

    def __reduce__(self) -> tuple[Any, ...]:  # workers read the file themselves
        return load, (self.path,)


class Passes:
    """The compiled passes of one tokenizer, and their memo (``bpe_kernels``). One thread at a time."""

    def __init__(self, plan: Plan, memo_slots: int = MEMO_SLOTS) -> None:
        from recipes.lm import bpe_tables, bpe_unicode

        self.plan, self._lock = plan, threading.Lock()
        self._characters = bpe_tables.characters()
        self._unicode = bpe_unicode.load()
        # a slot is 32 bytes; of each 12 bytes of long words and 4 ids of words with many, on average
        self._memo = (
            np.zeros(4 * memo_slots, np.uint64),
            np.zeros(12 * memo_slots, np.uint8),
            np.zeros(4 * memo_slots, np.uint32),
        )
        self.state = np.zeros(5, np.int64)
        self._out = np.zeros(0, np.uint32)

    @classmethod
    def of(cls, content: dict[str, Any], tokenizer: Tokenizer) -> Passes:
        """Of a parsed tokenizer.json and what the library makes of it. Raises bpe_tables.Unfit."""
        from recipes.lm import bpe_tables

        normalizer = tokenizer.normalizer
        return cls(bpe_tables.plan(content, normalizer.normalize_str if normalizer else None))

    @property
    def memo_bytes(self) -> int:
        """Memory of the memo at its fullest."""
        return sum(array.nbytes for array in self._memo)

    def encode(self, texts: pa.Array, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
        """(offsets, ids) of documents that are UTF-8."""
        from recipes.lm import bpe_kernels

        plan = self.plan
        with self._lock:
            data, offsets = self._prepared(texts, tokenizer)
            size = int(offsets[-1] - offsets[0]) + 6
            if len(self._out) < size:
                self._out = np.empty(size, np.uint32)
            ends = np.zeros(len(offsets), np.int64)
            total = bpe_kernels.encode(
                data, offsets, plan.pattern, plan.digits, plan.raw_trie, plan.trie, self._characters,
                tuple(plan.model), plan.whole, self._memo, self.state, self._out, ends,
            )  # fmt: skip
            return ends, self._out[:total].copy()

    def _prepared(self, texts: pa.Array, tokenizer: Tokenizer) -> Utf8:
        """The buffers of the texts as the patterns see them: normalised, behind a space if it is so."""
        import pyarrow.compute as pc

        from recipes.lm import bpe_kernels

        text = utf8(texts)
        if self.plan.nfc:
            sure = np.ones(len(texts), np.uint8)
            bpe_kernels.is_nfc(*text, *self._unicode, sure)
            if not sure.all():
                change = pa.array(sure == 0)
                others = [self._normalized(text, tokenizer) for text in texts.filter(change).to_pylist()]
                texts = pc.replace_with_mask(texts, change, pa.array(others, texts.type))
                text = utf8(texts)
        if self.plan.prefix_space:
            bare = pc.and_(pc.greater(pc.binary_length(texts), 0), pc.invert(pc.starts_with(texts, " ")))
            nothing, space = pa.scalar("", texts.type), pa.scalar(" ", texts.type)
            texts = pc.if_else(bare, pc.binary_join_element_wise(nothing, texts, space), texts)
            text = utf8(texts)
        return text

    def _normalized(self, text: str, tokenizer: Tokenizer) -> str:
        """NFC by the library, of the words that may need it: a space is never joined, moved, made or lost."""
        from recipes.lm import bpe_kernels

        words = text.split(" ")
        sure = np.ones(len(words), np.uint8)
        bpe_kernels.is_nfc(*utf8(pa.array(words, pa.large_string())), *self._unicode, sure)
        others = np.flatnonzero(sure == 0).tolist()
        normal = tokenizer.normalizer.normalize_str(" ".join(words[k] for k in others))
        for k, word in zip(others, normal.split(" "), strict=True):
            words[k] = word
        return " ".join(words)


def load(name_or_path: str | Path) -> Encoder:
    """The encoder of a tokenizer.json: a path, the name of a file in ``recipes/data``, or a name in KNOWN.

    Raises TokenizerError when there is no such file, or it has no token for the end of a text.
    """
    import orjson
    from tokenizers import Tokenizer

    from recipes.lm import bpe_tables

    path = find(name_or_path)
    content = path.read_bytes()
    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{path}: not a tokenizers JSON file: {error}") from error
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    end = end_of_text(tokenizer)
    if end is None:
        raise TokenizerError(f"{path}: none of {', '.join(ENDS)} is there to part documents with")
    vocab = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
    passes, why_not = None, ""
    try:
        passes = Passes.of(orjson.loads(content), tokenizer)
    except bpe_tables.Unfit as unfit:
        why_not = str(unfit)
    return Encoder(path, tokenizer, hashlib.sha256(content).hexdigest(), vocab, end, why_not, passes)


def compile_kernels() -> None:
    """Call every compiled pass once, so that numba has them in its cache."""
    import orjson
    from tokenizers import Tokenizer

    content = orjson.loads((DATA / "bpe4096.json").read_bytes())
    content["normalizer"] = {"type": "NFC"}
    content["model"]["ignore_merges"] = True
    tokenizer = Tokenizer.from_str(orjson.dumps(content).decode())
    Passes.of(content, tokenizer).encode(pa.array(["a word, e\u0301"]), tokenizer)


def find(name_or_path: str | Path) -> Path:
    """The file of a tokenizer, fetched where it is one of KNOWN and not in $WINNOW_TOKENIZER_DIR."""
    name = str(name_or_path)
    folder = os.environ.get(DIRECTORY)
    places = [DATA / f"{name}.json", Path(name), Path(name) / "tokenizer.json"]
    if folder:
        places[1:1] = [Path(folder) / f"{name}.json", Path(folder) / name / "tokenizer.json"]
    path = next((place for place in places if place.is_file()), None)
    if name in KNOWN:
        url, digest = KNOWN[name]
        if path is None:
            from pools.fetch import cached

            path = cached(url)
        if (found := content_digest(path.read_bytes())) != digest:
            raise TokenizerError(
                f"{path}: not the tokenizer {name} (digest {found[:12]}…, not {digest[:12]}…); delete it to "
                f"have it fetched again, or give its path in place of the name if it is the one you mean"
            )
    if path is not None:
        return path
    have = ", ".join([*sorted(path.stem for path in DATA.glob("*.json")), *KNOWN])
    raise TokenizerError(f"no tokenizer {name!r}; known: {have}, or the path of a tokenizer.json")


def content_digest(content: bytes) -> str:
    """sha256 of what decides the ids of a tokenizer.json: vocabulary, merges, normaliser, added tokens and
    pattern; the same however the file is laid out and whatever it says of post-processing."""
    import orjson

    try:
        parsed = orjson.loads(content)
        merges = [m.split(" ") if isinstance(m, str) else m for m in parsed["model"]["merges"]]
        pre = parsed["pre_tokenizer"]
        what = [
            parsed["model"]["type"], parsed["model"]["vocab"], merges, parsed["normalizer"],
            sorted(parsed["added_tokens"], key=lambda token: token["id"]),
            [pre["type"], pre.get("add_prefix_space"), pre.get("use_regex", True), pre.get("pretokenizers")],
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        return "unreadable"
    return hashlib.sha256(orjson.dumps(what, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _checked(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A string array that is UTF-8 throughout."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if pa.types.is_dictionary(texts.type) or pa.types.is_string_view(texts.type):
        texts = texts.cast(pa.large_string())
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise TokenizerError(f"documents are a column of strings; this one is {texts.type}")
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid as error:
        for row, text in enumerate(texts):
            try:
                text.as_py()
            except UnicodeDecodeError as wrong:
                raise TokenizerError(f"document {row} of the batch is not UTF-8: {wrong}") from None
        raise TokenizerError(f"not an array of strings: {error}") from error
    return texts


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """(offsets, ids) of documents from those of parts of them."""
    if len(parts) == 1:
        return parts[0]
    sizes = [np.diff(offsets) for offsets, _ in parts]
    offsets = np.concatenate(
        [np.zeros(1, np.int64), np.cumsum(np.concatenate([*sizes, []])).astype(np.int64)]
    )
    return offsets, np.concatenate([ids for _, ids in parts]) if parts else np.zeros(0, np.uint32)


def _groups(texts: pa.Array) -> list[tuple[int, int]]:
    """Runs of documents of about GROUP_BYTES."""
    import pyarrow.compute as pc

    sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    number = (np.cumsum(sizes) - sizes) // GROUP_BYTES
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    return [(int(a), int(b)) for a, b in zip(starts, [*starts, len(texts)][1:], strict=True)]
