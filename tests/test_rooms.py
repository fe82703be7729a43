"""The house: a room imports only rooms below it, and `curation` imports no heavy library at module level."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["winnow", "evaluation", "recipes", "baselines", "filters", "pools", "curation"]  # from the top down
HEAVY = {"torch", "ray", "open_clip", "duckdb", "numba", "pandas", "fastwarc", "resiliparse", "fasttext"}


def imports(file: Path, module_level: bool = False):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body if module_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.lineno, node.module


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below(room):
    above = set(ROOMS[: ROOMS.index(room)])
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in (ROOT / room).rglob("*.py")
        for line, name in imports(file)
        if name.split(".")[0] in above
    ]
    assert not wrong, "\n".join(wrong)


def test_curation_imports_nothing_heavy_at_module_level():
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in (ROOT / "curation").rglob("*.py")
        if not file.name.endswith("_kernels.py")  # compiled code, itself imported where it is used
        for line, name in imports(file, module_level=True)
        if name.split(".")[0] in HEAVY
    ]
    assert not wrong, "\n".join(wrong)


def test_filters_never_train_and_recipes_never_filter():
    for room, verb in (("filters", "recipes"), ("recipes", "baselines")):
        for file in (ROOT / room).rglob("*.py"):
            assert not [n for _, n in imports(file) if n.split(".")[0] == verb], file


def test_embedded_data_is_small():
    files = [f for f in ROOT.glob("*/data/**/*") if f.is_file() and "__pycache__" not in f.parts]
    assert 4_000_000 < sum(f.stat().st_size for f in files) <= 15_000_000
