"""Steps are values: what decorators read from a function, and what a step says about one row."""

from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import curation as c


class Shape(NamedTuple):
    words: int
    mean: float


@c.score
def shape(text: str) -> Shape:
    words = text.split()
    return Shape(len(words), sum(map(len, words)) / max(1, len(words)))


@c.score
def maybe(text: str) -> float | None:
    return None if not text else 1.5


@c.score(batch=True)
def n_chars(text: pa.StringArray) -> pa.Array:
    return pc.utf8_length(text)


@dataclass(frozen=True)
class WordShare(c.Model):
    word: str
    inputs = ("text",)

    def setup(self):
        object.__setattr__(self, "_ready", self.word.lower())

    def __call__(self, batch):
        texts = batch.column("text").to_pylist()
        return pa.array(
            [t.lower().split().count(self._ready) / max(1, len(t.split())) for t in texts], pa.float32()
        )


def test_a_row_function_says_its_columns_by_its_signature():
    assert shape.name == "shape" and shape.inputs == ("text",)
    assert shape.output == pa.struct([("words", pa.int64()), ("mean", pa.float64())])
    assert maybe.output == pa.float64()
    assert shape("to be") == Shape(2, 2.0)  # still a function


def test_a_batch_function_is_asked_for_its_type_with_empty_arrays():
    assert n_chars.output_types({"text": pa.string()}) == {"n_chars": pa.int32()}


def test_check_runs_each_tier_on_one_row():
    assert c.check(shape, "to be or") == {"words": 3, "mean": 2.0}
    assert c.check(n_chars, "añb") == 3
    assert c.check(WordShare("Cat"), "cat dog cat dog") == pytest.approx(0.5)
    assert c.check(c.keep("n >= 3", reason="n"), {"n": 3}) is True
    assert c.check(c.keep(lambda n: n > 3, reason="n"), {"n": 3}) is False

    @c.transform
    def lines(text):
        return [{"text": line} for line in text.split("\n")]

    assert [r["text"] for r in c.check(lines, "a\nb")] == ["a", "b"]


def test_a_model_travels_without_its_weights_and_sets_up_once_where_it_arrives():
    import cloudpickle

    step = WordShare("cat")
    step.setup()
    there = cloudpickle.loads(cloudpickle.dumps(step))
    assert not hasattr(there, "_ready") and there == step
    assert c.check(there, "cat") == 1.0


def test_identity_follows_source_and_parameters_and_nothing_else():
    from curation.identity import digest

    def make(limit):
        @c.score
        def over(text: str) -> bool:
            return len(text) > limit

        return over

    assert digest(make(3).identity) == digest(make(3).identity)
    assert digest(make(3).identity) != digest(make(4).identity)
    assert digest(WordShare("a").identity) != digest(WordShare("b").identity)

    @c.score
    def over(text: str) -> bool:
        return len(text) >= 3

    assert digest(over.identity) != digest(make(3).identity)


def test_identity_of_a_file_parameter_is_its_content(tmp_path):
    from curation.identity import digest

    one, two = tmp_path / "one.bin", tmp_path / "two.bin"
    one.write_bytes(b"weights")
    two.write_bytes(b"weights")
    assert digest(WordShare(str(one)).identity) == digest(WordShare(str(two)).identity)
    two.write_bytes(b"other")
    assert digest(WordShare(str(one)).identity) != digest(WordShare(str(two)).identity)


def test_rng_depends_on_row_and_step_alone():
    assert c.rng("row", "step").random() == c.rng("row", "step").random()
    assert c.rng("row", "step").random() != c.rng("row", "other").random()
    assert c.rng("a", "bc").random() != c.rng("ab", "c").random()


def starred(*columns) -> int:
    return len(columns)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: c.score(lambda text: 1), "annotation"),
        (lambda: c.score(starred), r"\*columns"),
        (lambda: c.keep(lambda n: True), "reason"),
        (lambda: c.keep(""), "expression"),
    ],
)
def test_a_step_that_cannot_be_is_refused_where_it_is_made(make, says):
    with pytest.raises(c.PlanError, match=says):
        make()


def test_importing_the_room_is_cheap():
    """No torch, ray, duckdb or numba, and well under half a second (measured by bench/engine.py)."""
    import subprocess
    import sys

    heavy = ("torch", "ray", "duckdb", "numba", "open_clip", "pandas")
    code = f"import sys, curation, curation.driver; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
