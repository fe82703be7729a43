"""Token counts against the library called row by row."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from filters.text import tokens

tokenizers = pytest.importorskip("tokenizers", reason="the library tokenizers is not installed")
BPE = Path(__file__).resolve().parents[2] / "recipes" / "data" / "bpe4096.json"
TEXTS = [
    "The keeper wrote to his sister.",
    "",
    None,
    "日本語 and  spaces\n\n\n",
    "a" * 5000,
    "😀<|endoftext|>",
]


def counts(step, texts=TEXTS, kind=None):
    step.setup()
    array = step(pa.record_batch({"text": pa.array(texts, kind or pa.string())}))
    assert array.type == step.outputs[step.name]
    return array.to_pylist()


def test_counts_are_those_of_the_library():
    library = tokenizers.Tokenizer.from_file(str(BPE))
    wanted = [None if t is None else len(library.encode(t, add_special_tokens=False).ids) for t in TEXTS]
    assert counts(tokens.n_tokens(str(BPE))) == wanted
    assert wanted[1:3] == [0, None] and wanted[0] > 5
    assert counts(tokens.n_tokens(str(BPE)), kind=pa.large_string()) == wanted
    assert counts(tokens.n_tokens(str(BPE)), TEXTS[::-1]) == wanted[::-1]
    assert counts(tokens.n_tokens(str(BPE)), []) == []


def test_truncation_in_the_file_does_not_cap_counts_and_templates_are_optional(tmp_path):
    library = tokenizers.Tokenizer.from_file(str(BPE))
    library.enable_truncation(3)
    library.enable_padding(length=8)
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    capped = tmp_path / "capped.json"
    library.save(str(capped))
    assert json.loads(capped.read_text())["truncation"]["max_length"] == 3
    plain = counts(tokens.n_tokens(str(BPE)))
    assert counts(tokens.n_tokens(str(capped))) == plain
    more = counts(tokens.n_tokens(str(capped), special_tokens=True))
    assert more == [None if n is None else n + 1 for n in plain]


def test_identity_is_the_content_of_the_file(tmp_path):
    copy = tmp_path / "elsewhere.json"
    copy.write_bytes(BPE.read_bytes())
    assert tokens.n_tokens(str(copy)).identity == tokens.n_tokens(str(BPE)).identity
    copy.write_bytes(BPE.read_bytes() + b"\n")
    assert tokens.n_tokens(str(copy)).identity != tokens.n_tokens(str(BPE)).identity


def test_wrong_files_say_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a file; give the path of a tokenizer\.json"):
        tokens.n_tokens(str(tmp_path / "none.json")).setup()
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match=r"bad\.json is not a tokenizer\.json"):
        tokens.n_tokens(str(tmp_path / "bad.json")).setup()


def test_the_estimate_is_bytes_over_a_ratio():
    assert counts(tokens.n_tokens_estimate()) == [8, 0, None, 6, 1250, 4]
    assert counts(tokens.n_tokens_estimate(bytes_per_token=2.5), ["abcde", "é" * 5]) == [2, 4]
    with pytest.raises(ValueError, match="bytes_per_token is 0; it must be positive"):
        tokens.n_tokens_estimate(bytes_per_token=0)
