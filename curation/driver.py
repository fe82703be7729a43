"""Run a plan: list the shards, send tasks to an executor, believe only the manifest, and report.

The driver holds counters and file names, never rows. A run ends with every task done, or raises RunFailed.
"""

from __future__ import annotations

import datetime
import functools
import os
import platform
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from curation import storage
from curation.barrier_tasks import arrange_shard, plan_barrier, reduce_partition, resolve_barrier
from curation.errors import PlanError, RunFailed
from curation.executors import Executor
from curation.identity import digest
from curation.manifest import Manifest, Record
from curation.plan import Plan, Stage, build, check_shape, decides, flatten, step_name
from curation.progress import Progress
from curation.report import make_report
from curation.shards import Shard, list_shards
from curation.stage import ShardTask, StageSpec, run_shard
from curation.steps import Read, Resources, Write

INLINE_BYTES = 48 << 20  # below this, starting processes costs more than it saves
_ATTEMPTS = 3


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what: none of this changes a byte of the output."""

    on: str = "local"
    workers: int | None = None
    scores: str = "kept"
    on_error: str = "quarantine"
    error_budget: float = 0.05
    progress: bool = True
    straggler_seconds: float = 30.0
    keep_work: bool = True
    funnel: bool = True


@dataclass(frozen=True)
class Result:
    """What a run did. `report` is what report.json holds; the funnel page shows it."""

    out: str
    plan_hash: str
    rows_in: int
    rows_out: int
    dropped: dict[str, int]
    quarantined: int
    shards: int
    seconds: float
    resumed: int
    funnel: str | None
    report: dict[str, Any] = field(repr=False)

    def __str__(self) -> str:
        dropped = ", ".join(f"{reason} {rows:,}" for reason, rows in self.dropped.items()) or "none"
        return (
            f"{self.rows_in:,} rows in, {self.rows_out:,} kept; dropped: {dropped}; "
            f"quarantined {self.quarantined:,}; {self.shards} shards, {self.seconds:.1f} s → {self.out}"
        )


def run(
    plan: Iterable[Any],
    on: str = "local",
    workers: int | None = None,
    scores: str = "kept",
    on_error: str = "quarantine",
    error_budget: float = 0.05,
    progress: bool = True,
    keep_work: bool = True,
    funnel: bool = True,
    straggler_seconds: float = 30.0,
) -> Result:
    """Run a plan and return what it did.

    on: "local" (this machine; small inputs run in this process, larger ones in worker processes), "ray"
        (a local Ray, or the cluster that RAY_ADDRESS names).
    workers: processes, or CPUs of a local Ray; default: all cores.
    scores: "kept" skips scores of rows that an earlier keep removed; "all" scores every row.
    on_error: what becomes of a row a step raises on: "quarantine", "raise" or "null" (scores only).
    error_budget: share of a shard's rows that may be quarantined before the shard fails (10 rows always may).

    A run that was interrupted goes on where it stopped when called again with the same plan. PlanError: the
    plan cannot work, and nothing was started. RunFailed: some shards are not done; calling again tries them.
    """
    for name, value, allowed in (
        ("scores", scores, ("kept", "all")),
        ("on_error", on_error, ("quarantine", "raise", "null")),
    ):
        if value not in allowed:
            raise PlanError(f"{name}={value!r}: it is one of {', '.join(allowed)}")
    if on not in ("local", "ray"):
        raise PlanError(f"on={on!r}: it is 'local' or 'ray' (RAY_ADDRESS names a cluster)")
    options = Options(
        on, workers, scores, on_error, error_budget, progress, straggler_seconds, keep_work, funnel
    )
    return _Run(flatten(plan), options).execute()


def open_plan(steps: tuple[Any, ...]) -> tuple[Plan, list[Shard]]:
    """List the input of a plan and check the plan against its schema. PlanError names what is wrong."""
    from curation.formats import FormatError, is_json, pool_schema

    check_shape(steps)
    read: Read = steps[0]
    places = list(read.url) if isinstance(read.url, tuple) else read.url
    try:
        shards = list_shards(places, format=read.format, split_bytes=read.split_bytes)
    except (FileNotFoundError, ValueError) as error:
        raise PlanError(f"step 0 (read): {error}") from None
    columns = list(read.columns) if read.columns else None
    try:
        try:
            schema = pool_schema(shards, columns)
        except (
            FormatError
        ):  # the first few are damaged or empty: some other shard can say what the columns are
            schema = pool_schema(shards, columns, probe=len(shards))
    except KeyError as error:
        raise PlanError(f"step 0 (read): {error.args[0]}") from None
    except FormatError as error:
        raise PlanError(f"step 0 (read): {error}") from None
    types = {f.name: f.type for f in schema}
    if "id" not in types:
        raise PlanError(f"step 0 (read): rows have no 'id' column, they have {', '.join(types)}")
    return build(steps, types, frozenset(f.name for f in schema if is_json(f))), shards


class _Run:
    def __init__(self, steps: tuple[Any, ...], options: Options):
        self.options = options
        check_shape(steps)
        if not isinstance(steps[-1], Write):
            raise PlanError("the plan has no c.write(…): say where the kept rows go (c.explain needs none)")
        self.plan, self.shards = open_plan(steps)
        assert self.plan.write is not None
        self.write: Write = self.plan.write
        self._check_places()
        self.manifest = Manifest(self.write.url)
        self.executors: dict[Any, Executor] = {}
        self.resumed = 0
        self.stage_records: list[list[Record]] = []
        self.barriers: list[dict[str, Any]] = []

    def _check_places(self) -> None:
        read = self.plan.read
        places = read.url if isinstance(read.url, tuple) else (read.url,)
        for place in places:
            inside, outside = _canonical(place), _canonical(self.write.url)
            if outside == inside or outside.startswith(inside.rstrip("/") + "/"):
                raise PlanError(
                    f"the output {self.write.url!r} lies inside the input {place!r}: the next run would read "
                    "its own output; write somewhere else"
                )
            removed = self.write.removed
            if removed and (_canonical(removed) + "/").startswith(inside.rstrip("/") + "/"):
                raise PlanError(f"removed={removed!r} lies inside the input {place!r}: write somewhere else")

    # ---------------------------------------------------------------------------------------------- the run

    def execute(self) -> Result:
        started, clock = datetime.datetime.now(datetime.timezone.utc), time.perf_counter()
        self.manifest.clear_tmp()
        self.manifest.write_json(
            {
                "plan_hash": self.plan.hash,
                "started": started.isoformat(),
                "input": [s.url for s in self.shards],
            },
            "_winnow",
            "plan.json",
            indent=True,
        )
        self.progress = Progress(self.manifest, self.options.progress)
        try:
            self._stages()
        finally:
            self.progress.close()
            for executor in self.executors.values():
                executor.close()
        if not self.options.keep_work:
            self.manifest.remove_work()
        self.manifest.clear_tmp()
        report = make_report(
            self.plan, self.shards, self.stage_records, self.barriers, self.write,
            started=started, seconds=time.perf_counter() - clock, on=self.options.on, workers=self._slots(),
            versions=_versions(),
        )  # fmt: skip
        self.manifest.write_json(report, "_winnow", "report.json", indent=True)
        page = None
        if self.options.funnel:
            from curation.funnel import render

            page = str(render(self.write.url))
        reasons: dict[str, int] = {}
        for entry in report["reasons"]:
            reasons[entry["reason"]] = reasons.get(entry["reason"], 0) + entry["rows"]
        return Result(
            self.write.url, self.plan.hash, report["input"]["rows"], report["output"]["rows"], reasons,
            report["quarantined"]["rows"], report["output"]["shards"], report["seconds"], self.resumed, page,
            report,
        )  # fmt: skip

    def _stages(self) -> None:
        self._retire_stages()
        tasks = [ShardTask(s.key, n, s.size, s) for n, s in enumerate(self.shards)]
        chain = digest([self.options.scores, self.options.on_error])
        before: dict[str, Any] = {"before": None, "before_summary": {}}
        for stage in self.plan.stages:
            chain = digest([chain, stage.identity])
            spec = self._spec(stage, chain, **before)
            records = self._run_stage(spec, tasks, stage)
            self._conserve(records)
            self.stage_records.append(records)
            if isinstance(stage.end.step, Write):
                return
            # what follows depends on every row of the pool: its name is made of the rows' own checksums
            content = [[r["key"], [o["xxh3"] for o in r["outputs"]]] for r in records]
            chain = digest([chain, content])
            tasks, before = self._barrier(stage, chain, records)

    def _conserve(self, records: list[Record]) -> None:
        """Every row that left one stage must have entered the next; a barrier moves rows but keeps none."""
        if not self.stage_records:
            return
        left = sum(r["rows_out"] for r in self.stage_records[-1])
        entered = sum(r["rows_in"] for r in records)
        if left != entered:
            raise RunFailed(
                f"{left} rows left stage {len(self.stage_records) - 1} and {entered} entered the next: rows "
                "were lost or doubled in between, a fault of the engine; the output is not to be used",
                {},
            )

    def _spec(self, stage: Stage, chain: str, before: Any, before_summary: dict[str, Any]) -> StageSpec:
        last = isinstance(stage.end.step, Write)
        after = None if last or not decides(stage.end.step) else stage.end.step
        source = dict(stage.schema_in)
        if before is not None:
            for column in getattr(before.step, "outputs", None) or {}:
                source.pop(column, None)
        return StageSpec(
            root=self.write.url,
            stage=str(stage.number),
            stage_hash=chain,
            plan_hash=self.plan.hash,
            ops=stage.ops,
            schema_in=stage.schema_in,
            schema_out=stage.schema_out,
            scores=stage.scores,
            source_schema=source,
            nested=self.plan.nested,
            before=before,
            before_summary=before_summary,
            after=after,
            write_format=self.write.format if last else None,
            write_columns=self.write.columns if last else None,
            removed=self.write.removed,
            every_score=self.options.scores == "all",
            on_error=self.options.on_error,
            error_budget=self.options.error_budget,
        )

    def _run_stage(self, spec: StageSpec, tasks: list[ShardTask], stage: Stage) -> list[Record]:
        needs = [getattr(op.step, "resources", None) for op in stage.ops]
        need = next((r for r in needs if r is not None and (r.gpus or r.actors)), None)
        names = ", ".join(dict.fromkeys(op.step.name for op in stage.ops)) or "copy"
        jobs = {t.key: (run_shard, (spec, t)) for t in tasks}
        sizes = {t.key: t.size for t in tasks}
        same = {t.key: _source_identity(t) for t in tasks}
        return self._run_tasks(spec.stage, spec.stage_hash, names, jobs, sizes, same, need)

    def _barrier(
        self, stage: Stage, chain: str, records: list[Record]
    ) -> tuple[list[ShardTask], dict[str, Any]]:
        """Run the barrier that ends a stage; returns the next stage's tasks and what it needs to know."""
        barrier = stage.end.step
        name = f"{stage.number}-barrier"
        pool = self.stage_records[0]
        size = sum(r["rows_in"] for r in pool), sum(r["text_bytes_in"] for r in pool)
        work = plan_barrier(barrier, records, self.write.url, name, chain, size)
        if work.rearrange:
            jobs: dict[str, Any] = {r["key"]: (arrange_shard, (work, r)) for r in records}
            sizes = {r["key"]: r["outputs"][0]["bytes"] for r in records}
            done = self._run_tasks(name, chain, step_name(barrier), jobs, sizes, {}, None)
            self._note_barrier(stage, {"shards": work.n_out}, done)
            return work.gather(done), {"before": stage.end, "before_summary": {}}
        jobs = {f"part-{p:05d}": (reduce_partition, (work, p)) for p in work.partitions}
        sizes = {f"part-{p:05d}": work.partition_rows(p) for p in work.partitions}
        parts = self._run_tasks(
            f"{name}-reduce", chain, f"{step_name(barrier)} reduce", jobs, sizes, {}, None
        )
        resolved = self._run_tasks(
            name, chain, f"{step_name(barrier)} resolve", {"decision": (resolve_barrier, (work, parts))},
            {"decision": 1}, {}, None,
        )[0]  # fmt: skip
        self._note_barrier(stage, resolved["summary"], [*parts, resolved])
        return work.apply(resolved), {"before": stage.end, "before_summary": resolved["summary"]}

    def _note_barrier(self, stage: Stage, summary: dict[str, Any], tasks: list[Record]) -> None:
        seconds = round(sum(task["seconds"] for task in tasks), 4)
        kind = step_name(stage.end.step)
        self.barriers.append({"step": stage.end.index, "kind": kind, "summary": summary, "seconds": seconds})

    # ---------------------------------------------------------------------------------------------- tasks

    def _executor(self, need: Resources | None) -> Executor:
        key = need if self.options.on != "local" else None
        if key not in self.executors:
            if self.options.on == "local":
                from curation.executors.local import InlineExecutor, LocalExecutor

                workers = self.options.workers
                small = sum(s.size for s in self.shards) < INLINE_BYTES
                if workers == 1 or (workers is None and (small or (os.cpu_count() or 1) == 1)):
                    self.executors[key] = InlineExecutor()
                else:
                    self.executors[key] = LocalExecutor(workers or os.cpu_count() or 1)
            else:
                from curation.executors.ray import RayExecutor

                self.executors[key] = RayExecutor(self.options.workers, need)
        return self.executors[key]

    def _slots(self) -> int:
        return max((e.slots for e in self.executors.values()), default=self.options.workers or 1)

    def _run_tasks(
        self,
        stage: str,
        stage_hash: str,
        title: str,
        jobs: dict[str, tuple[Any, tuple[Any, ...]]],
        sizes: dict[str, int],
        inputs: dict[str, Any],
        need: Resources | None,
    ) -> list[Record]:
        """Run the jobs that have no valid done record; returns all records in the order of `jobs`."""
        self.manifest.begin_stage(stage, stage_hash)
        known = self.manifest.done(stage, stage_hash)
        for key in set(known) - set(jobs):  # its shard has left the pool
            self.manifest.forget_task(known[key])
        done = {
            key: record
            for key, record in known.items()
            if key in jobs and (key not in inputs or record.get("input") == inputs[key])
        }
        self.resumed += len(done)
        todo = sorted((k for k in jobs if k not in done), key=lambda k: (-sizes.get(k, 0), k))
        self.progress.stage(stage, title, len(jobs), done.values())
        if todo:
            loop = TaskLoop(self._executor(need), jobs, self.options, self.progress)
            done |= loop.run(todo)
        self.progress.stage_done()
        return [done[key] for key in jobs]

    def _retire_stages(self) -> None:
        """Stages that an earlier, longer plan left here go before anything is written: their files have the
        names that this plan's files will have."""
        last = len(self.plan.stages) - 1
        for stage, stage_hash in self.manifest.stages().items():
            number, _, barrier = stage.partition("-")
            if int(number) > last or (barrier and int(number) == last):
                self.manifest.forget(stage, stage_hash)
                storage.remove(self.manifest.path("_winnow", "stages", f"{stage}.json"))


