"""What the command line fills a recipe's ${name} with."""

from __future__ import annotations

import argparse
from typing import Any


def variables(arguments: argparse.Namespace) -> dict[str, Any]:
    """--pool (a listing stands for its shards), --out, and every --set. PlanError for one without `=`."""
    import yaml

    from curation.errors import PlanError
    from pools.listing import pool_argument

    values: dict[str, Any] = {"pool": pool_argument(arguments.pool), "out": arguments.out}
    for item in arguments.set:
        name, equals, value = item.partition("=")
        if not equals:
            raise PlanError(f"--set {item!r}: it is NAME=VALUE")
        values[name] = yaml.safe_load(value)
    return values
