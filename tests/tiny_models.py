"""Models that recipes ask for, small enough for a test. They judge nothing; they have the right form."""

from __future__ import annotations

from pathlib import Path

import pytest


def classifier(folder: Path, clean: list[str]) -> str:
    """A fastText classifier of clean texts: every second as it is, the others with their words sorted."""
    pytest.importorskip("fasttext", reason="fasttext is not installed: recipes with a classifier cannot run")
    from recipes import fasttext_quality

    rows = [{"id": str(n), "text": text} for n, text in enumerate(clean)]
    shuffled = [{"id": row["id"], "text": " ".join(sorted(row["text"].split()))} for row in rows[1::2]]
    settings = fasttext_quality.Settings(dim=4, epochs=3, buckets=1_000)
    fasttext_quality.train(rows[::2], shuffled, folder, settings)
    return str(folder / "model.bin")


def bert(folder: Path) -> str:
    """A BERT with one output and random weights, the same every time."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    import torch

    torch.manual_seed(0)
    words = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "of", "and"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=512
    )
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=512, num_labels=1,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)
