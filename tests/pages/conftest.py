"""The makers of synthetic runs and results live beside the rooms' tests."""

import sys
from pathlib import Path

for room in ("curation", "evaluation"):
    sys.path.insert(0, str(Path(__file__).parents[1] / room))
