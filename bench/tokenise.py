"""Tokenising beside the `tokenizers` library: the same documents, one thread, ids compared in the same run.

    python bench/tokenise.py --tokenizer tokenizer.json     # GPT-NeoX's, from wherever you have it
    python bench/tokenise.py --megabytes 20                 # quicker; the small committed tokenizer
    python bench/tokenise.py --corpus texts.jsonl           # your own text: one {"text": …} a line

Without --corpus the text is what a Linux machine and this repository hold in many languages: the
translations of its programs (gettext catalogs), their documentation, main text of the embedded pool's web
pages and of those in ../shared/data, evaluation tasks there, and Python sources. Messages (of catalogs) and
documents (of the rest) that came before are left out, so that every megabyte is distinct; documents are
shuffled with a fixed seed.

The library is timed on `encode_batch_fast` over a list of str alone, without reading its ids; ours from an
Arrow array to arrays of ids, with nothing left out. "cold": the memo is empty at the start; "warm": it has
seen the text before. Seconds are CPU seconds of one run.
"""

from __future__ import annotations

import argparse
import gettext
import glob
import gzip
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# ruff: noqa: E402
import numpy as np
import pyarrow as pa
from text import load_pages, pool_html

from recipes.lm import encode

ROOT = Path(__file__).resolve().parents[1]
PART = 4 << 20  # bytes that are encoded and compared at a time


def catalogs() -> Iterator[str]:
    """A document a gettext catalog: its translated messages, those of earlier catalogs left out."""
    seen: set[int] = set()
    roots = ("/usr/share/locale", "/usr/share/locale-langpack", *sys.path)
    for path in sorted({p for root in roots for p in glob.glob(f"{root}/**/*.mo", recursive=True)}):
        try:
            with open(path, "rb") as file:
                messages = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        except (OSError, ValueError, LookupError):  # not a catalog that Python can read
            continue
        lines = []
        for key, message in messages.items():
            number = hash(message)
            if key and message and message != key and number not in seen:
                seen.add(number)
                lines.append(message)
        yield "\n".join(lines)


