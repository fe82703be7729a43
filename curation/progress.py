"""What a person sees while a run works, and what a machine reads: one live line a stage, and an event log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

import orjson

from curation.manifest import Manifest, Record

_WATCHDOG_SECONDS = 120.0


class Progress:
    """Counts finished tasks of one stage at a time; prints to stderr, appends to events.jsonl."""

    def __init__(self, manifest: Manifest, show: bool):
        self.manifest, self.show = manifest, show
        self.live = show and sys.stderr.isatty()
        self.events: list[bytes] = []
        self.last_print = self.last_move = time.monotonic()
        self.reset("", "", 0)

    def reset(self, stage: str, title: str, total: int) -> None:
        self.name, self.title, self.total = stage, title, total
        self.tasks = self.rows = self.out = self.bad = self.bytes = self.resumed = 0
        self.rows_before = self.bytes_before = 0
        self.start = time.monotonic()

    def event(self, kind: str, **fields: Any) -> None:
        """Append one line to the event log; failures and stragglers are also shown."""
        self.events.append(orjson.dumps({"t": round(time.time(), 3), "event": kind, **fields}) + b"\n")
        if kind in ("lost", "failed", "straggler") and self.show:
            detail = (
                fields.get("error") or f"running for {fields.get('seconds', 0):.0f} s, started a second copy"
            )
            self._print(f"  {kind}: {fields['key']}: {str(detail).splitlines()[0][:300]}\n")

    def stage(self, stage: str, title: str, total: int, resumed: Iterable[Record]) -> None:
        self.reset(stage, title, total)
        for record in resumed:
            self.resumed += 1
            self._count(record)
        self.rows_before, self.bytes_before = self.rows, self.bytes
        self.last_move = time.monotonic()
        self.event("stage", stage=stage, title=title, tasks=total, resumed=self.resumed)

    def done(self, key: str, record: Record) -> None:
        self._count(record)
        self.last_move = time.monotonic()
        self.event("done", stage=self.name, key=key, rows_in=record.get("rows_in"),
                   rows_out=record["rows_out"],
                   seconds=round(record["seconds"], 4), peak_memory_bytes=record["peak_memory_bytes"],
                   attempt=record["attempt"])  # fmt: skip

    def _count(self, record: Record) -> None:
        self.tasks += 1
        self.rows += record.get("rows_in", 0)
        self.out += record.get("rows_out", 0)
        self.bad += record.get("quarantined", 0)
        self.bytes += record.get("text_bytes_in", 0)

    def tick(self, flying: list[tuple[str, float]]) -> None:
        """Redraw the live line now and then; say so when nothing has moved for long."""
        now = time.monotonic()
        if self.live and now - self.last_print > 0.2:
            self._print(f"\r\x1b[2K{self.line()}")
            self.last_print = now
        if now - self.last_move > _WATCHDOG_SECONDS:
            oldest = sorted(flying, key=lambda f: f[1])[:3]
            waiting = ", ".join(f"{key} for {now - since:.0f} s" for key, since in oldest)
            self.event("stalled", seconds=now - self.last_move, oldest=waiting)
            if self.show:
                self._print(f"\n  nothing has finished for {now - self.last_move:.0f} s; oldest: {waiting}\n")
            self.last_move = now

    def line(self) -> str:
        """Stage, shards, rows in and out, speed, time left."""
        seconds = max(1e-9, time.monotonic() - self.start)
        fresh = self.tasks - self.resumed
        left = "" if not fresh else f", {seconds / fresh * (self.total - self.tasks):.0f} s left"
        parts = [f"stage {self.name} {self.title[:60]}: {self.tasks}/{self.total}"]
        if self.rows:
            parts.append(f"{self.rows:,} rows in, {self.out:,} out")
        if self.rows > self.rows_before:
            parts.append(f"{(self.rows - self.rows_before) / seconds:,.0f} rows/s")
        if self.bytes > self.bytes_before:
            parts.append(f"{(self.bytes - self.bytes_before) / seconds / 1e6:.1f} MB/s text")
        if self.bad:
            parts.append(f"{self.bad:,} quarantined")
        if self.resumed:
            parts.append(f"{self.resumed} done before")
        return ", ".join(parts) + (left if self.tasks < self.total else f", {seconds:.1f} s")

    def stage_done(self) -> None:
        if self.show:
            self._print(("\r\x1b[2K" if self.live else "") + self.line() + "\n")
        self._flush()

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        """The log is rewritten whole at each stage's end: object stores cannot append."""
        from curation import storage

        if self.events:
            try:
                storage.write_bytes(
                    self.manifest.path("_winnow", "events.jsonl"), b"".join(self.events), self.manifest.tmp
                )
            except OSError:  # a full disk: the error that matters is on its way already
                pass

    def _print(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
