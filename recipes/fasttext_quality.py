"""Train a fastText quality classifier: clean text against text of a pool.

    python -m recipes.fasttext_quality --positives trusted.jsonl --negatives out/rules/ --out models/quality/

Documents are cut into chunks of equally many words (a page of navigation with one good paragraph then
teaches what it should), both classes get equally many chunks, and a tenth of the documents is held out: the
report says how well the mean score of a document's chunks tells the classes apart. Labels are
``__label__hq`` and ``__label__lq``. With one thread and a seed the same input gives the same bytes.
``--preset dclm`` has the settings of DCLM's classifier (arXiv 2406.11794 §4.4); its positives are made by
`recipes.quality_positives`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from recipes.ranking import auc

HQ, LQ = "__label__hq", "__label__lq"

Rows = str | Path | Iterable[Mapping[str, Any]]
"""A folder or file of shards (parquet, jsonl(.gz|.zst)), or rows with ``id`` and ``text``."""


class ClassifierError(ValueError):
    """Input a classifier cannot be trained on."""


@dataclass(frozen=True)
class Settings:
    """What decides the model, beside the text."""

    ngrams: int = 2
    dim: int = 32
    epochs: int = 20
    lr: float = 0.1
    buckets: int = 200_000
    """Hash buckets of the word n-grams; they make most of the file: buckets × dim × 4 bytes."""
    min_count: int = 1
    chunk_words: int = 150
    """0 = whole documents."""
    heldout: float = 0.1
    """Share of the documents that is kept for the report."""
    max_chunks: int = 0
    """Most chunks of each class (0 = as many as the smaller class has)."""
    seed: int = 1


PRESETS = {
    "winnow": Settings(),
    "dclm": Settings(dim=100, epochs=5, buckets=2_000_000, chunk_words=0, max_chunks=200_000),
}
"""dclm: word two-grams on whole documents, 200,000 of each class, fastText's defaults otherwise."""


@dataclass(frozen=True)
class Report:
    """What was trained and how well held-out documents are told apart (0.5 = not at all, 1 = wholly)."""

    model: str
    settings: Settings
    documents: dict[str, int]
    chunks: dict[str, int]
    heldout_documents: dict[str, int]
    auc: float
    accuracy: float
    """At a score of 0.5, the mean over the two classes."""
    mean_score: dict[str, float]
    model_bytes: int
    model_hash: str


def train(
    positives: Rows,
    negatives: Rows,
    out_dir: str | Path,
    settings: Settings | None = None,
    *,
    quantize: bool = False,
) -> Report:
    """Write ``model.bin`` (``model.ftz`` if ``quantize``) and ``report.json`` to ``out_dir``.

    Raises ClassifierError when a class has too few documents to train on and to hold out.
    """
    import fasttext

    s = settings or Settings()
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    rows = {HQ: list(_rows(positives)), LQ: list(_rows(negatives))}
    split = {label: _split(label, documents, s.heldout) for label, documents in rows.items()}
    chunks = {label: _chunks(training, s) for label, (training, _) in split.items()}
    most = min(len(c) for c in chunks.values())
    most = min(most, s.max_chunks) if s.max_chunks else most
    # Hash order is a shuffle that depends on the text alone; SGD must not see one class after the other.
    lines = sorted(
        (f"{label} {text}" for label, texts in chunks.items() for text in texts[:most]), key=_order(s.seed)
    )
    with tempfile.TemporaryDirectory(dir=out) as folder:
        path = Path(folder) / "train.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        model = fasttext.train_supervised(
            str(path),
            wordNgrams=s.ngrams,
            dim=s.dim,
            epoch=s.epochs,
            lr=s.lr,
            bucket=s.buckets,
            minCount=s.min_count,
            seed=s.seed,
            thread=1,
            verbose=0,
        )
        if quantize:
            model.quantize(input=str(path), qnorm=True, retrain=False, thread=1, verbose=0)
    model_path = out / ("model.ftz" if quantize else "model.bin")
    partial = model_path.with_name("partial-" + model_path.name)
    model.save_model(str(partial))
    partial.replace(model_path)

    scores = {label: document_scores(model, heldout, s.chunk_words) for label, (_, heldout) in split.items()}
    report = Report(
        model=model_path.name,
        settings=s,
        documents={label: len(training) for label, (training, _) in split.items()},
        chunks=dict.fromkeys(chunks, most),
        heldout_documents={label: len(heldout) for label, (_, heldout) in split.items()},
        auc=auc(scores[HQ], scores[LQ]),
        accuracy=float((np.mean(scores[HQ] >= 0.5) + np.mean(scores[LQ] < 0.5)) / 2),
        mean_score={label: float(values.mean()) for label, values in scores.items()},
        model_bytes=model_path.stat().st_size,
        model_hash=f"{xxhash.xxh3_64_intdigest(model_path.read_bytes()):016x}",
    )
    (out / "report.json").write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    return report


