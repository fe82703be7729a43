"""transformer_score on a small BERT with random weights."""

import numpy as np
import pyarrow as pa
import pytest

from curation.expressions import evaluate
from filters.text.transformer import edu_rules, transformer_score

TEXTS = ["one two three four", "four three", None, "", "two " * 100, "one", "three three one"]


def make(folder, labels: int = 1):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizers = pytest.importorskip("tokenizers")
    import torch

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "three", "four"]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    )
    config = transformers.BertConfig(
        vocab_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, num_labels=labels, initializer_range=0.5,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)


def test_grades_equal_those_of_each_text_alone(tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = make(tmp_path)
    step = transformer_score(path=path, max_tokens=16, texts_at_once=3)
    step.setup()
    got = step(pa.record_batch({"text": pa.array(TEXTS, pa.string())})).to_pylist()
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(path),
        AutoTokenizer.from_pretrained(path),
    )
    for text, grade in zip(TEXTS, got, strict=True):
        if not text:
            assert (grade is None) == (text is None)
            continue
        with torch.inference_mode():
            encoded = tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
            alone = float(model(**encoded).logits[0, 0])
        assert grade == pytest.approx(alone, abs=1.5e-3) and grade == np.float32(round(grade, 3))
    assert len(set(got)) > 4  # the weights tell the texts apart


def test_a_model_with_more_outputs_is_refused(tmp_path):
    step = transformer_score(path=make(tmp_path, labels=2))
    with pytest.raises(ValueError, match="has 2 outputs"):
        step.setup()


def test_the_gpu_is_asked_for():
    assert transformer_score(gpus=1).resources.gpus == 1 and transformer_score().resources.gpus == 0


def test_rule_at_below_and_above_its_threshold():
    batch = pa.record_batch({"edu": pa.array([2.499, 2.5, 2.501, 3.0, 9.0, -1.0, None], pa.float32())})
    (rule,) = edu_rules()
    assert evaluate(rule.where, batch).tolist() == [False, False, True, True, True, False, False]
