"""DCLM's own YAML files, run here unchanged.

    import baselines
    recipe = baselines.find("dclm/baselines/baselines_configs/dclm_baseline_refinedweb.yaml")
    c.run(recipe.plan(pool="pool/", out="out/"))

Such a file is a list of {source, steps}; a step is {func, parameters…} or the word ``commit`` (nothing to
do here: every stage commits). Functions go by DCLM's names (``NAMES``); a dotted name ``pkg.mod.func`` is a
user's own Python function from a page (dict) to a list of pages. Files of lists and models are looked for
beside the YAML and in the folders above it, so that paths from DCLM's root work. Each removal has the
function as reason.

``compat="dclm"`` (the default here) takes DCLM's rules to the letter; ``compat=None``, or ``--set
compat=none`` on the command line, takes them mended: the docstring of each step says what differs.
``docs/from-dclm.md`` is the user's page.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import curation as c
from curation.errors import PlanError, suggest
from curation.plan import flatten
from curation.plan_file import Recipe
from filters.text.dclm import (
    code,
    edits,
    lines,
    mappers,
    mappers_dedup,
    mappers_lines,
    mappers_models,
    named,
    pages,
)
from filters.text.dclm.mappers_aggregate import AGGREGATORS, TRANSFORMS
from filters.text.dclm.repetition import DclmRepetition
from filters.text.dclm.scores import DclmScores

# DCLM's name → what makes our steps
FILTERS: dict[str, Callable[..., Any]] = {"page_length_filter": mappers.scored_page_length_filter} | {
    f.__name__: f
    for f in (
        mappers.line_length_filter,
        mappers.alphanumeric_char_ratio_filter,
        mappers.substring_filter,
        mappers.url_substring_filter,
        mappers.random_sampling_filter,
        mappers.quality_filter,
        mappers_models.language_filter,
        code.github_extension_filter,
        code.alphabetic_characters_to_tokens_filter,
    )
}
SCORED: dict[str, Callable[..., Any]] = {  # keeps over scores that several of them share
    f.__name__: f
    for f in (
        named.word_length_filter,
        named.symbol_ratio_filter,
        named.bullet_count_filter,
        named.ellipsis_count_filter,
        named.alphabetic_word_ratio_filter,
        named.stop_word_filter,
        named.massive_web_repetition_filters,
        named.repetition_filter,
        named.word_removal_ratio_filter,
    )
}
ENRICHERS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        mappers.line_counter_enricher,
        mappers.word_counter_enricher,
        mappers_models.detect_lang_whole_page_enricher,
        mappers_models.detect_lang_paragraph_enricher,
        mappers_models.classify_fasttext_hq_prob_enricher,
        mappers_models.ken_lm_perplexity_enricher,
    )
}
MODIFIERS: dict[str, Callable[..., Any]] = {
    "url_removal_modifier": edits.url_removal_modifier,
    "newline_removal_modifier": edits.newline_removal_modifier,
    "uppercase_ratio_line_modifier": lines.uppercase_ratio_line_modifier,
    "numeric_ratio_line_modifier": lines.numeric_ratio_line_modifier,
    "counter_line_modifier": lines.counter_line_modifier,
    "line_length_modifier": lines.line_length_modifier,
    "substring_line_modifier": lines.substring_line_modifier,
    "punctuation_line_modifier": mappers_lines.PunctuationLineModifier,
    "word_length_modifier": mappers_lines.WordLengthModifier,
    "citation_removal_modifier": mappers_lines.CitationRemovalModifier,
    "within_page_dedup": mappers_lines.WithinPageDedup,
    "split_lines_modifier": mappers_lines.SplitLinesModifier,
    "join_lines_modifier": mappers_lines.JoinLinesModifier,
    "move_url_modifier": pages.move_url_modifier,
    "key_name_modifier": pages.key_name_modifier,
    "html_content_extraction_modifier": pages.html_content_extraction_modifier,
    "stackexchange_list_modifier": pages.stackexchange_list_modifier,
    "stackexchange_answer_sort_modifier": pages.stackexchange_answer_sort_modifier,
    "stackexchange_html_extraction_modifier": pages.stackexchange_html_extraction_modifier,
    "stackexchange_qa_formatter": pages.stackexchange_qa_formatter,
    "starcoder_v2_repo_splitter": code.starcoder_v2_repo_splitter,
    "starcoder_v2_format_modifier": code.starcoder_v2_format_modifier,
    "arxiv_appendix_modifier": code.arxiv_appendix_modifier,
    "arxiv_comment_modifier": code.arxiv_comment_modifier,
    "arxiv_macro_modifier": code.arxiv_macro_modifier,
    "arxiv_section_strip_modifier": code.arxiv_section_strip_modifier,
}
GLOBAL: dict[str, Callable[..., Any]] = {"exact_dedup": mappers_dedup.exact_dedup}
NAMES = (*FILTERS, *SCORED, *ENRICHERS, *MODIFIERS, *GLOBAL)

_OURS = ("column", "reason", "compat", "units", "prefix", "path")  # parameters that DCLM does not have
_RENAMED = {"url_removal_modifier": {"tlds_filepath": "tlds"}}
_FILES = ("banlist_from_fname", "tlds_filepath", "model_filename")
_MORE = {  # parameters of DCLM's that ours do not list
    "repetition_filter": ("ignore_case", "cache"),
    "word_removal_ratio_filter": ("ignore_punctuation", "ignore_whitespace", "model"),
    "word_length_modifier": ("ignore_punctuation", "ignore_whitespace"),
    "within_page_dedup": (),
}
# what may come between split_lines_modifier and join_lines_modifier: it does not read text as a string
_ON_LISTS = (
    "exact_dedup", "join_lines_modifier", "split_lines_modifier", "quality_filter", "language_filter",
    "url_substring_filter", "random_sampling_filter", "move_url_modifier",
)  # fmt: skip


@dataclass(frozen=True)
class DclmRecipe(Recipe):
    """A DCLM YAML file. ``sources``: name → its steps as they stand there."""

    sources: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    compat: str | None = "dclm"
    chosen: str | None = None

    @property
    def variables(self) -> tuple[str, ...]:
        return ("pool", "out")

    def steps(self, source: str | None = None, compat: str | None = "") -> list[Any]:
        """Our steps for one source (needless to name it where there is one), without read and write.
        PlanError names the step, what is wrong with it and the nearest right name."""
        rules = mappers.compat_of(self.compat if compat == "" else compat)
        return _Translation(self.path, rules, self._block(source or self.chosen)).steps()

    def _block(self, source: str | None) -> tuple[Any, ...]:
        names = tuple(self.sources)
        if source is None and len(names) == 1:
            return self.sources[names[0]]
        if source is None:
            raise PlanError(f"{self.path} has several sources; say --set source=… ({', '.join(names)})")
        if source not in names:
            raise PlanError(f"{self.path} has no source {source!r}; {suggest(source, names)}")
        return self.sources[source]

    def plan(self, **variables: Any) -> list[Any]:
        """Read, the steps, write. Variables: pool, out, and maybe ``source``, ``compat`` ("dclm" or "none")
        and ``extract`` (default: when the pool is of WARC files, whose text DCLM extracts before its YAML
        begins)."""
        values = {k: v for k, v in variables.items() if v is not None}
        known = ("pool", "out", "source", "compat", "extract")
        for name in values:
            if name not in known:
                raise PlanError(f"{self.path} has no variable {name!r}; {suggest(name, known)}")
        for name in self.variables:
            if name not in values:
                raise PlanError(f"{self.path} needs ${{{name}}}: give it with --set {name}=…")
        compat = values.get("compat", self.compat)
        steps = self.steps(values.get("source"), None if compat in ("none", "None", None) else compat)
        if values.get("extract", _is_warc(values["pool"])):
            from filters.text import extract

            steps = [extract(), *steps]
        return [c.read(values["pool"]), *steps, c.write(values["out"])]


def _is_warc(pool: Any) -> bool:
    from curation.shards import list_shards

    try:
        return any(shard.format == "warc" for shard in list_shards(pool))
    except (OSError, ValueError):  # reading says what is wrong with it
        return False


def is_dclm(path: str | Path) -> bool:
    """Whether a YAML file is a list of blocks with steps, as DCLM's are; ours are mappings."""
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return False
    return isinstance(data, list) and any(isinstance(block, dict) and "steps" in block for block in data)