def pages() -> Iterator[str]:
    """Main text of web pages."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    for page in [*pool_html(), *load_pages(None)[1]]:
        text = extract_plain_text(bytes_to_str(page, detect_encoding(page)), main_content=True)
        yield text.encode("utf-8", "replace").decode()


def documentation() -> Iterator[str]:
    for path in sorted(Path("/usr/share/doc").rglob("*")):
        if path.is_file() and not path.is_symlink() and path.suffix in (".gz", ".txt", ".html", ".md", ""):
            content = path.read_bytes()
            try:
                yield (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
            except (UnicodeDecodeError, OSError, EOFError):
                continue


def tasks() -> Iterator[str]:
    folder = Path(os.environ.get("WINNOW_SHARED_DATA", ROOT.parent / "shared" / "data")) / "lm_eval"
    for path in sorted(folder.rglob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield "\n".join(value for value in json.loads(line).values() if isinstance(value, str))


def sources() -> Iterator[str]:
    for path in sorted(Path(np.__file__).parents[1].rglob("*.py"))[:4000]:
        try:
            yield path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def jsonl(path: str) -> Iterator[str]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


SOURCES: dict[str, tuple[Callable[[], Iterator[str]], float]] = {  # and its share of the whole, at most
    "catalogs, ~100 languages": (catalogs, 0.6), "documentation": (documentation, 0.12),
    "web pages": (pages, 0.15), "task files": (tasks, 0.08), "Python sources": (sources, 0.05),
}  # fmt: skip


def gather(megabytes: float, corpus: str | None) -> dict[str, list[str]]:
    """Source → its distinct documents."""
    todo = {corpus: (lambda: jsonl(corpus), 1.0)} if corpus else SOURCES
    seen: set[bytes] = set()
    out: dict[str, list[str]] = {}
    left = megabytes * 1e6
    for name, (texts, share) in todo.items():
        room = given = min(left, megabytes * 1e6 * share)
        out[name] = []
        for text in texts():
            content = text.encode("utf-8", "replace")
            digest = hashlib.blake2b(content, digest_size=16).digest()
            if not content.strip() or digest in seen:
                continue
            seen.add(digest)
            out[name].append(content.decode())
            room -= len(content)
            if room < 0:
                break
        left -= given - room
        random.Random(0).shuffle(out[name])
    return out


def parts(texts: list[str]) -> list[pa.LargeStringArray]:
    """The texts as Arrow arrays of PART bytes."""
    arrow = pa.array(texts, pa.large_string())
    sizes = np.diff(np.frombuffer(arrow.buffers()[1], np.int64)[: len(arrow) + 1])
    cuts = np.flatnonzero(np.diff((np.cumsum(sizes) - sizes) // PART, prepend=-1))
    return [arrow[int(a) : int(b)] for a, b in zip(cuts, [*cuts[1:], len(arrow)], strict=True)]


def clock(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def tiktoken_of(encoder: encode.Encoder) -> Any:
    """tiktoken with the same vocabulary, if it is installed: its ranks are ids, so ids may differ."""
    try:
        import tiktoken
    except ImportError:
        return None
    from recipes.lm import bpe_tables

    content = json.loads(encoder.path.read_bytes())
    alphabet = bpe_tables.byte_alphabet()
    added = {token["id"] for token in content["added_tokens"]}
    ranks = {
        bytes(alphabet[char] for char in token): number
        for token, number in content["model"]["vocab"].items()
        if all(char in alphabet for char in token) and number not in added
    }
    pattern = bpe_tables.GPT2
    pre = content["pre_tokenizer"]
    if pre["type"] == "Sequence":
        pattern = pre["pretokenizers"][0]["pattern"]["Regex"]
    return tiktoken.Encoding("same", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokenizer", default="bpe4096", help="path or name (recipes.lm.encode.load)")
    parser.add_argument("--megabytes", type=float, default=120.0, help="text to gather, at most")
    parser.add_argument("--corpus", help="jsonl file with text in place of what this machine holds")
    options = parser.parse_args()

    encoder, fresh = encode.load(options.tokenizer), encode.load(options.tokenizer)
    if not encoder.fast:
        sys.exit(f"{options.tokenizer} is not served by the compiled passes: {encoder.why_not}")
    fresh.encode(pa.array(["compile", "é e\u0301"]))
    peer = tiktoken_of(encoder)
    corpus = gather(options.megabytes, options.corpus)
    print(f"{encoder.path.name}: {encoder.vocab:,} ids; memo of at most {encoder.memo_bytes / 1e6:.0f} MB")
    print("MB/s of one thread, CPU time; a ratio is to tokenizers' encode_batch_fast")
    heads = ("tokenizers", "tiktoken", "ours, cold", "ours, warm", "ratio cold", "ratio warm", "ids")
    print(f"{'':26} {'MB':>7} {'docs':>8} " + " ".join(f"{head:>12}" for head in heads))
    total = np.zeros(6)
    wrong = 0
    for name, texts in corpus.items():
        spent = np.zeros(4)
        size = tokens = differ = 0
        pieces = parts(texts) if texts else []
        for part in pieces:
            listed = part.to_pylist()
            size += sum(len(text.encode()) for text in listed)
            seconds, encoded = clock(
                lambda listed=listed: encoder.tokenizer.encode_batch_fast(listed, add_special_tokens=False)
            )
            spent[0] += seconds
            seconds, (offsets, ids) = clock(lambda part=part: encoder.encode(part))
            spent[2] += seconds
            tokens += len(ids)
            for i, one in enumerate(encoded):
                differ += not np.array_equal(one.ids, ids[offsets[i] : offsets[i + 1]])
            if peer:
                spent[1] += clock(lambda listed=listed: peer.encode_ordinary_batch(listed, num_threads=1))[0]
        for part in pieces:
            spent[3] += clock(lambda part=part: encoder.encode(part))[0]
        wrong += differ
        total += [*spent, size, len(texts)]
        row(name, size, len(texts), spent, f"{tokens:,}" if not differ else f"{differ} DIFFER")
    row("all", total[4], int(total[5]), total[:4], "all equal" if not wrong else f"{wrong} DIFFER")
    if not peer:
        print("tiktoken is not installed: its column is empty")
    state = encoder.memo_state()
    print(f"memo: {state['words']:,} words held, emptied {state['emptied']} times")
    sys.exit(wrong > 0)


def row(name: str, size: float, docs: int, spent: np.ndarray, note: str) -> None:
    speeds = [f"{size / 1e6 / s:12.2f}" if s else f"{'-':>12}" for s in spent]
    ratios = [f"{spent[0] / s:11.1f}x" if s else f"{'-':>12}" for s in spent[2:]]
    print(
        f"{name:26} {size / 1e6:7.1f} {docs:8,} " + " ".join([*speeds, *ratios]) + f" {note:>12}", flush=True
    )


if __name__ == "__main__":
    main()
