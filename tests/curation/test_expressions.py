"""keep expressions: what is accepted, what is refused and how it is said, what null means."""

import pyarrow as pa
import pytest

from curation.errors import PlanError
from curation.expressions import check, columns_of, evaluate

SCHEMA = {
    "language": pa.string(),
    "language_score": pa.float32(),
    "n": pa.int64(),
    "gopher": pa.struct([("n_words", pa.int64())]),
    "tags": pa.list_(pa.string()),
}


@pytest.mark.parametrize(
    ("expression", "columns"),
    [
        ("language = 'en' and language_score >= .65", ("language", "language_score")),
        ("gopher.n_words between 50 and 100000", ("gopher",)),
        ("N > 1 or n is null", ("N", "n")),
        ("len(tags) > 0 and list_contains(tags, 'x')", ("tags",)),
        ("case when n > 1 then true else language in ('en', 'de') end", ("n", "language")),
        ("language like 'e%' -- a remark", ("language",)),
    ],
)
def test_accepted(expression, columns):
    assert columns_of(expression) == columns
    check(expression, SCHEMA)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("langauge = 'en'", "did you mean 'language'"),
        ("n", "BIGINT, not true or false"),
        ("n > 1; drop table rows", "cannot be parsed|not one expression"),
        ("id in (select 1)", "sub-query"),
        ("count(*) > 1", "aggregates"),
        ("row_number() over () > 1", "window"),
        ("random() < .5", "random"),
        ("now() > '2020-01-01'", "now"),
        ("current_date > '2020-01-01'", "current_date"),
        ("gopher.nwords > 1", "nwords"),
        ("lenght(language) > 1", "lenght"),
        ("n >", "cannot be parsed"),
        ("language + 1 > 2 and tags > 3", "refused"),
    ],
)
def test_refused_with_a_message(expression, says):
    with pytest.raises(PlanError, match=says):
        check(expression, SCHEMA | {"id": pa.string()} if expression.startswith("id") else SCHEMA)


def test_null_is_not_kept_and_order_is_the_batchs():
    batch = pa.RecordBatch.from_pydict({"n": [3, None, 1, 5]})
    assert evaluate("n > 2", batch).tolist() == [True, False, False, True]
    assert evaluate("not (n > 2)", batch).tolist() == [False, False, True, False]


def test_a_float32_score_meets_its_own_decimal_threshold():
    batch = pa.RecordBatch.from_pydict({"s": pa.array([0.65, 0.1, 0.7], pa.float32())})
    assert evaluate("s >= .65", batch).tolist() == [True, False, True]


def test_no_file_can_be_reached():
    with pytest.raises(PlanError):
        check("n > 1 or read_text('/etc/passwd') is null", SCHEMA)