def load(path: str | Path, compat: str | None = "dclm", source: str | None = None) -> DclmRecipe:
    """Read a DCLM YAML file. PlanError for what is no such file; its steps are checked by ``steps`` and
    ``plan``."""
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise PlanError(f"{path} is not YAML: {error}") from None
    if not isinstance(data, list):
        raise PlanError(f"{path}: a DCLM configuration is a list of blocks with `source` and `steps`")
    sources: dict[str, tuple[Any, ...]] = {}
    for number, block in enumerate(data):
        where = f"{path}, block {number}"
        if not isinstance(block, dict) or not isinstance(block.get("steps"), list):
            raise PlanError(f"{where}: a block is a mapping with `source` and a list `steps`")
        for key in block:
            if key not in ("source", "steps", "weight"):
                raise PlanError(
                    f"{where}: unknown key {key!r}; {suggest(str(key), ('source', 'steps', 'weight'))}"
                )
        name = str(block.get("source", number))
        if name in sources:
            raise PlanError(f"{where}: source {name!r} is there twice")
        sources[name] = tuple(block["steps"])
    mappers.compat_of(compat)
    name = Path(path).stem
    return DclmRecipe(
        path=str(path), name=name, title=f"{name} (DCLM)", description="A DCLM configuration, run as it is.",
        source="Li et al. 2024 (arXiv 2406.11794)", track="text", sources=sources, compat=compat,
        chosen=source,
    )  # fmt: skip


