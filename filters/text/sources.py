"""Content of the files that scores come from, as part of a step's identity."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import curation as c


@functools.cache
def digest(*files: Path) -> str:
    """Hash of the content of these files."""
    return hashlib.blake2b(b"".join(file.read_bytes() for file in files), digest_size=16).hexdigest()


def identity_with(content: Callable[[], str]) -> Any:
    """A class step's ``identity``: the usual one and ``content()``, for tables that ``uses`` cannot name."""
    return property(lambda step: [c.Model.identity.fget(step), content()])  # type: ignore[attr-defined]