class TaskLoop:
    """Keep a bounded number of tasks in flight until each has an answer."""

    def __init__(self, executor: Executor, jobs: dict[str, Any], options: Options, progress: Progress):
        self.executor, self.jobs, self.options, self.progress = executor, jobs, options, progress
        self.flying: dict[int, tuple[str, float]] = {}
        self.attempts: dict[str, int] = {}
        self.done: dict[str, Record] = {}
        self.failures: dict[str, str] = {}
        self.traces: dict[str, int] = {}
        self.durations: list[float] = []
        self.doubled: set[str] = set()

    def run(self, todo: list[str]) -> dict[str, Record]:
        queue = list(reversed(todo))
        limit = 2 * self.executor.slots
        while queue or self._open():
            while queue and len(self.flying) < limit and not self._hopeless():
                self._submit(queue.pop())
            if self._hopeless():
                queue.clear()
                if not self._open():
                    break
            for reply in self.executor.wait(1.0):
                self._answer(reply, queue)
            self.progress.tick([(k, t) for k, t in self.flying.values()])
            if not queue:
                self._resubmit_stragglers()
        if self.flying:  # second copies that came second: nobody waits for them
            self.executor.abandon()
        if self.failures or len(self.done) < len(todo):
            missing = [k for k in todo if k not in self.done]
            for key in missing:
                self.failures.setdefault(key, "not started: too many tasks had failed in the same way")
            first = "\n".join(f"  {k}: {v}" for k, v in list(self.failures.items())[:5])
            raise RunFailed(
                f"{len(missing)} of {len(todo)} tasks are not done:\n{first}\n"
                "What is done is kept: mend the cause and run the same plan again.",
                self.failures,
            )
        return self.done

    def _open(self) -> bool:
        return any(key not in self.done and key not in self.failures for key, _ in self.flying.values())

    def _hopeless(self) -> bool:
        """Three tasks that raised the same thing: the fault is in the plan, not in a shard."""
        return any(count >= 3 for count in self.traces.values())

    def _submit(self, key: str) -> None:
        self.attempts[key] = self.attempts.get(key, 0) + 1
        function, arguments = self.jobs[key]
        ticket = self.executor.submit(function, (*arguments, self.attempts[key]))
        self.flying[ticket] = (key, time.monotonic())

    def _answer(self, reply: Any, queue: list[str]) -> None:
        key, since = self.flying.pop(reply.ticket)
        if key in self.done:
            return  # the other attempt was first; both wrote the same bytes
        if reply.kind == "ok":
            self.done[key] = reply.value
            self.failures.pop(key, None)
            self.durations.append(time.monotonic() - since)
            self.progress.done(key, reply.value)
        elif reply.kind == "lost" and self.attempts[key] < _ATTEMPTS:
            self.progress.event("lost", key=key, error=reply.error, attempt=self.attempts[key])
            queue.append(key)
        else:
            self.failures[key] = reply.error
            if reply.kind == "failed":
                place = reply.trace.rsplit("\n  File", 1)[-1]
                signature = place.split(": ", 1)[0]
                self.traces[signature] = self.traces.get(signature, 0) + 1
            self.progress.event("failed", key=key, error=reply.error, trace=reply.trace)

    def _resubmit_stragglers(self) -> None:
        if len(self.durations) < 3:
            return
        patience = max(self.options.straggler_seconds, 3 * statistics.median(self.durations))
        for key, since in list(self.flying.values()):
            waited = time.monotonic() - since
            idle = len(self.flying) < self.executor.slots
            if idle and waited > patience and key not in self.doubled and key not in self.done:
                self.doubled.add(key)
                self.progress.event("straggler", key=key, seconds=waited)
                self._submit(key)


def _source_identity(task: ShardTask) -> Any:
    from curation.stage import describe

    return describe(task.source)


def _canonical(url: str) -> str:
    url = url.split("*")[0] if "*" in url else url
    return os.path.realpath(storage.local_path(url)) if storage.is_local(url) else url.rstrip("/")


@functools.cache
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("winnow-data", "pyarrow", "numpy", "numba", "duckdb", "ray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found