@dataclass
class _Translation:
    """One block, step by step. ``edits`` numbers the state of the text, so that scores are made once for
    each."""

    path: str
    compat: str | None
    block: tuple[Any, ...]
    edits: int = 0
    lists: bool = False
    used: Counter[str] = field(default_factory=Counter)
    scored: dict[tuple[str, int], str] = field(default_factory=dict)

    def steps(self) -> list[Any]:
        out: list[Any] = []
        for number, step in enumerate(self.block):
            if step == "commit":
                continue
            where = f"{self.path}, step {number}"
            if not isinstance(step, dict) or not isinstance(step.get("func"), str):
                raise PlanError(f"{where}: {step!r} is neither `commit` nor a mapping with `func`")
            try:
                made = self._step(step, number)
            except (TypeError, ValueError) as error:  # a PlanError is a ValueError
                raise PlanError(f"{where} ({step['func']}): {error}") from None
            out += made
            self.edits += any(getattr(s, "kind", None) in ("transform", "barrier") for s in made)
        if not out:
            raise PlanError(f"{self.path}: no step to run")
        return out

    def _step(self, step: dict[str, Any], number: int) -> list[Any]:
        func = step["func"]
        given = {str(k): v for k, v in step.items() if k != "func" and not str(k).startswith("_")}
        check_aggregates(step.get("_aggregate"))
        if "." in func:
            return [self._custom(func, given, step.get("_outputs"), number)]
        if func not in NAMES:
            raise PlanError(f"there is no such function; {suggest(func, NAMES)} (your own: pkg.mod.{func})")
        if self.lists and func not in _ON_LISTS:
            raise PlanError(
                "text is a list of lines here, after split_lines_modifier: join_lines_modifier first"
            )
        parameters = self._parameters(func, given)
        if func in SCORED:
            made = self._scored(func, parameters)
        elif func == "page_length_filter" and _counted(parameters):
            scores, column = self._scores("dclm", lambda output: DclmScores(output=output))
            made = [*scores, *named.page_length_filter(**_ours(parameters), column=column)]
        elif func == "exact_dedup":
            made = mappers_dedup.exact_dedup(**parameters, units=self.lists and self._on_text(parameters),
                                             prefix=self._column(func))  # fmt: skip
        else:
            made = flatten([(FILTERS | ENRICHERS | MODIFIERS)[func](**parameters)])
        self.lists = {"split_lines_modifier": True, "join_lines_modifier": False}.get(func, self.lists)
        return [_named_after(func, one) for one in made]

    def _on_text(self, parameters: dict[str, Any]) -> bool:
        return parameters.get("content_key", "text") == "text"

    def _parameters(self, func: str, given: dict[str, Any]) -> dict[str, Any]:
        """Checked, files found, in our words."""
        maker = (FILTERS | SCORED | ENRICHERS | MODIFIERS | GLOBAL)[func]
        signature = inspect.signature(maker).parameters
        renamed = _RENAMED.get(func, {})
        ours = [name for name in signature if name not in _OURS and name not in renamed.values()]
        known = [*ours, *renamed, *_MORE.get(func, ())]
        out: dict[str, Any] = {}
        for name, value in given.items():
            if name not in known:
                raise PlanError(f"no parameter {name!r}; {suggest(name, known)}")
            if name in _FILES and value is not None:
                value = self._file(str(value), optional=name == "tlds_filepath")
            out[renamed.get(name, name)] = value
        if "compat" in signature:
            out["compat"] = self.compat
            if self.compat is None and func in _MINIMUM:  # DCLM's name for the bound says the contrary
                wrong, right = _MINIMUM[func]
                out |= {right: out.pop(wrong)} if wrong in out else {}
        if "column" in signature and func in FILTERS:
            out["column"] = self._column(func)
        if func == "random_sampling_filter":
            out["seed"] = self.used[func] - 1
        if func == "page_length_filter" and self.compat is None:
            out |= {"tokenizer": "rules"} if out.get("tokenizer") else {}
        return out

    def _column(self, func: str) -> str:
        self.used[func] += 1
        return func if self.used[func] == 1 else f"{func}_{self.used[func]}"

    def _file(self, name: str, optional: bool) -> str | None:
        found = find_file(name, self.path)
        if found is None and not optional:
            raise PlanError(
                f"there is no file {name!r} beside {self.path}, above it, or in the working folder"
            )
        return None if found is None else str(found)

    def _scores(self, name: str, make: Callable[[str], Any]) -> tuple[list[Any], str]:
        """The score whose column holds ``name`` for the text as it is now, unless it has been made."""
        if (name, self.edits) in self.scored:
            return [], self.scored[name, self.edits]
        column = self.scored[name, self.edits] = self._column(name)
        return [make(column)], column

    def _scored(self, func: str, parameters: dict[str, Any]) -> list[Any]:
        if func == "word_removal_ratio_filter":
            return self._words_removed(parameters)
        if func in ("repetition_filter", "massive_web_repetition_filters"):
            parameters.pop("cache", None)
            lower = parameters.pop("ignore_case", False)
            name = "dclm_repetition_lower" if lower else "dclm_repetition"
            make = mappers.LowercaseRepetition if lower else DclmRepetition
            scores, column = self._scores(name, lambda output: make(output=output))
        else:
            scores, column = self._scores("dclm", lambda output: DclmScores(output=output))
        return [*scores, *SCORED[func](**parameters, column=column)]

    def _words_removed(self, parameters: dict[str, Any]) -> list[Any]:
        if "prev_word_count_key" not in parameters:
            raise PlanError(
                "prev_word_count_key is missing: the column that word_counter_enricher made before"
            )
        counting = {k: parameters.pop(k) for k in _MORE["word_removal_ratio_filter"] if k in parameters}
        made = []
        if parameters.get("new_word_count_key") is None:
            key = self._column("word_removal_ratio_filter")
            made.append(mappers.word_counter_enricher(key, compat=self.compat, **counting))
            parameters["new_word_count_key"] = key
        for name in ("prev_word_count_key", "new_word_count_key"):
            parameters[name] = mappers.quoted(str(parameters[name]))
        return [*made, *named.word_removal_ratio_filter(**parameters)]

    def _custom(self, func: str, given: dict[str, Any], outputs: Any, number: int) -> Any:
        module, _, name = func.rpartition(".")
        if module.startswith("."):
            raise PlanError("a dotted name begins with a folder or file, not with a point")
        file = find_file(module.replace(".", "/") + ".py", self.path)
        if file is None:
            raise PlanError(
                f"there is no file {module.replace('.', '/')}.py beside {self.path}, above it, or in the "
                "working folder"
            )
        adds = {str(k): str(v) for k, v in (outputs or {}).items()} | {
            k: v for k, v in self._read_later(number).items() if k not in (outputs or {})
        }
        step = pages.PageMapper(
            f"{file}:{name}", tuple(sorted(given.items())), tuple(sorted(adds.items())), label=name
        )
        pages.mapper_of(step.function, given)  # found, and a factory takes these parameters
        return step

    def _read_later(self, number: int) -> dict[str, str]:
        """Columns that filters after a user's function read and no step of DCLM's makes."""
        enriched = {s.get("key") for s in self.block if isinstance(s, dict) and s.get("func") in ENRICHERS}
        later = [s for s in self.block[number + 1 :] if isinstance(s, dict)]
        keys = {s.get("key") for s in later if s.get("func") == "quality_filter"} - enriched
        return {key: "double" for key in keys if isinstance(key, str)}


