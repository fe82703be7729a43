"""Reading the next batch while the one before is in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Generator[T, None, None], depth: int) -> Generator[T, None, None]:
    """The same items in the same order; a thread takes up to ``depth`` of them in advance (0: none).

    An exception comes when its item would have. Closing this closes ``items``.
    """
    if not depth:
        yield from items
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    end = object()
    pool = ThreadPoolExecutor(1, "batches")
    try:
        coming: deque[Future[object]] = deque(pool.submit(next, items, end) for _ in range(depth))
        while (item := coming.popleft().result()) is not end:
            coming.append(pool.submit(next, items, end))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
        items.close()
