"""Aggregates against DCLM's published evaluation files, and our averages against hand-made numbers."""

import json
import math
import os
from pathlib import Path

import pytest

from evaluation.lm.aggregate import AggregateError, aggregates, averages, baselines, conventions, sets
from evaluation.lm.tasks import load_suite

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("WINNOW_SHARED_DATA", ROOT.parent / "shared" / "data")) / "published"
TASKS = [task.name for task in load_suite("dclm").tasks]

# Accuracies (%) of one published file (exp_data/evals/gemma7b_heavy.json), in the order of the table, and the
# aggregates that stand in that file.
GEMMA_7B = """
61.923758 79.077876 52.353544 60.166669 55.420774 37.272727 20.408164 57 74.154818 82.239056 57.42321
64.283485 73.059362 86 80.859774 80.343980 82.861805 42.399999 75 79.885060 64.875489 72.637296 80.950010
89.010990 74.269927 16.463415 60.439998 81.553400 41.755768 42.399999 29.130435 73.712122 36.733332
66.190475 53.125 43.099999 44.100001 29.332885 24.577573 0 31.400189 27.611941 54.117650 49.880996
44.973547 84.709477 30.097088 65 61.666667 87.216496 63.110824 27.901787 26.767677
"""
PUBLISHED = {
    "Core_v1": 0.5784899392851446,
    "Core_v2": 0.5678141465622347,
    "Extended_v1": 0.44644635570484037,
    "Extended_v2": 0.43514381477273556,
    "aggregated_results": 0.5624427380869905,
    "rw_small": 0.772865911324819,
    "rw_small_centered": 0.6199252675151267,
    "95%_CI_above": 0.6359303529192875,
    "95%_CI_above_centered": 0.5253266439393981,
    "99%_CI_above": 0.6397772617962049,
    "99%_CI_above_centered": 0.5549438194884752,
    "low_variance_datasets": 0.6566869107159701,
    "low_variance_datasets_centered": 0.5678141465622347,
}
PUBLISHED_CATEGORIES = {
    "commonsense reasoning": 0.5573828354153402,
    "language understanding": 0.6026093522689088,
    "reading comprehension": 0.27097075210328686,
    "safety": 0.3849699280478738,
    "symbolic problem solving": 0.3648832293020355,
    "world knowledge": 0.4601790512932672,
}


@pytest.fixture
def icl() -> dict[str, float]:
    return dict(zip(TASKS, (float(x) / 100 for x in GEMMA_7B.split()), strict=True))


def same(ours, theirs) -> bool:
    if isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[k], theirs[k]) for k in theirs)
    return ours == theirs if isinstance(theirs, str) else math.isclose(ours, theirs, rel_tol=0, abs_tol=1e-9)


def test_every_published_file_to_1e_9() -> None:
    folder = SHARED / "dclm_evals"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set WINNOW_SHARED_DATA to the folder that holds published/")
    files = sorted(folder.glob("*.json"))
    compared = texts = 0
    for path in files:
        published = json.loads(path.read_text())
        ours = aggregates(published["eval_metrics"]["icl"], published["eval_version"])
        shared = sorted(set(published) & set(ours))
        assert [key for key in shared if not same(ours[key], published[key])] == [], path.name
        for key in ("Core", "Core_v1", "Core_v2", "Extended", "Extended_v1", "Extended_v2"):
            assert key in shared
        compared += len(shared)
        texts += sum(str(published[key]).startswith("N/A due to missing tasks: ") for key in shared)
    assert len(files) >= 70 and compared == 19 * len(files)
    assert texts >= 12  # the cases with tasks missing are among them


def test_a_published_file_as_numbers_in_this_test(icl) -> None:
    ours = aggregates(icl)
    for key, value in PUBLISHED.items():
        assert ours[key] == pytest.approx(value, abs=2e-8), key
    assert ours["aggregated_task_categories_centered"] == pytest.approx(PUBLISHED_CATEGORIES, abs=2e-8)
    assert (ours["Core"], ours["Extended"]) == (ours["Core_v2"], ours["Extended_v2"])
    assert (ours["missing tasks"], ours["eval_version"]) == ("[]", "v2")


def test_the_convention_is_stored_and_all_three_are_reported(icl) -> None:
    assert conventions() == ["v0", "v1", "v2"]
    for version in conventions():
        ours = aggregates(icl, version)
        assert ours["eval_version"] == version
        assert ours["Core"] == ours[f"Core_{version}"] == ours["low_variance_datasets_centered"]
        assert ours["Extended"] == ours[f"Extended_{version}"] == ours["aggregated_centered_results"]
        chance = baselines(version)
        by_hand = [(icl[t] - chance[t]) / (1 - chance[t]) for t in TASKS]
        assert ours["Extended"] == pytest.approx(sum(by_hand) / 53, abs=1e-12)
    core = {v: aggregates(icl)[f"Core_{v}"] for v in conventions()}
    assert core["v2"] < core["v1"] and core["v0"] != core["v2"]
    with pytest.raises(AggregateError, match=r"no convention 'v3'.*v0, v1, v2"):
        aggregates(icl, "v3")


