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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from recipes.lm.train_tokenizer import DATA, END_OF_TEXT

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GROUP_BYTES = 8 << 20  # text handed to the library at a time
DIRECTORY = "WINNOW_TOKENIZER_DIR"  # where tokenizers lie that are fetched otherwise: NAME.json
KNOWN = {"gpt-neox-20b": "https://huggingface.co/EleutherAI/gpt-neox-20b/resolve/main/tokenizer.json"}


class TokenizerError(ValueError):
    """A tokenizer that cannot be read or text that cannot be encoded; the message names what and the mend."""


@dataclass(frozen=True)
class Encoder:
    """A tokenizer as documents are read for training."""

    path: Path
    tokenizer: Tokenizer = field(repr=False, compare=False)
    hash: str  # sha256 of the tokenizer file
    vocab: int  # ids are below this
    end: int  # id of <|endoftext|>
    why_not: str = ""

    @property
    def fast(self) -> bool:
        """Do the compiled passes serve this tokenizer? If not, ``why_not`` says why."""
        return not self.why_not

    def encode(self, texts: pa.StringArray | pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
        """(offsets (n+1,) int64, ids (m,) uint32) of ``n`` documents; a null is an empty one.

        Raises TokenizerError with the row of a document that is not UTF-8.
        """
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks()
        texts = _checked(texts)
        return self.encode_plainly(texts)

    def encode_plainly(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """The same by the `tokenizers` library alone: the oracle of ``encode``, and what serves when
        ``fast`` is false."""
        sizes = np.zeros(len(texts), np.int64)
        parts = []
        for first, last in _groups(texts):
            group = [text or "" for text in texts.slice(first, last - first).to_pylist()]
            encoded = self.tokenizer.encode_batch_fast(group, add_special_tokens=False)
            found = [np.array(encoding.ids, np.uint32) for encoding in encoded]
            sizes[first:last] = [len(ids) for ids in found]
            parts += found
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        return offsets, np.concatenate(parts) if parts else np.zeros(0, np.uint32)

    def __reduce__(self) -> tuple[Any, ...]:  # workers read the file themselves
        return load, (self.path,)


def load(name_or_path: str | Path) -> Encoder:
    """The encoder of a tokenizer.json: a path, the name of a file in ``recipes/data``, or a name in KNOWN.

    Raises TokenizerError when there is no such file, or it has no ``<|endoftext|>`` to part documents with.
    """
    from tokenizers import Tokenizer

    path = find(name_or_path)
    content = path.read_bytes()
    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{path}: not a tokenizers JSON file: {error}") from error
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    end = tokenizer.token_to_id(END_OF_TEXT)
    if end is None:
        raise TokenizerError(f"{path}: no {END_OF_TEXT} token to part documents with")
    vocab = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
    return Encoder(path, tokenizer, hashlib.sha256(content).hexdigest(), vocab, end, "not compiled yet")


def find(name_or_path: str | Path) -> Path:
    """The file of a tokenizer, fetched where it is one of KNOWN and not in $WINNOW_TOKENIZER_DIR."""
    name = str(name_or_path)
    folder = os.environ.get(DIRECTORY)
    for path in (
        DATA / f"{name}.json",
        *((Path(folder) / f"{name}.json", Path(folder) / name / "tokenizer.json") if folder else ()),
        Path(name),
        Path(name) / "tokenizer.json",
    ):
        if path.is_file():
            return path
    if name in KNOWN:
        from pools.fetch import cached

        return cached(KNOWN[name])
    have = ", ".join([*sorted(path.stem for path in DATA.glob("*.json")), *KNOWN])
    raise TokenizerError(f"no tokenizer {name!r}; known: {have}, or the path of a tokenizer.json")


def _checked(texts: pa.Array) -> pa.Array:
    """A string array that is UTF-8 throughout."""
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


def _groups(texts: pa.Array) -> list[tuple[int, int]]:
    """Runs of documents of about GROUP_BYTES."""
    import pyarrow.compute as pc

    sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    number = (np.cumsum(sizes) - sizes) // GROUP_BYTES
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    return [(int(a), int(b)) for a, b in zip(starts, [*starts, len(texts)][1:], strict=True)]