_MINIMUM = {
    "alphanumeric_char_ratio_filter": ("max_alnum_ratio", "min_alnum_ratio"),
    "alphabetic_characters_to_tokens_filter": ("max_ratio", "min_ratio"),
}


def _counted(parameters: dict[str, Any]) -> bool:
    """Whether a page length is among the scores that the baseline's filters share."""
    plain = {
        "length_type": "word",
        "ignore_punctuation": True,
        "ignore_whitespace": True,
        "model": "fasttext",
    }
    defaults = {"ignore_whitespace": True, "model": "fasttext"}
    return all((defaults | parameters).get(name) == value for name, value in plain.items())


def _ours(parameters: dict[str, Any]) -> dict[str, Any]:
    names = ("length_type", "min_length", "max_length", "ignore_punctuation")
    return {k: v for k, v in parameters.items() if k in names}


def _named_after(func: str, step: Any) -> Any:
    """The step with DCLM's function as its reason of removal."""
    if isinstance(step, c.Keep):
        return dataclasses.replace(step, reason=func)
    if isinstance(step, c.Transform) and step.name != func:
        return Named(step, func)
    return step


@dataclass(frozen=True)
class Named(c.Transform):
    """A transform under another name, which is the reason rows leave it with."""

    step: Any
    label: str
    removes = ()

    @property
    def name(self) -> str:
        return self.label

    @property
    def inputs(self) -> Any:
        return self.step.inputs

    @property
    def outputs(self) -> Any:
        return self.step.outputs

    @property
    def identity(self) -> Any:
        return [self.label, self.step.identity]

    def output_types(self, schema: Any) -> Any:
        return self.step.output_types(schema)

    def setup(self) -> None:
        self.step.setup()

    def __call__(self, batch: Any) -> Any:
        return self.step(batch)