def test_conventions_are_those_of_dclms_tables() -> None:
    v0, v1, v2 = (baselines(v) for v in conventions())
    assert [v[t] for t in ("commonsense_qa", "agi_eval_lsat_ar", "boolq") for v in (v0, v1, v2)] == [
        0.25, 0.2, 0.403,
        0.25, 0.2, 0.25,
        0.5, 0.62, 0.62,
    ]  # fmt: skip
    assert (v1["bigbench_language_identification"], v1["siqa"], v1["logi_qa"]) == (0.091, 0.333, 0.27)
    assert sorted(t for t in TASKS if v1[t] != v2[t]) == [
        "agi_eval_lsat_ar", "agi_eval_lsat_lr", "agi_eval_lsat_rc", "bigbench_conceptual_combinations",
        "bigbench_elementary_math_qa", "bigbench_language_identification", "bigbench_logical_deduction",
        "bigbench_novel_concepts", "bigbench_understanding_fables", "commonsense_qa", "logi_qa", "siqa",
    ]  # fmt: skip


def test_a_missing_member_makes_core_and_extended_texts(icl) -> None:
    del icl["gpqa_main"]
    ours = aggregates(icl)
    assert ours["Extended_v1"] == ours["Extended"] == "N/A due to missing tasks: ['gpqa_main']"
    assert ours["missing tasks"] == "['gpqa_main']"
    assert ours["Core"] == pytest.approx(PUBLISHED["Core_v2"], abs=2e-8)
    assert isinstance(ours["aggregated_centered_results"], float)  # DCLM's trap: over those that are there
    del icl["boolq"], icl["copa"]
    # in the order of DCLM's list, not of the table
    assert aggregates(icl)["Core_v1"] == "N/A due to missing tasks: ['copa', 'boolq']"
    assert aggregates(icl)["Extended"] == "N/A due to missing tasks: ['copa', 'boolq', 'gpqa_main']"


def test_tasks_that_are_not_among_the_53_are_ignored(icl) -> None:
    assert same(aggregates({**icl, "gsm8k": 0.9, "svamp": 0.9, "human_eval": "many"}), aggregates(icl))


def test_nothing_at_all() -> None:
    ours = aggregates({})
    assert ours["Core"].startswith("N/A due to missing tasks: ['hellaswag_zeroshot', 'jeopardy'")
    assert math.isnan(ours["rw_small"]) and len(ours["aggregated_task_categories_centered"]) == 6


@pytest.mark.parametrize("value", [55.0, -0.1, "0.5", None, math.nan])
def test_a_score_that_is_no_fraction_is_named(icl, value) -> None:
    with pytest.raises(AggregateError, match="'copa': its accuracy is"):
        aggregates({**icl, "copa": value})


def test_sets() -> None:
    named = sets()
    sizes = {name: len(members) for name, members in named.items()}
    assert sizes == {
        "core": 22, "extended": 53, "light": 2, "medium": 12, "core_and_mmlu": 23, "small": 6,
        "ci_95": 28, "ci_99": 23, "world knowledge": 10, "commonsense reasoning": 8,
        "language understanding": 8, "symbolic problem solving": 15, "reading comprehension": 8, "safety": 4,
    }  # fmt: skip
    assert set(named["core"]) == {task.name for task in load_suite("dclm").tasks if task.core}
    assert {"hellaswag", "hellaswag_zeroshot"} <= set(named["core"]) and "mmlu_fewshot" not in named["core"]


def test_averages_carry_standard_errors_and_know_no_half_sets(icl) -> None:
    results = {name: (value, 0.01) for name, value in icl.items()}
    ours = averages(results)
    for name in ("core", "extended"):
        assert ours[name].value == pytest.approx(aggregates(icl)[name.capitalize()])
        assert ours[name].missing == () and ours[name].eval_version == "v2"
    # small: hellaswag_zeroshot, arc x2 (chance 1/4), copa, winogrande (1/2), boolq (.62), of different files
    by_hand = math.sqrt(3 * (0.01 / 0.75) ** 2 + 2 * (0.01 / 0.5) ** 2 + (0.01 / 0.38) ** 2) / 6
    assert ours["small"].stderr == pytest.approx(by_hand)
    # the two HellaSwags of Core are on the same items: their errors add up
    alone = [m for m in sets()["core"] if not m.startswith("hellaswag")]
    chance = baselines()
    squares = sum((0.01 / (1 - chance[m])) ** 2 for m in alone) + (2 * 0.01 / 0.75) ** 2
    assert ours["core"].stderr == pytest.approx(math.sqrt(squares) / 22)

    del results["copa"]
    ours = averages(results)
    assert (ours["core"].value, ours["core"].stderr, ours["core"].missing) == (None, None, ("copa",))
    assert ours["light"].value is not None and ours["commonsense reasoning"].missing == ("copa",)
    assert averages({**results, "copa": (0.8, None)})["core"].stderr is None


def test_one_v1_number_by_hand() -> None:
    """light under v1 and v2: hellaswag .45 and mmlu .26, both with chance 1/4."""
    light = averages({"hellaswag_zeroshot": (0.45, 0.005), "mmlu_zeroshot": (0.26, 0.004)}, "v1")["light"]
    assert light.value == pytest.approx((0.2 / 0.75 + 0.01 / 0.75) / 2)
    assert light.eval_version == "v1"
