"""Token counts: exact by any Hugging Face tokenizer file, or estimated from bytes.

    python -m filters.text.tokens tokenizer.json out/

says how many bytes of the text under `out/` a token has, and what an estimate with that ratio misses.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import curation as c


@dataclass(frozen=True)
class NTokens(c.Model):
    """Tokens of the text under a tokenizer: int32 column ``n_tokens``; null text gives null.

    ``tokenizer``: a ``tokenizer.json`` as the Hugging Face library `tokenizers` writes it; its content is
    this step's identity, not its place. ``special_tokens``: count those that the file's template adds to each
    text. Truncation and padding that the file may ask for are not applied. One thread a worker, unless
    $TOKENIZERS_PARALLELISM says otherwise.

    Raises FileNotFoundError or ValueError for a file that is not there or no tokenizer.
    """

    tokenizer: str
    special_tokens: bool = False
    inputs = ("text",)
    outputs = {"n_tokens": pa.int32()}

    def setup(self) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from tokenizers import Tokenizer

        if not Path(self.tokenizer).is_file():
            raise FileNotFoundError(
                f"n_tokens: {str(self.tokenizer)!r} is not a file; give the path of a tokenizer.json"
            )
        try:
            loaded = Tokenizer.from_file(str(self.tokenizer))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"n_tokens: {self.tokenizer} is not a tokenizer.json: {error}") from None
        loaded.no_truncation()
        loaded.no_padding()
        object.__setattr__(self, "_tokenizer", loaded)

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        text = batch.column("text")
        # without offsets where the library can: counts are all that is wanted
        encode = getattr(self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch)
        encoded = encode(pc.drop_null(text).to_pylist(), add_special_tokens=self.special_tokens)
        counts = np.zeros(len(text), np.int32)
        valid = np.asarray(text.is_valid())
        counts[valid] = [len(one) for one in encoded]
        return pa.array(counts, pa.int32(), mask=~valid)


n_tokens = NTokens


@dataclass(frozen=True)
class NTokensEstimate(c.Model):
    """About how many tokens: UTF-8 bytes / ``bytes_per_token``, rounded; int32 column ``n_tokens_estimate``.

    Good for budgets and shares over many pages, not for one page: see docs/signals.md for what it misses on
    the embedded pool. Measure the ratio of your tokenizer on a sample, with ``n_tokens`` and ``n_bytes``.
    """

    bytes_per_token: float = 4.0
    inputs = ("text",)
    outputs = {"n_tokens_estimate": pa.int32()}

    def __post_init__(self) -> None:
        if not self.bytes_per_token > 0:
            raise ValueError(
                f"n_tokens_estimate: bytes_per_token is {self.bytes_per_token}; it must be positive"
            )

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        size = pc.cast(pc.binary_length(batch.column("text")), pa.float64())
        return pc.cast(pc.round(pc.divide(size, self.bytes_per_token)), pa.int32())


n_tokens_estimate = NTokensEstimate


def main() -> None:
    import argparse

    import pyarrow.parquet as pq

    parser = argparse.ArgumentParser(description="Bytes per token, and what n_tokens_estimate misses.")
    parser.add_argument("tokenizer", help="a tokenizer.json")
    parser.add_argument("pages", help="folder with parquet files that have a column text")
    options = parser.parse_args()
    exact = NTokens(options.tokenizer)
    exact.setup()
    counts, sizes = [], []
    for file in sorted(Path(options.pages).rglob("*.parquet")):
        if "text" not in pq.read_schema(file).names:
            continue
        for batch in pq.ParquetFile(file).iter_batches(columns=["text"]):
            batch = batch.filter(pc.is_valid(batch.column("text")))
            counts.append(np.asarray(exact(batch)))
            sizes.append(np.asarray(pc.binary_length(batch.column("text"))))
    if not sum(map(len, counts)):
        raise SystemExit(f"{options.pages}: no parquet file with a column text")
    tokens, size = np.concatenate(counts).astype(float), np.concatenate(sizes).astype(float)
    ratio = size.sum() / tokens.sum()
    print(f"{len(tokens)} pages, {size.sum() / 1e6:.2f} MB, {ratio:.2f} bytes per token")
    for given in (4.0, ratio):
        guess = np.round(size / given)
        missed = np.abs(guess - tokens) / np.maximum(tokens, 1)
        print(
            f"bytes / {given:.2f}: {guess.sum() / tokens.sum() - 1:+.1%} in all; one page: "
            f"{np.median(missed):.1%} (median), {np.quantile(missed, 0.95):.0%} (one in twenty)"
        )


if __name__ == "__main__":
    main()
