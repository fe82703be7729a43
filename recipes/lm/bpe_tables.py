"""From a tokenizer.json to the arrays of the compiled passes, or the reason why it has none.

Served: byte-level BPE (model ``BPE`` whose vocabulary holds every byte, without dropout, byte fallback or
affixes) behind no normaliser or NFC, with the pattern of GPT-2, cl100k / Llama 3 or Qwen 2, ``ignore_merges``
or not, and added tokens that match anywhere as they are. All else goes by the `tokenizers` library.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recipes.lm import bpe_kernels as kernels
from recipes.lm import bpe_unicode

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {  # pattern -> (which kernel, digits in a piece)
    GPT2: (kernels.GPT2, 0),
    _CL100K % r"\p{N}{1,3}": (kernels.CL100K, 3),
    _CL100K % r"\p{N}": (kernels.CL100K, 1),
}
MOST_NODES = 1 << 14  # of a trie of added tokens, 1 kB each


class Unfit(ValueError):
    """The compiled passes do not serve this tokenizer; the message says why."""


class Model(NamedTuple):
    """Byte-level BPE: see ``bpe_kernels.merged``."""

    byte_ids: np.ndarray  # int32[256], -1 for bytes that UTF-8 never has
    byte_pairs: np.ndarray  # int32[65536], rank of the merge of two bytes, or NO_PAIR
    merges: np.ndarray  # uint64[2 ** bits], open addressing: left, right (ID_BITS each), rank (RANK_BITS)
    bits: int
    merge_ids: np.ndarray  # int32, the id that the merge of a rank makes


class Plan(NamedTuple):
    """Arguments of ``bpe_kernels.encode`` that a tokenizer decides."""

    pattern: int
    digits: int
    prefix_space: bool
    nfc: bool
    raw_trie: tuple[np.ndarray, np.ndarray]  # added tokens found before normalisation
    trie: tuple[np.ndarray, np.ndarray]  # and after
    model: Model
    whole: tuple[np.ndarray, np.ndarray]


def byte_alphabet() -> dict[str, int]:
    """Character -> byte of GPT-2's byte-level alphabet: printable bytes stand for themselves, the others for
    U+0100 and on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + k): byte for k, byte in enumerate(others)}


