"""Every Python block and winnow command of the documentation is run, in order, in one empty folder a page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(python|bash|yaml)\n(.*?)^```", re.M | re.S)
SKIP = ("make ", "git ", "#", "cd ")


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


PAGES = [p for p in [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"] if p.exists() and blocks(p)]


@pytest.mark.parametrize("page", PAGES, ids=[p.name for p in PAGES])
def test_page(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    ran = 0
    source = ""
    scope: dict = {"__name__": "__main__"}
    for kind, text in blocks(page):
        if kind == "python":
            # as a file, so that the engine can read the functions' source as it would a user's
            source += text
            file = tmp_path / "my_filters.py"
            file.write_text("import curation as c\n" + "".join(_functions(source)))
            block = tmp_path / f"block-{ran}.py"
            block.write_text(text)
            exec(compile(text, str(block), "exec", dont_inherit=True), scope)
            ran += 1
        elif kind == "yaml":
            (tmp_path / "recipe.yaml").write_text(text)
        else:
            for line in text.replace("\\\n", " ").splitlines():
                if not line.strip() or line.startswith(SKIP):
                    continue
                words = shlex.split(line, comments=True)
                assert words[0] == "winnow", f"{page.name}: {line!r} is not run by this test"
                done = subprocess.run(
                    [sys.executable, "-m", "winnow.cli", *words[1:]], capture_output=True, text=True, env=env
                )
                assert done.returncode == 0, f"{page.name}: {line}\n{done.stdout}\n{done.stderr}"
                ran += 1
    assert ran


def _functions(source: str):
    """The page's plain scores, as a module that a recipe can name."""
    yield from re.findall(r"^@c\.score\ndef symbol_ratio.*?(?=^\S)", source + "\nend", re.M | re.S)[:1]
