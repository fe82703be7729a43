"""The planner of batches on its own: whatever is shared, each scored token is predicted from its own text."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.lm.batches import Limits, find_units, plan


def predictions(batch) -> list[tuple[int, tuple[int, ...], int]]:
    """(row, text read before the token, token) for each scored token, by walking the plan's arrays."""
    reads = []
    for b in range(len(batch.ids)):
        reads.append([tuple(batch.ids[b, : batch.lengths[b]])])
    states: list[tuple[int, ...]] = []
    for at in batch.states[0]:
        b, t = divmod(int(at), batch.ids.shape[1])
        assert t < batch.lengths[b], "a state in the padding"
        states.append(tuple(batch.ids[b, : t + 1]))
    for rest, take in zip(batch.rests, batch.states[1:], strict=True):
        assert (rest.lengths > 0).all()
        for at in take:
            n, t = divmod(int(at), rest.ids.shape[1])
            assert t < rest.lengths[n]
            owner = rest.owner[n]
            states.append(tuple(batch.ids[owner, : batch.lengths[owner]]) + tuple(rest.ids[n, : t + 1]))
    owners = np.repeat(batch.rows, batch.counts)
    return [
        (int(row), states[source], int(token))
        for row, source, token in zip(owners, batch.source, batch.target, strict=True)
    ]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_every_scored_token_is_read_after_its_own_text(data) -> None:
    n = data.draw(st.integers(1, 12))
    stem: list[int] = []
    rows, answers = [], []
    for _ in range(n):
        if data.draw(st.booleans()):
            stem = data.draw(st.lists(st.integers(0, 2), max_size=12))
        row = stem + data.draw(st.lists(st.integers(0, 2), min_size=2, max_size=8))
        rows.append(np.array(row, dtype=np.int64))
        answers.append(data.draw(st.integers(1, len(row) - 1)))
    limits = Limits(data.draw(st.sampled_from([1, 16, 1000])), data.draw(st.sampled_from([1, 64, 10_000])))
    gain = data.draw(st.sampled_from([1, 4, 1 << 60]))
    got = [p for batch in plan(rows, answers, limits, gain) for p in predictions(batch)]
    wanted = [
        (i, tuple(row[:at]), int(row[at]))
        for i, (row, a) in enumerate(zip(rows, answers, strict=True))
        for at in range(len(row) - a, len(row))
    ]
    assert sorted(got) == sorted(wanted)


def test_choices_of_a_question_are_one_unit_and_questions_are_not() -> None:
    pairs = [(7, [1, 2]), (7, [1, 3, 4]), (8, [1]), (8, [2])]
    rows = [np.array([question] * 20 + answer) for question, answer in pairs] + [np.array([9, 9, 9])]
    units = find_units(rows)
    assert [(u.rows, u.shared) for u in units] == [((0, 1), 21), ((2, 3), 20), ((4,), 2)]
    (alone, shared) = sorted(plan(rows, [2, 3, 1, 1, 1], Limits()), key=lambda b: b.tokens)
    assert alone.tokens == 2 and not alone.rests
    # 2 × 21 for the contexts (padded), one rest of one token: " 3" of the second choice predicts " 4".
    assert shared.ids.shape == (2, 21) and [r.ids.tolist() for r in shared.rests] == [[[3]]]
    # Letters after one context are one look at the vocabulary.
    assert len(shared.states[0]) == 3 and len(shared.source) == 7


def test_sharing_too_little_is_not_worth_a_cache() -> None:
    rows = [np.array([5, 5, 5, 5, i, 1]) for i in range(2)]  # four tokens saved, two read behind a cache
    assert [u.rows for u in find_units(rows, gain=3)] == [(0,), (1,)]
    assert [u.rows for u in find_units(rows, gain=2)] == [(0, 1)]
    stories = [np.array([*range(20), i, *range(600)]) for i in range(3)]
    assert [u.rows for u in find_units(stories)] == [(0,), (1,), (2,)]


def test_limits_bound_reads_and_caches() -> None:
    rows = [np.array([q] * 50 + [c] * 9) for q in range(10) for c in range(4)]
    batches = plan(rows, [9] * 40, Limits(tokens=128, cached=300))
    assert all(b.ids.size <= 128 for b in batches)
    assert all(r.ids.size <= 128 and len(r.ids) * (2 * 50 + 8) <= 300 for b in batches for r in b.rests)
    assert [b.tokens for b in batches] == sorted((b.tokens for b in batches), reverse=True)