def chunk_text(text: str, words: int) -> list[str]:
    """Text as fastText reads it (one line), in even chunks of about ``words`` words.

    Words that fastText would take for a label are left out: a page must not label itself.
    """
    tokens = [word for word in text.split() if not word.startswith("__label__")]
    if not tokens:
        return []
    if not words:
        return [" ".join(tokens)]
    count = max(1, round(len(tokens) / words))
    cuts = [len(tokens) * i // count for i in range(count + 1)]
    return [" ".join(tokens[a:b]) for a, b in pairwise(cuts)]


def document_scores(model: Any, documents: Iterable[tuple[str, str]], chunk_words: int) -> np.ndarray:
    """Probability of ``hq`` of each document ``(id, text)``: the mean over its chunks, 0..1."""
    out = []
    for _, text in documents:
        chunks = chunk_text(text, chunk_words)
        values = []
        for chunk in chunks:
            probability, label = model.f.predict(chunk + "\n", 1, 0.0, "strict")[0]
            values.append(probability if label == HQ else 1 - probability)
        out.append(float(np.mean(values)) if values else 0.0)
    return np.array(out)


def _rows(source: Rows) -> Iterator[tuple[str, str]]:
    if not isinstance(source, str | Path):
        yield from ((str(row["id"]), row["text"]) for row in source if row["text"])
        return
    from recipes.lm.data import read_corpus

    corpus = read_corpus(source)
    for row_id, text in zip(corpus.ids, corpus.text, strict=True):
        yield row_id.as_py(), text.as_py()


def _split(
    label: str, documents: list[tuple[str, str]], share: float
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(training, held out) by a hash of the id, so that a document never moves to the other side."""
    ordered = sorted(documents, key=lambda d: (xxhash.xxh3_64_intdigest(d[0].encode(), 7), d))
    count = round(len(ordered) * share)
    if count < 2 or len(ordered) - count < 2:
        raise ClassifierError(
            f"{label}: {len(ordered)} documents, {count} of them to hold out; both parts need two or more"
        )
    return ordered[count:], ordered[:count]


def _chunks(documents: list[tuple[str, str]], s: Settings) -> list[str]:
    """All chunks of a class in hash order: any prefix is a fair sample."""
    return sorted((c for _, text in documents for c in chunk_text(text, s.chunk_words)), key=_order(s.seed))


def _order(seed: int):
    return lambda line: (xxhash.xxh3_64_intdigest(line.encode("utf-8", "replace"), seed), line)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.fasttext_quality", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--positives", required=True, help="folder or file of clean text (id, text)")
    parser.add_argument("--negatives", required=True, help="folder or file of pool text (id, text)")
    parser.add_argument("--out", required=True, help="folder for model.bin and report.json")
    parser.add_argument(
        "--quantize", action="store_true", help="write model.ftz: smaller, slightly less exact"
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), default="winnow")
    for field in fields(Settings):
        default = field.default
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(default),
            help=f"default {default}, or the preset's",
        )
    args = vars(parser.parse_args(argv))
    positives, negatives, out, quantize = (args.pop(k) for k in ("positives", "negatives", "out", "quantize"))
    settings = replace(PRESETS[args.pop("preset")], **{k: v for k, v in args.items() if v is not None})
    try:
        report = train(positives, negatives, out, settings, quantize=quantize)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{Path(out) / report.model}: {report.model_bytes / 1e6:.1f} MB, {report.chunks[HQ]} chunks a class; "
        f"held-out AUC {report.auc:.4f}, accuracy {report.accuracy:.3f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
