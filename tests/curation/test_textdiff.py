"""What an edit did, shown small: right where it is whole, and bounded where it is not."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from curation.textdiff import ADDED, GAP, REMOVED, SAME, as_html, as_text, pieces

ODD = st.text(alphabet="ab c\n\t\r\x00é世\u2028😀.", max_size=60)


@settings(max_examples=200, deadline=None)
@given(ODD, ODD)
def test_short_edits_are_told_whole(before, after):
    found = pieces(before, after, limit=10_000)
    if before == after:
        assert found == []
    elif not any(op == GAP for op, _ in found):
        assert "".join(t for op, t in found if op in (SAME, REMOVED)) == before
        assert "".join(t for op, t in found if op in (SAME, ADDED)) == after


def test_a_removed_line_and_a_changed_word():
    before = "Keep this line.\nRead more »\nThe price is 10 dollars today.\n"
    after = "Keep this line.\nThe price is 12 dollars today.\n"
    found = pieces(before, after)
    assert (REMOVED, "Read more »\n") in found
    assert (REMOVED, "10") in found and (ADDED, "12") in found
    shown = as_text(found)
    assert "- Read more »" in shown.splitlines()
    assert "The price is [-10-]{+12+} dollars today." in shown
    assert "\x1b[31m" in as_text(found, colour=True) and "\x1b" not in shown


def test_what_is_left_out_is_said():
    before = "a long text that stays the same. " * 50 + "OLD" + " and the same again" * 50
    found = pieces(before, before.replace("OLD", "NEW"))
    said = [t for op, t in found if op == GAP]
    assert len(said) == 2 and all("characters unchanged" in t for t in said)
    assert (REMOVED, "OLD") in found and (ADDED, "NEW") in found
    assert sum(len(t) for _, t in found) < 400


def test_many_changes_are_cut_short_and_counted():
    before = "".join(f"line {n} x\n" for n in range(500))
    found = pieces(before, before.replace("x", "y"), limit=300)
    assert found[-1][0] == GAP and "more changes" in found[-1][1]
    assert sum(len(t) for _, t in found) < 700


def test_control_characters_cannot_move_the_cursor():
    shown = as_text(pieces("safe\n\x1b[2Jbad\n", "safe\n"))
    assert "\x1b" not in shown and "␛[2Jbad" in shown


def test_hostile_texts_take_little_time():
    texts = ["\n" * 200_000, "ab\n" * 100_000 + "c", "x" * 2_000_000, " ".join(map(str, range(300_000)))]
    start = time.process_time()
    for before in texts:
        for after in (before[::2], "", before[1:-1] + "z", before.replace("a", "b")):
            pieces(before, after)
    assert time.process_time() - start < 20


def test_removed_blank_lines_can_be_seen():
    found = pieces("one\n\n\ntwo  \n", "one\ntwo\n")
    assert "<del>↵\n↵\n</del>" in as_html(found) and "<del>··</del>" in as_html(found)
    shown = as_html(pieces("a <b> c", "a  c"))
    assert "&lt;b&gt;" in shown and "<b>" not in shown
