"""The pages in a real browser, headless: they draw, sort and open, and report no error.

Skipped, visibly, where no chromium is on PATH.
"""

import os
import re
import shutil
import subprocess

import pytest
import synthetic_results
import synthetic_run

from curation import funnel
from evaluation import leaderboard

BROWSER = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium on PATH: pages are not opened in a browser"
)


def dump(page, tmp_path, width=1280):
    """The document after its scripts ran, and what the console said."""
    profile = tmp_path / "profile"
    shutil.rmtree(profile, ignore_errors=True)
    profile.mkdir()
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--enable-logging=stderr", "--v=0", f"--user-data-dir={profile}", f"--window-size={width},1600",
         "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=90, env={**os.environ, "HOME": str(profile)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, said


def with_probe(page, script):
    """A copy of a page without its content policy, whose last script writes into <body data-probe>."""
    text = page.read_text(encoding="utf-8")
    text, n = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert n == 1
    copy = page.with_name("probe-" + page.name)
    probe = f"<script>document.body.dataset.probe = JSON.stringify((() => {{ {script} }})());</script></body>"
    copy.write_text(text.replace("</body>", probe), encoding="utf-8")
    return copy


def probed(page, script, tmp_path, width=1280):
    import html
    import json

    dom, said = dump(with_probe(page, script), tmp_path, width)
    assert said == []
    return json.loads(html.unescape(re.search(r'data-probe="([^"]*)"', dom).group(1)))


@pytest.fixture(scope="module")
def run_page(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    report = synthetic_run.write(root)
    return root, report, root.__class__(funnel.render(root))


@pytest.fixture(scope="module")
def board_page(tmp_path_factory):
    root = tmp_path_factory.mktemp("board")
    return leaderboard.build(synthetic_results.write(root), root / "out")


def test_the_console_is_heard(tmp_path):
    page = tmp_path / "loud.html"
    page.write_text("<!doctype html><title>x</title><script>throw new Error('heard')</script>")
    assert "heard" in dump(page, tmp_path)[1][0]


def test_funnel_opens_without_a_word_on_the_console_and_runs_nothing_of_the_pool(run_page, tmp_path):
    _, report, page = run_page
    dom, said = dump(page, tmp_path)
    assert said == []
    assert "<title>Funnel of" in dom and "owned" not in re.search("<title>(.*?)</title>", dom).group(1)
    assert dom.count('<details class="reason"') == len(report["reasons"])
    assert dom.count("<tr") > len(report["steps"])
    for step in report["steps"]:
        assert f">{step['rows_out']:,}<" in dom
    assert dom.count("<script") == 1
    assert (
        re.search(r'<button[^>]*id="open-all"[^>]*>Open all', dom)
        and "hidden" not in re.search(r'<button[^>]*id="open-all"[^>]*>', dom).group()
    )


def test_funnel_opens_the_reason_that_a_link_names(run_page, tmp_path):
    _, _, page = run_page
    script = """document.querySelector('a[href="#reason-2"]').click();
      const all = document.getElementById('open-all');
      location.hash = '#reason-2'; dispatchEvent(new HashChangeEvent('hashchange'));
      const linked = document.getElementById('reason-2').open; all.click();
      return [linked, [...document.querySelectorAll('details.reason')].every(d => d.open)];"""
    assert probed(page, script, tmp_path) == [True, True]


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window(run_page, board_page, tmp_path, width):
    script = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth];"
    for page in (run_page[2], board_page):
        wide, window = probed(page, script, tmp_path, width)
        assert wide <= window


def test_leaderboard_rows_ranks_and_links(board_page, tmp_path):
    dom, said = dump(board_page, tmp_path)
    assert said == []
    assert dom.count('<table class="board"') == 2
    ranks = re.findall(r'<td class="rank" data-value="(\d+)"', dom)
    assert ranks == ["1", "2", "3", "4", "5", "1", "2", "3", "4", "5"]
    for title, *_ in [*synthetic_results.TEXT.values(), *synthetic_results.IMAGE_TEXT.values()]:
        assert title in dom
    assert 'href="leaderboard.json"' in dom and 'href="leaderboard.csv"' in dom


def test_leaderboard_sorts_by_a_click_and_says_so(board_page, tmp_path):
    script = """const table = document.querySelector('table.board');
      const titles = () => [...table.tBodies[0].rows].map(r => r.cells[1].dataset.value);
      const button = [...table.querySelectorAll('th button')].find(b => b.textContent.startsWith('Kept'));
      button.click(); const once = [titles(), button.parentNode.getAttribute('aria-sort')];
      button.click(); const twice = [titles(), button.parentNode.getAttribute('aria-sort')];
      return [once, twice];"""
    (falling, first), (rising, second) = probed(board_page, script, tmp_path)
    kept = {title: fraction for title, _, fraction, *_ in synthetic_results.TEXT.values()}
    assert [kept[t] for t in falling] == sorted(kept.values(), reverse=True) and first == "descending"
    assert [kept[t] for t in rising] == sorted(kept.values()) and second == "ascending"


def test_plot_labels_do_not_overlap_as_drawn(board_page, tmp_path):
    script = """return [...document.querySelectorAll('svg.plot')].map(svg =>
      [...svg.querySelectorAll('text.name')].map(t => {
        const b = t.getBoundingClientRect(); return [b.left, b.top + 2, b.right, b.bottom - 2]; }));"""
    plots = probed(board_page, script, tmp_path)
    assert [len(p) for p in plots] == [5, 5]
    for boxes in plots:
        for i, (a, b, c, d) in enumerate(boxes):
            for e, f, g, h in boxes[:i]:
                assert not (a < g and e < c and b < h and f < d)
