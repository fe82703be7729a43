"""One stage on one shard: stream batches through fused steps into files, count everything, then say done.

This is the code that runs on workers. A task is (StageSpec, ShardTask) → done record; the same for every
executor. Rows live only here; nothing but the record crosses processes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from curation import apply, storage
from curation.edits import Edits
from curation.errors import ShardError
from curation.examples import EXAMPLES, examples, is_text, jsonable, start_of, text_bytes
from curation.formats.rebuffer import joined
from curation.manifest import Manifest, Record
from curation.ordered import OrderedParquet
from curation.outputs import HashingFile, committed
from curation.plan import Op, Types, decides
from curation.work_files import RowsFile, Summary, in_order, merged


@dataclass(frozen=True)
class StageSpec:
    """What is the same for every shard of a stage."""

    root: str
    stage: str
    stage_hash: str
    plan_hash: str
    ops: tuple[Op, ...]
    schema_in: Types
    schema_out: Types
    scores: Types
    source_schema: Types  # what the reader delivers; equals schema_in but after a barrier
    nested: frozenset[str] = frozenset()  # columns that hold JSON text
    before: Op | None = None  # the barrier whose decisions this stage applies
    before_summary: dict[str, Any] = field(default_factory=dict)
    after: Any = None  # the Decide barrier whose summary rows this stage makes
    write_format: str | None = None  # None: rows go to work files
    write_columns: tuple[str, ...] | None = None
    removed: str | None = None
    every_score: bool = False
    on_error: str = "quarantine"
    error_budget: float = 0.05
    error_floor: int = 10
    batch_bytes: int = 8 << 20

    @property
    def side_car(self) -> bool:
        """Whether rows are scored or can be dropped here, so that a side-car has something to say."""
        decided = self.before is not None and decides(self.before.step)
        return bool(self.scores) or decided or any(op.kind in ("keep", "transform") for op in self.ops)


@dataclass(frozen=True)
class ShardTask:
    """What one shard's task reads. `source`: a curation.shards.Shard, or work files of the stage before:
    [(url, batch numbers)], merged by sort key when `merge`."""

    key: str
    number: int
    size: int
    source: Any
    merge: bool = False
    decisions: str | None = None
    decision_batch: int | None = None


@dataclass
class _Counts:
    rows_in: int = 0
    rows_out: int = 0
    added: int = 0
    dropped: int = 0
    quarantined: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class _Reason:
    step: int
    rows: int = 0
    text_bytes: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


def run_shard(spec: StageSpec, task: ShardTask, attempt: int = 1) -> Record:
    """Run one stage on one shard and commit its outputs and its done record. Raises ShardError when rows do
    not add up or too many are bad; any other exception is a fault of a step or of the machine."""
    run = _ShardRun(spec, task)
    record = run.execute() | {"attempt": attempt}
    run.manifest.record_done(record)
    return record


class _Rows(NamedTuple):
    """Rows on their way: each one's place in the shard, and the step that dropped it or -1. A dropped row is
    carried along only when every score is asked for."""

    batch: pa.RecordBatch
    rows: np.ndarray
    verdicts: np.ndarray

    @property
    def live(self) -> int:
        return int(np.count_nonzero(self.verdicts < 0))

    def of(self, chosen: np.ndarray) -> _Rows:
        return _Rows(self.batch.filter(pa.array(chosen)), self.rows[chosen], self.verdicts[chosen])


class _ShardRun:
    """The moving parts of one task."""

    def __init__(self, spec: StageSpec, task: ShardTask):
        self.spec, self.task = spec, task
        self.manifest = Manifest(spec.root)
        self.counts: dict[int, _Counts] = {}
        self.reasons: dict[int, _Reason] = {}
        self.edits: dict[int, Edits] = {}
        self.read_counts = _Counts()
        self.bad_lines: list[bytes] = []
        self.bad_by_error: dict[str, int] = {}
        self.bad_samples: list[str] = []
        self.kept_examples: list[dict[str, Any]] = []
        self.side: OrderedParquet | None = None
        self.removed: OrderedParquet | None = None
        self.summary: Summary | None = None
        self.text_in = self.text_out = 0
        self.rows_in = self.delivered = self.rows_out = self.next_row = 0
        self.scatter_seconds = 0.0
        self.nulls: dict[str, int] = {}
        self.decisions: pa.Table | None = None
        self.seen_first: pa.Array | None = None
        self.seen: Any = None
        self.has_text = is_text(spec.schema_in.get("text"))
        runs = _runs(spec.ops)
        cut = _cut(runs)
        self.wide, self.slim = runs[:cut], runs[cut:]
        self.ready: dict[int, Any] = {}
        # a pool of web pages has its text only once a transform has extracted it
        makers = [op.index for op in spec.ops if op.kind == "transform" and "text" in (op.step.outputs or {})]
        self.text_maker = None if self.has_text or not makers else makers[0]
        columns = (
            spec.schema_out
            if spec.write_columns is None
            else {c: spec.schema_out[c] for c in spec.write_columns}
        )
        if spec.write_columns is not None and "id" not in columns:
            columns = {"id": spec.schema_out["id"]} | columns
        self.out_schema = self._schema(columns)

    # ------------------------------------------------------------------------------------------- the task

    def execute(self) -> Record:
        spec, task = self.spec, self.task
        start, cpu = time.perf_counter(), time.process_time()
        outputs: list[dict[str, Any]] = []
        suffix = {None: "arrow", "wds": "tar"}.get(spec.write_format, spec.write_format)
        folder = f"work/{spec.stage}" if spec.write_format is None else "data"
        name = f"_winnow/{folder}/{task.key}.{suffix}" if folder != "data" else f"data/{task.key}.{suffix}"
        index: list[list[int]] | None = None
        with contextlib.ExitStack() as files:  # what is opened last, the rows, is committed first
            self.removed = self._open_removed(files)
            self.side = self._open_side(files, outputs)
            self.summary = self._open_summary(files, outputs)
            writer = self._writer(files.enter_context(committed(self.manifest, name, outputs)))
            for out in self._processed():
                for ordered in (self.side, self.removed):
                    if ordered is not None:
                        ordered.flush()
                if out.num_rows:
                    writer.write(out.select(self.out_schema.names))
                    self.rows_out += out.num_rows
                    self._keep_examples(out)
                    if self.summary is not None:
                        self._summarise(out)
                    self.text_out += text_bytes(out)
            for made in (writer, self.side, self.removed):
                if made is not None:
                    made.close()
            if self.summary is not None:
                index = self.summary.close()
            self._check()  # before anything appears under its name
        outputs[0]["rows"] = self.rows_out
        if self.side is not None:
            next(o for o in outputs if o["url"].startswith("scores/"))["rows"] = self.side.rows
        if self.bad_lines:
            with committed(self.manifest, f"_winnow/bad/{spec.stage}/{task.key}.jsonl", outputs) as file:
                file.write(b"".join(self.bad_lines))
        return {
            "key": task.key,
            "number": task.number,
            "stage": spec.stage,
            "stage_hash": spec.stage_hash,
            "plan_hash": spec.plan_hash,
            "input": describe(task.source),
            "outputs": outputs,
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "text_bytes_in": self.text_in,
            "text_bytes_out": self.text_out,
            "read": self.read_counts.as_dict(),
            "steps": {str(i): c.as_dict() for i, c in sorted(self.counts.items())},
            "reasons": {str(i): vars(r) for i, r in sorted(self.reasons.items())},
            "edits": {str(i): e.as_dict() for i, e in sorted(self.edits.items())},
            "kept_examples": self.kept_examples,
            "quarantined": sum(self.bad_by_error.values()),
            "bad_by_error": self.bad_by_error,
            "nulls": self.nulls,
            "scatter_seconds": self.scatter_seconds,
            "summary_index": index,
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu,
            "peak_memory_bytes": peak_memory(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }

    def _writer(self, file: HashingFile) -> Any:
        if self.spec.write_format is None:
            return RowsFile(file, self.out_schema)
        from curation.formats import open_writer

        number = self.task.number
        return open_writer(cast("IO[bytes]", file), self.spec.write_format, self.out_schema, index=number)

    def _schema(self, types: Types) -> pa.Schema:
        from curation.formats.common import JSON_FIELD

        nested = self.spec.nested
        marks = {n: JSON_FIELD if n in nested and t == pa.string() else None for n, t in types.items()}
        return pa.schema([pa.field(n, t, metadata=marks[n]) for n, t in types.items()])

    # --------------------------------------------------------------------------------------------- source

    def _source(self) -> Iterator[list[pa.RecordBatch]]:
        """Batches with every column of source_schema, in order; bad records noted. Each comes in a list for
        whoever takes it out: nothing else holds it while steps make their own of it, which may be 30 MB."""
        spec, task = self.spec, self.task
        clock = time.perf_counter
        if isinstance(task.source, list):
            batches = merged(task.source) if task.merge else in_order(task.source)
        else:
            from curation.formats import read_batches

            batches = read_batches(
                task.source,
                schema=self._schema(spec.source_schema),
                columns=list(spec.source_schema),
                batch_bytes=spec.batch_bytes,
                bad=self._bad_record,
            )
        iterator = iter(batches)
        while True:
            start = clock()
            batch = next(iterator, None)
            self.read_counts.seconds += clock() - start
            if batch is None:
                return
            self.rows_in += batch.num_rows
            self.delivered += batch.num_rows
            if self.text_maker is None:
                self.text_in += text_bytes(batch)
            if not isinstance(task.source, list):
                batch = self._unique(batch)
            if batch.num_rows:
                box = [batch]
                del batch
                yield box

    def _bad_record(self, bad: Any) -> None:
        self.rows_in += 1
        self.read_counts.quarantined += 1
        sample = None if bad.sample is None else bad.sample[:2048].decode("utf-8", "backslashreplace")
        self._note_bad(bad.source, bad.position, None, bad.step, bad.error, None, sample)

    def _unique(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Quarantine rows whose id this shard has had before: nothing keyed by id could tell them apart."""
        ids = batch.column("id")
        if self.seen is None and self.seen_first is None:
            self.seen_first = ids
            if pc.count_distinct(ids).as_py() == len(ids):
                return batch
            self.seen_first = None
        from curation.hashing import DuplicateIds

        if self.seen is None:
            self.seen = DuplicateIds()
            if self.seen_first is not None:
                self.seen.add(self.seen_first)
                self.seen_first = None
        again = self.seen.add(ids)
        if not again.any():
            return batch
        source = describe(self.task.source)["url"]
        first_row = self.delivered - batch.num_rows  # bad records are no rows
        for row in np.flatnonzero(again):
            self.read_counts.quarantined += 1
            place, row_id = f"row {first_row + int(row)}", ids[int(row)].as_py()
            error = "duplicate id: an earlier row of this shard has it; make ids unique"
            self._note_bad(source, place, row_id, "read", error, None, None)
        return batch.filter(pa.array(~again))

    # ---------------------------------------------------------------------------------------------- steps

    def _processed(self) -> Iterator[pa.RecordBatch]:
        """What the shard's rows have become. Where steps have let go of wide columns (a page's HTML), what is
        left of several batches goes on as one: a step costs the same for ten rows as for a thousand."""
        waiting: list[_Rows] = []
        for box in self._source():
            flow = self._steps(self.wide, self._numbered(box.pop()))
            if not self.slim:
                yield self._end(flow)
                continue
            waiting.append(flow)
            side = sum(o.waiting_bytes for o in (self.side, self.removed) if o is not None)
            if side + sum(f.batch.nbytes for f in waiting) >= self.spec.batch_bytes:
                yield self._rest(waiting)
        if waiting:
            yield self._rest(waiting)

    def _rest(self, waiting: list[_Rows]) -> pa.RecordBatch:
        flow = _Rows(
            joined([f.batch for f in waiting]),
            np.concatenate([f.rows for f in waiting]),
            np.concatenate([f.verdicts for f in waiting]),
        )
        waiting.clear()
        return self._end(self._steps(self.slim, flow))

    def _numbered(self, batch: pa.RecordBatch) -> _Rows:
        rows = np.arange(self.next_row, self.next_row + batch.num_rows, dtype=np.int64)
        self.next_row += batch.num_rows
        flow = _Rows(batch, rows, np.full(batch.num_rows, -1, dtype=np.int32))
        return flow if self.spec.before is None else self._apply_barrier(flow)

    def _steps(self, runs: list[tuple[Op, ...]], flow: _Rows) -> _Rows:
        for together in runs:
            flow = self._keep_all(together, flow) if len(together) > 1 else self._one(together[0], flow)
        return flow

    def _end(self, flow: _Rows) -> pa.RecordBatch:
        batch, rows, _ = self._release(flow)
        self._side_car(batch, rows)
        return batch

    def _one(self, op: Op, flow: _Rows) -> _Rows:
        start = time.perf_counter()
        count = self.counts.setdefault(op.index, _Counts())
        count.rows_in += flow.live
        if op.kind == "keep":
            flow = self._keep(op, flow)
        else:
            flow = self._apply(op, self._release(flow) if op.kind == "transform" else flow)
        count.rows_out += flow.live
        count.seconds += time.perf_counter() - start
        if op.index == self.text_maker:
            self.text_in += text_bytes(flow.batch)
        return flow

    def _keep_all(self, ops: tuple[Op, ...], flow: _Rows) -> _Rows:
        """Keeps by expression that follow each other: one query for all, decided in their order."""
        start = time.perf_counter()
        try:
            masks = apply.verdicts([op.step for op in ops], flow.batch)
        except Exception:  # perhaps of a row that an earlier keep would have dropped: one by one
            return self._steps([(op,) for op in ops], flow)
        share = (time.perf_counter() - start) / len(ops)
        for op, kept in zip(ops, masks, strict=True):
            start = time.perf_counter()
            count = self.counts.setdefault(op.index, _Counts())
            count.rows_in += flow.live
            flow = self._mark(op, flow, kept, op.step.reason)
            count.rows_out += flow.live
            count.seconds += share + time.perf_counter() - start
        return flow if self.spec.every_score else self._release(flow)

    def _keep(self, op: Op, flow: _Rows) -> _Rows:
        kept, errors = apply.verdict(op.step, flow.batch)
        if errors:
            self._errors(op, flow.batch, [e for e in errors if flow.verdicts[e.row] < 0])
            self._let_go(flow, errors)
            good = np.ones(flow.batch.num_rows, dtype=bool)
            good[[e.row for e in errors]] = False
            flow, kept = flow.of(good), kept[good]
        return self._drop(op, flow, kept, op.step.reason)

    def _drop(self, op: Op, flow: _Rows, kept: np.ndarray, why: str) -> _Rows:
        flow = self._mark(op, flow, kept, why)
        return flow if self.spec.every_score else self._release(flow)

    def _mark(self, op: Op, flow: _Rows, kept: np.ndarray, why: str) -> _Rows:
        """Count the rows that this step drops, and note the step as their verdict."""
        gone = np.flatnonzero(~kept & (flow.verdicts < 0))
        if not len(gone):
            return flow
        self._count_drop(op, flow.batch, gone, why)
        verdicts = flow.verdicts.copy()
        verdicts[gone] = op.index
        return flow._replace(verdicts=verdicts)

    def _release(self, flow: _Rows) -> _Rows:
        """Let dropped rows go: to the side-car and the removed shards."""
        if flow.live == len(flow.rows):
            return flow
        live = flow.verdicts < 0
        gone = np.flatnonzero(~live)
        indices, which = np.unique(flow.verdicts[gone], return_inverse=True)
        names = pa.array([self.reasons_text(int(index)) for index in indices], pa.string())
        self._leave(flow.batch, gone, flow.rows[gone], names.take(pa.array(which)))
        return flow.of(live)

    def _let_go(self, flow: _Rows, errors: list[apply.RowError]) -> None:
        """A row that was dropped, carried along to be scored, and then raised: it leaves as dropped."""
        failed = np.array([e.row for e in errors if flow.verdicts[e.row] >= 0], dtype=np.int64)
        if len(failed):
            chosen = np.zeros(len(flow.rows), dtype=bool)
            chosen[failed] = True
            self._release(flow.of(chosen))

    def reasons_text(self, index: int) -> str:
        if self.spec.before is not None and index == self.spec.before.index:
            return self.spec.before.step.reason
        step = next(op.step for op in self.spec.ops if op.index == index)
        return getattr(step, "reason", None) or step.name

    def _apply(self, op: Op, flow: _Rows) -> _Rows:
        if op.index not in self.ready:
            self.ready[op.index] = apply.ready(op.step)
        batch, rows, verdicts = flow
        outcome = apply.apply_step(self.ready[op.index], batch, self.spec.on_error == "null")
        count = self.counts[op.index]
        if outcome.errors and not (self.spec.on_error == "null" and op.kind == "score"):
            self._errors(op, batch, [e for e in outcome.errors if verdicts[e.row] < 0])
            self._let_go(flow, outcome.errors)
        elif outcome.errors:
            self._note_nulls(op, batch, outcome.errors)
        gone = outcome.dropped
        if gone is not None and len(gone):
            self._count_drop(op, batch, gone, op.step.name)
            self._leave(batch, gone, rows[gone], pa.array([op.step.name] * len(gone), pa.string()))
        if op.kind == "transform":
            self.edits.setdefault(op.index, Edits()).look(batch, outcome.batch, outcome.parents)
        if outcome.parents is None:
            return flow._replace(batch=outcome.batch)
        parents = outcome.parents
        if op.kind == "transform":
            count.added += len(parents) - len(np.unique(parents))
        return _Rows(outcome.batch, rows[parents], verdicts[parents])

    def _apply_barrier(self, flow: _Rows) -> _Rows:
        op = self.spec.before
        assert op is not None
        start = time.perf_counter()
        batch, rows, _ = flow
        count = self.counts.setdefault(op.index, _Counts())
        count.rows_in += batch.num_rows
        if not decides(op.step):  # a rearrangement has already happened
            count.rows_out += batch.num_rows
            return flow
        kept, columns = op.step.apply(
            batch, int(rows[0]) if len(rows) else 0, self._decisions(), self.spec.before_summary
        )
        names = dict(zip(batch.schema.names, batch.columns, strict=True))
        for column, kind in op.step.outputs.items():
            array = columns[column]
            names[column] = array if array.type == kind else array.cast(kind)
        for column in op.step.changes:
            names[column] = columns[column]
        old, batch = batch, pa.RecordBatch.from_pydict(names)
        mask = kept.to_numpy(zero_copy_only=False).astype(bool)
        if op.step.changes:
            self.edits.setdefault(op.index, Edits()).look(old.filter(kept), batch.filter(kept), None)
        flow = self._drop(op, flow._replace(batch=batch), mask, op.step.reason)
        count.rows_out += flow.live
        count.seconds += time.perf_counter() - start
        return flow

    def _decisions(self) -> pa.Table | None:
        """This shard's rows of the barrier's decision table, if the barrier made one."""
        if self.task.decisions is not None and self.decisions is None:
            with storage.open_read(self.manifest.path(*self.task.decisions.split("/"))) as file:
                reader = pa.ipc.open_file(file)
                if self.task.decision_batch is None:
                    self.decisions = reader.schema.empty_table()
                else:
                    self.decisions = pa.Table.from_batches([reader.get_batch(self.task.decision_batch)])
        return self.decisions

    # ------------------------------------------------------------------------------------ what became of it

    def _count_drop(self, op: Op, batch: pa.RecordBatch, gone: np.ndarray, why: str) -> None:
        """`gone`: which rows of the batch leave at this step."""
        self.counts.setdefault(op.index, _Counts()).dropped += len(gone)
        reason = self.reasons.setdefault(op.index, _Reason(op.index))
        reason.rows += len(gone)
        reason.text_bytes += text_bytes(batch, gone)
        if wanted := EXAMPLES - len(reason.examples):
            reason.examples += examples(batch, gone[:wanted], self.spec.scores)

    def _keep_examples(self, out: pa.RecordBatch) -> None:
        if wanted := EXAMPLES - len(self.kept_examples):
            self.kept_examples += examples(out, np.arange(out.num_rows)[:wanted], self.spec.scores)

    def _errors(self, op: Op, batch: pa.RecordBatch, errors: list[apply.RowError]) -> None:
        if not errors:
            return
        if self.spec.on_error == "raise":
            first = errors[0]
            row_id = batch.column("id")[first.row].as_py()
            raise ShardError(f"{op.step.name} raised on row id {row_id}: {first.error}\n{first.trace}")
        source = describe(self.task.source)["url"]
        ids, text = (
            batch.column("id"),
            batch.column("text") if self.has_text and "text" in batch.schema.names else None,
        )
        for error in errors:
            self.counts[op.index].quarantined += 1
            sample = None if text is None or not text[error.row].is_valid else start_of(text, error.row, 500)
            self._note_bad(
                source, None, ids[error.row].as_py(), op.step.name, error.error, error.trace, sample
            )

    def _note_nulls(self, op: Op, batch: pa.RecordBatch, errors: list[apply.RowError]) -> None:
        """on_error="null": rows stay with a null score; the count still shows in the report."""
        kind = f"{op.step.name}: null after {errors[0].error.split(':', 1)[0]}"
        self.nulls[kind] = self.nulls.get(kind, 0) + len(errors)

    def _note_bad(
        self,
        source: str,
        position: Any,
        row_id: str | None,
        step: str,
        error: str,
        trace: str | None,
        sample: str | None,
    ) -> None:
        kind = (
            f"{step}: {error.split(chr(10))[0][:100]}"
            if step == "read"
            else f"{step}: {error.split(':', 1)[0]}"
        )
        self.bad_by_error[kind] = self.bad_by_error.get(kind, 0) + 1
        if len(self.bad_samples) < 3:
            place = f" at {position}" if position is not None else f" id {row_id}"
            self.bad_samples.append(f"{source}{place}, step {step}: {error}")
        line = {
            "source": source,
            "position": position,
            "id": row_id,
            "step": step,
            "error": error,
            "sample": sample,
        }
        if trace:
            line["traceback"] = trace
        self.bad_lines.append(orjson.dumps(jsonable(line)) + b"\n")

    def _check(self) -> None:
        """Conservation, and the error budget. Counted from what was written, not from what was meant."""
        spec = self.spec
        added = sum(c.added for c in self.counts.values())
        dropped = sum(c.dropped for c in self.counts.values())
        quarantined = self.read_counts.quarantined + sum(c.quarantined for c in self.counts.values())
        self.read_counts.rows_in = self.rows_in
        self.read_counts.rows_out = self.rows_in - self.read_counts.quarantined
        side = 0 if self.side is None else self.side.rows
        where = f"{describe(self.task.source)['url']} (stage {spec.stage})"
        if self.rows_in + added != self.rows_out + dropped + quarantined:
            raise ShardError(
                f"rows do not add up in {where}: {self.rows_in} in + {added} added ≠ {self.rows_out} out + "
                f"{dropped} dropped + {quarantined} quarantined; this is a fault of the engine or of a "
                "step's parents, and nothing was written"
            )
        if quarantined != len(self.bad_lines):
            raise ShardError(f"{where}: {quarantined} rows quarantined but {len(self.bad_lines)} recorded")
        if spec.side_car and side != self.rows_out + dropped:
            raise ShardError(f"{where}: {self.rows_out + dropped} rows were scored, the side-car has {side}")
        allowed = max(spec.error_floor, int(spec.error_budget * self.rows_in))
        if quarantined > allowed:
            raise ShardError(
                f"{where}: {quarantined} of {self.rows_in} rows are bad, more than the budget of {allowed} "
                f"(error_budget={spec.error_budget}). First: {'; '.join(self.bad_samples)}. "
                "Mend the input or the step, or raise error_budget"
            )
        for op in spec.ops:
            count = self.counts.get(op.index)
            if count and count.quarantined == count.rows_in >= 2:
                raise ShardError(
                    f"{where}: step {op.index} ({op.step.name}) raised on every one of {count.rows_in} rows, "
                    f"which is a fault of the step: {self.bad_samples[0] if self.bad_samples else ''}"
                )

    # --------------------------------------------------------------------------------------- other outputs

    def _open_side(self, files: contextlib.ExitStack, outputs: list[dict[str, Any]]) -> OrderedParquet | None:
        if not self.spec.side_car:
            return None
        schema = pa.schema([("id", pa.string()), *self.spec.scores.items(), ("dropped_by", pa.string())])
        name = f"scores/{self.spec.stage}/{self.task.key}.parquet"
        return OrderedParquet(files.enter_context(committed(self.manifest, name, outputs)), schema)

    def _open_removed(self, files: contextlib.ExitStack) -> OrderedParquet | None:
        if self.spec.removed is None:
            return None
        everything = self.spec.schema_in | self.spec.schema_out | self.spec.scores
        url = storage.join(self.spec.removed, self.spec.stage, f"{self.task.key}.parquet")
        schema = pa.schema([*everything.items(), ("dropped_by", pa.string())])
        return OrderedParquet(files.enter_context(storage.atomic_write(url)), schema)

    def _open_summary(self, files: contextlib.ExitStack, outputs: list[dict[str, Any]]) -> Summary | None:
        if self.spec.after is None:
            return None
        name = f"_winnow/work/{self.spec.stage}/{self.task.key}.summary.arrow"
        return Summary(files.enter_context(committed(self.manifest, name, outputs)))

    def _side_car(self, batch: pa.RecordBatch, rows: np.ndarray) -> None:
        if self.side is not None and batch.num_rows:
            self.side.add(dict(zip(batch.schema.names, batch.columns, strict=True)), rows)

    def _leave(self, batch: pa.RecordBatch, gone: np.ndarray, rows: np.ndarray, why: pa.Array) -> None:
        """Dropped rows, to the files that tell of them. `gone`: which of the batch; `why`: what of each."""
        for file in (self.side, self.removed):
            if file is not None:
                names = [name for name in file.schema.names if name in batch.schema.names]
                leaving = batch.select(names).take(pa.array(gone))
                columns = dict(zip(names, leaving.columns, strict=True))
                file.add(columns | {"dropped_by": why}, rows)

    def _summarise(self, out: pa.RecordBatch) -> None:
        assert self.summary is not None
        first = self.rows_out - out.num_rows
        start = time.perf_counter()
        table = self.spec.after.scatter(out)
        at = table.column_names.index("index")
        row = pc.add(table.column("index").cast(pa.int64()), first)
        table = table.set_column(at, "row", row)
        group = self.spec.after.partition_of(self.task.number)
        if group is not None:
            at = table.column_names.index("partition")
            table = table.set_column(at, "partition", pa.array(np.full(len(row), group, np.int32)))
        self.summary.add(table)
        self.scatter_seconds += time.perf_counter() - start


def _runs(ops: tuple[Op, ...]) -> list[tuple[Op, ...]]:
    """Steps as they are executed: keeps by expression that follow each other are one run, all else alone."""
    runs: list[tuple[Op, ...]] = []
    for op in ops:
        joins = op.kind == "keep" and op.step.where is not None
        if joins and runs and runs[-1][0].kind == "keep" and runs[-1][0].step.where is not None:
            runs[-1] += (op,)
        else:
            runs.append((op,))
    return runs


def _cut(runs: list[tuple[Op, ...]]) -> int:
    """How many of them come before the rows are slim: up to the last that takes a column out."""
    wide = [n for n, ops in enumerate(runs, 1) if ops[0].kind == "transform" and ops[0].step.removes]
    return wide[-1] if wide else len(runs)


def describe(source: Any) -> dict[str, Any]:
    """The input of a task, as its done record names it."""
    if isinstance(source, list):
        return {"url": ", ".join(storage.basename(u) for u, _ in source[:3]), "files": len(source)}
    return {"url": source.url, "bytes": source.size, "etag": source.etag, "part": source.part}


def peak_memory() -> int:
    """Peak resident bytes of this process."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
