"""Train the byte-level BPE of the small scales: ``python -m recipes.lm.train_tokenizer --out FILE.json``.

``recipes/data/bpe4096.json`` came from this script with its default arguments, on the trusted slice of the
embedded text pool, which neither the pool nor the held-out prose contains. It is committed because every
recipe must be tokenised alike; re-training on the same text gives the same file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data"
END_OF_TEXT = "<|endoftext|>"
ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>")
"""What tokenizers call the token that parts documents: GPT-2 and GPT-NeoX, Llama 3, SentencePiece, Gemma."""


def end_of_text(tokenizer: Any) -> int | None:
    """The id of a tokenizer's own token for the end of a text."""
    return next((id_ for id_ in map(tokenizer.token_to_id, ENDS) if id_ is not None), None)


def train_tokenizer(texts: Iterable[str], vocab: int = 4096):  # -> tokenizers.Tokenizer
    """Byte-level BPE of exactly ``vocab`` entries: end of text is 0, the 256 bytes follow, then merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocab:
        raise ValueError(
            f"the text gives only {tokenizer.get_vocab_size()} entries, {vocab} were asked for: add text"
        )
    return tokenizer


def main(argv: list[str] | None = None) -> None:
    from pools import demo_text

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--out", type=Path, default=None, help="default: recipes/data/bpe<vocab>.json")
    args = parser.parse_args(argv)
    out = args.out or DATA / f"bpe{args.vocab}.json"
    train_tokenizer((row["text"] for row in demo_text.trusted()), args.vocab).save(str(out), pretty=False)
    print(f"{out}: {args.vocab} entries")


if __name__ == "__main__":
    main()