def plan(content: dict[str, Any], normalize: Any = None) -> Plan:
    """The plan of a parsed tokenizer.json. ``normalize``: the library's own normaliser, str to str.

    Raises Unfit.
    """
    pattern, digits, prefix_space = _pre_tokenizer(content.get("pre_tokenizer"))
    nfc = _normalizer(content.get("normalizer"))
    model = content["model"]
    if model.get("type") != "BPE":
        raise Unfit(f"its model is {model.get('type')}, not BPE")
    for option in ("dropout", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise Unfit(f"its model has {option} {model[option]!r}")
    vocab = model["vocab"]
    added = content.get("added_tokens", [])
    most = max([*vocab.values(), *(token["id"] for token in added)], default=0)
    if most >> kernels.ID_BITS:
        raise Unfit(f"it has ids up to {most}; the compiled memo holds {kernels.ID_BITS} bits")
    raw, late = [], []
    for token in added:
        if not token["content"]:
            continue
        special = bool(token["special"])
        for option in ("single_word", "lstrip", "rstrip"):
            if token[option] and not special:
                raise Unfit(f"its added token {token['content']!r} has {option}")
        text = token["content"]
        if token["normalized"]:
            late.append((normalize(text) if normalize else text, token["id"], special))
            continue
        raw.append((text, token["id"], special))
        if not special and (nfc or prefix_space):
            what = "its normaliser" if nfc else "its prefix space"
            raise Unfit(f"its added token {text!r} is cut out before {what} sees the text")
    if prefix_space and not all(special for *_, special in late):
        raise Unfit("it has added tokens, and a prefix space after each")
    found = _model(vocab, model["merges"])
    whole = _whole(vocab if model.get("ignore_merges") else {})
    return Plan(pattern, digits, prefix_space, nfc, trie(raw), trie(late), found, whole)


def _normalizer(found: dict[str, Any] | None) -> bool:
    """Is it NFC?"""
    if found is None:
        return False
    if found["type"] == "Sequence":
        parts = [_normalizer(part) for part in found["normalizers"]]
        return any(parts)
    if found["type"] != "NFC":
        raise Unfit(f"its normaliser is {found['type']}, not NFC")
    return True


def _pre_tokenizer(found: dict[str, Any] | None) -> tuple[int, int, bool]:
    """(kernel, digits, prefix space)."""
    parts = found["pretokenizers"] if found and found["type"] == "Sequence" else [found]
    if any(part is None for part in parts) or parts[-1]["type"] != "ByteLevel":
        raise Unfit("its pre-tokenizer is not byte-level")
    *before, level = parts
    prefix_space = bool(level["add_prefix_space"])
    if not before and level.get("use_regex", True):
        return *PATTERNS[GPT2], prefix_space
    if len(before) != 1 or before[0]["type"] != "Split" or level.get("use_regex", True) or prefix_space:
        kinds = " + ".join(part["type"] for part in parts)
        raise Unfit(f"its pre-tokenizer ({kinds}) is not one of the compiled ones")
    split = before[0]
    # the patterns match every character, so matches are all there is, removed around them or isolated
    if (split["behavior"], split["invert"]) not in (
        ("Isolated", False),
        ("Removed", True),
        ("Isolated", True),
    ):
        raise Unfit(f"its pattern is used as {split['behavior']}, invert={split['invert']}")
    pattern = split["pattern"].get("Regex")
    if pattern not in PATTERNS:
        raise Unfit(f"its pattern is not one of the compiled ones: {pattern or split['pattern']}")
    return *PATTERNS[pattern], False


def _model(vocab: dict[str, int], merges: list[Any]) -> Model:
    byte_ids = np.full(256, -1, np.int32)
    for char, byte in byte_alphabet().items():
        if char in vocab:
            byte_ids[byte] = vocab[char]
        elif byte not in (0xC0, 0xC1) and byte < 0xF5:
            raise Unfit(f"its vocabulary lacks the byte {byte:#04x}")
    if len(merges) >> kernels.RANK_BITS:
        raise Unfit(f"it has {len(merges)} merges")
    ranks = {}
    merge_ids = np.zeros(len(merges), np.int32)
    for rank, merge in enumerate(merges):  # a pair that comes again has the later rank, as in the library
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        ranks[(vocab[left] << kernels.ID_BITS) | vocab[right]] = rank
        merge_ids[rank] = vocab[left + right]
    bits = max(4, (2 * len(ranks)).bit_length())
    free, mask = (1 << 64) - 1, (1 << bits) - 1
    table = [free] * (1 << bits)
    for key, rank in ranks.items():
        at = ((key * 0x9E3779B97F4A7C15) & free) >> (64 - bits)
        while table[at] != free:
            at = (at + 1) & mask
        table[at] = (key << kernels.RANK_BITS) | rank
    byte_pairs = np.full(65536, kernels.NO_PAIR, np.int32)
    for left in range(256):
        for right in range(256):
            key = (int(byte_ids[left]) << kernels.ID_BITS) | int(byte_ids[right])
            byte_pairs[(left << 8) | right] = ranks.get(key, kernels.NO_PAIR)
    return Model(byte_ids, byte_pairs, np.array(table, np.uint64), bits, merge_ids)


def _whole(vocab: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """A memo of the entries of a vocabulary, each of which is its own id."""
    alphabet = byte_alphabet()
    words = []
    for text, number in vocab.items():
        if text and all(char in alphabet for char in text):
            word = bytes(alphabet[char] for char in text)
            if len(word) <= kernels.LONGEST:
                words.append((word, number))
            else:
                raise Unfit(f"its vocabulary has an entry of {len(word)} bytes")
    bits = (2 * len(words)).bit_length() if words else 0
    slots = np.zeros(kernels.SLOT << bits, np.uint64)
    if not words:
        return slots, np.frombuffer(b"\0", np.uint8)  # read-only as below: kernels compile once, for one type
    data = np.frombuffer(b"".join(word for word, _ in words), np.uint8)
    offsets = np.cumsum([0, *(len(word) for word, _ in words)], dtype=np.int64)
    numbers = np.array([number for _, number in words], np.uint64)
    kernels.fill_whole(data, offsets, numbers, slots)
    return slots, data


def trie(tokens: list[tuple[str, int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    """(edges, accept) of added tokens (text, id, special): the next node of ``node`` by ``byte`` is
    ``edges[node << 8 | byte]``, 0 for none; ``accept[node]`` is the id, SKIPPED for a special one, or -1."""
    nodes: list[dict[int, int]] = [{}]
    accept = [-1]
    for text, number, special in tokens:
        node = 0
        for byte in text.encode():
            if byte not in nodes[node]:
                nodes[node][byte] = len(nodes)
                nodes.append({})
                accept.append(-1)
            node = nodes[node][byte]
        if accept[node] == -1:
            accept[node] = int(kernels.SKIPPED) if special else number
    if len(nodes) > MOST_NODES:
        raise Unfit(f"its {len(tokens)} added tokens are too many for a table")
    edges = np.zeros(len(nodes) << 8, np.int32)
    for node, after in enumerate(nodes):
        for byte, then in after.items():
            edges[(node << 8) | byte] = then
    return edges, np.array(accept, np.int32)


def characters() -> tuple[np.ndarray, np.ndarray]:
    """The tables that the patterns read."""
    table = bpe_unicode.load()
    return table.pages, table.classes
