"""fastText classifiers, ours against the fasttext module: the same pages, one run, one thread, ratios.

    python bench/classifiers.py                # real web pages if there, else the embedded pool
    python bench/classifiers.py --pages 300    # quicker

language  lid.176 on the first 1,000 and 2,000 characters and on whole pages
quality   a classifier of word two-grams (dimension 100, as DCLM's; trained here on the embedded pool)
load      time to load each, and memory that a worker does not share with others

The module gets lists of Python strings that were cut and freed of newlines beforehand; ours gets the Arrow
column as it is. "Fresh": a model just loaded, that has no word in its memory yet. Seconds are CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(1, str(ROOT / "bench"))

import pyarrow as pa  # noqa: E402

from filters.text import fasttext_model  # noqa: E402
from filters.text.language import find_model  # noqa: E402


def page_texts(limit: int | None) -> tuple[str, list[str], list[str]]:
    """(where from, texts of the pages, texts of the embedded pool)."""
    from resiliparse.extract.html2text import extract_plain_text
    from text import load_pages, pool_html

    from filters.text.extract import decode, mend

    def texts(html: list[bytes]) -> list[str]:
        return [mend(extract_plain_text(decode(page)[0], main_content=True)) for page in html]

    source, html = load_pages(limit)
    return source, texts(html), texts(pool_html()[:1000])


def row(name: str, spent: float, pages: int, theirs: float | None = None) -> None:
    ratio = "" if theirs is None else f"{theirs / spent:9.1f}x"
    print(f"{name:46} {spent * 1e6 / pages:8.1f} {pages / spent:10,.0f} {ratio}")


def head(title: str) -> None:
    print(f"\n{title:46} {'µs/page':>8} {'pages/s':>10} {'of module':>10}")


def timed(work: Any, repeat: int = 3) -> float:
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def language(texts: list[str], path: str) -> None:
    from fasttext.FastText import _FastText

    theirs = _FastText(model_path=path)
    column = pa.array(texts, pa.string())
    head("lid.176")
    for chars in (1000, 2000, 0):
        lines = [(text[:chars] if chars else text).replace("\n", " ") for text in texts]
        spent = timed(lambda lines=lines: theirs.predict(lines), 2)
        ours = fasttext_model.load(path)
        fresh = timed(lambda ours=ours, chars=chars: ours.top(column, chars), 1)
        warm = timed(lambda ours=ours, chars=chars: ours.top(column, chars))
        name = f"first {chars:,} characters" if chars else "whole pages"
        row(f"{name}, the module", spent, len(texts))
        row(f"{name}, ours, fresh", fresh, len(texts), spent)
        row(f"{name}, ours", warm, len(texts), spent)
        labels, (found, values) = ours.top(column, chars), theirs.predict(lines)
        rows = [k for k, line in enumerate(lines) if line.strip()]
        same = sum(labels.labels[k].as_py() == found[k][0][9:] for k in rows)
        off = max(abs(labels.probabilities[k].as_py() - min(1, float(values[k][0]))) for k in rows)
        print(f"    same label on {same} of {len(rows)} pages; probabilities differ by {off:.1g} at most")


def train(pool: list[str], folder: Path) -> str:
    from pools import demo_text
    from recipes import fasttext_quality as recipe

    settings = recipe.Settings(dim=100, epochs=1, buckets=200_000, chunk_words=0)
    negatives = [{"id": str(k), "text": text} for k, text in enumerate(pool)]
    recipe.train(demo_text.trusted(), negatives, folder, settings)
    return str(folder / "model.bin")


def quality(texts: list[str], path: str) -> None:
    from fasttext.FastText import _FastText

    theirs, label = _FastText(model_path=path), "__label__hq"
    column = pa.array(texts, pa.string())
    lines = [text.replace("\n", " ") for text in texts]
    spent = timed(lambda: theirs.predict(lines, k=2), 2)
    ours = fasttext_model.load(path)
    fresh = timed(lambda: ours.probability(column, label), 1)
    warm = timed(lambda: ours.probability(column, label))
    head("word two-grams, dimension 100, whole pages")
    row("the module", spent, len(texts))
    row("ours, fresh", fresh, len(texts), spent)
    row("ours", warm, len(texts), spent)
    found, values = theirs.predict(lines, k=2)
    wanted = [
        dict(zip(names, row, strict=True)).get(label, 0) for names, row in zip(found, values, strict=True)
    ]
    pairs = zip(ours.probability(column, label), wanted, lines, strict=True)
    off = max(abs(mine - min(1, float(its))) for mine, its, line in pairs if line.strip())
    print(f"    probabilities differ by {off:.1g} at most")


def private_bytes() -> int:
    """Memory of this process that is no file's."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise OSError("no smaps_rollup")


def measure(which: str, path: str) -> None:
    """In a process of its own: load, ask once; print seconds and bytes."""
    some = ["the keeper of the lighthouse wrote to his sister " * 20] * 50
    if which == "module":
        from fasttext.FastText import _FastText as load

        ask = lambda model: model.predict(some)  # noqa: E731
    else:
        from filters.text import fasttext_kernels  # noqa: F401

        load, ask = fasttext_model.load, lambda model: model.top(pa.array(some))
        load(find_model()).top(pa.array(some))  # compiled code is read from its cache
    before, start = private_bytes(), time.perf_counter()
    model = load(path)
    spent = time.perf_counter() - start
    ask(model)
    print(json.dumps({"seconds": spent, "private": private_bytes() - before}))


def loading(paths: dict[str, str]) -> None:
    print(f"\n{'loading':46} {'seconds':>8} {'private MB':>11}")
    for name, path in paths.items():
        for which in ("module", "ours"):
            done = subprocess.run(
                [sys.executable, __file__, "--measure", which, path],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            found = json.loads(done.stdout)
            size = f"{Path(path).stat().st_size / 1e6:,.1f} MB"
            print(f"{f'{name} ({size}), {which}':46} {found['seconds']:8.3f} {found['private'] / 1e6:11.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pages", type=int, default=None, help="only the first N pages")
    parser.add_argument("--measure", nargs=2, metavar=("WHICH", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    try:
        import fasttext  # noqa: F401
        import resiliparse  # noqa: F401

        lid = find_model()
    except (ImportError, FileNotFoundError) as error:
        sys.exit(f"bench/classifiers.py skipped: {error}")
    source, texts, pool = page_texts(options.pages)
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts)} pages, {source}: {size:.2f} MB of text")
    language(texts, lid)
    with tempfile.TemporaryDirectory() as folder:
        classifier = train(pool, Path(folder))
        quality(texts, classifier)
        loading({"lid.176.ftz": lid, "two-grams": classifier})


if __name__ == "__main__":
    main()