def find_file(name: str, beside: str | Path) -> Path | None:
    """A file named in a YAML: beside it, in a folder above it (DCLM writes paths from its root), in the
    working folder; models also where DCLM keeps them."""
    models = "baselines/mappers/enrichers/quality_prediction_enrichment_models"
    folder = Path(beside).resolve().parent
    for place in (folder, *folder.parents, Path.cwd()):
        for candidate in (place / name, place / models / name):
            if candidate.is_file():
                return candidate
    return None


# ----------------------------------------------------------------------------------------------- aggregates


def check_aggregates(aggregate: Any) -> None:
    """PlanError unless ``_aggregate`` is what DCLM accepts: key → type, or key → {type, transform, …}."""
    if aggregate is None:
        return
    if not isinstance(aggregate, dict):
        raise PlanError(f"_aggregate is {aggregate!r}; it is a mapping, column → percentiles or histogram")
    for key, how in aggregate.items():
        kind = how if isinstance(how, str) else how.get("type")
        if kind not in AGGREGATORS:
            raise PlanError(
                f"_aggregate of {key!r}: no type {kind!r}; {suggest(str(kind), list(AGGREGATORS))}"
            )
        change = None if isinstance(how, str) else how.get("transform")
        if change is not None and change not in TRANSFORMS:
            raise PlanError(
                f"_aggregate of {key!r}: no transform {change!r}; {suggest(str(change), list(TRANSFORMS))}"
            )


def aggregates(recipe: DclmRecipe, run_dir: str | Path, source: str | None = None) -> dict[str, Any]:
    """What ``_aggregate`` asks for, from a finished run's scores: column → percentiles or histogram over
    the rows that reached the step and have a value (of the whole pool; DCLM has one for each shard)."""
    import pyarrow.dataset as ds

    out: dict[str, Any] = {}
    for step in recipe._block(source or recipe.chosen):
        for key, how in (step.get("_aggregate") or {}).items() if isinstance(step, dict) else ():
            values: list[Any] = []
            for stage in sorted(Path(run_dir, "scores").iterdir()):
                data = ds.dataset(stage, format="parquet")
                if key in data.schema.names:
                    values += [
                        v for v in data.to_table(columns=[key]).column(key).to_pylist() if v is not None
                    ]
            how = {"type": how} if isinstance(how, str) else dict(how)
            change = how.pop("transform", None)
            kind = how.pop("type")
            if change is not None:
                values = [TRANSFORMS[change](_weights(v), **how) for v in values]
            out[key] = AGGREGATORS[kind](values)
    return out


def _weights(value: Any) -> dict[str, float]:
    """A column of languages as language → probability."""
    return {entry["language"]: entry["probability"] for entry in value}
