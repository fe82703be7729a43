"""Folders of token shards for the tests of the trainer, written without the code that writes them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import xxhash

TOKENIZER = Path(__file__).parents[2] / "recipes" / "data" / "bpe4096.json"


def write_tokens(folder: Path, contexts: np.ndarray, vocab: int = 4096, shards: int = 2, **info) -> Path:
    folder.mkdir(parents=True)
    entries = []
    for i, part in enumerate(np.array_split(contexts.astype("<u2"), shards)):
        content = part.tobytes()
        (folder / f"shard-{i:05d}.bin").write_bytes(content)
        digest = xxhash.xxh3_64_hexdigest(content)
        entries.append({"file": f"shard-{i:05d}.bin", "contexts": len(part), "xxh3": digest})
    described = {
        "format": "winnow-tokens/1",
        "length": contexts.shape[1],
        "dtype": "uint16",
        "vocab": vocab,
        "end": 0,
        "tokenizer": "bpe4096",
        "tokenizer_hash": hashlib.sha256(TOKENIZER.read_bytes()).hexdigest(),
        "contexts": len(contexts),
        "tokens": contexts.size,
        "shards": entries,
        "budget": len(contexts),
        "sources": [],
        "seed": 0,
    }
    (folder / "tokens.json").write_text(json.dumps(described | info))
    return folder


def walks(n: int, length: int, kinds: int = 50, seed: int = 0) -> np.ndarray:
    """(n, length) ids that a model can learn to predict: each is the last one plus 0, 1 or 2."""
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.integers(0, 3, (n, length)), axis=1) % kinds
