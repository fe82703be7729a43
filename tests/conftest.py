"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def ray_session():
    """One small local Ray for the whole test session."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    from curation.executors.ray import start

    start(2)
    yield ray
    ray.shutdown()


@pytest.fixture
def text_pool(tmp_path: Path) -> Path:
    """Eight parquet shards of 60 generated documents, some repeated across shards."""
    from support import write_text_pool

    return write_text_pool(tmp_path / "pool")
