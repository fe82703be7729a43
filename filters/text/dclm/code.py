"""DCLM's mappers for code and LaTeX: GitHub files (RedPajama's rules), repositories (StarCoder 2), arXiv
sources.

Sources: RedPajama v1's data preparation for GitHub and arXiv, StarCoder 2 (Lozhkov et al. 2024, arXiv
2402.19173), as DCLM uses them. ``compat="dclm"`` reproduces what is odd in DCLM; each docstring says what
that is.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import curation as c
from curation.errors import PlanError
from filters.text.buffers import SHARED
from filters.text.dclm.mappers import between, compat_of, least, measures, quoted
from filters.text.dclm.pages import Page, PageMapper, Pages, builtin

# RedPajama's list for GitHub; the case counts
GITHUB_EXTENSIONS = tuple(
    """ .asm .bash .bat .c .c++ .C .cc .cmake .cmd .command .cpp .cs .css .dockerfile .f .f03 .f08 .f77 .f90
    .f95 .for .fpp .go .h .h++ .H .hh .hpp .hs .html .java .jl .js .lua .m .markdown .md .perl .php .php3
    .php4 .php5 .phps .phpt .pl .pm .pod .ps1 .psd1 .psm1 .py .rb .rs .rst .scala .sh .smali .sql .tex .ts
    .tsx .vb .xml .zsh Dockerfile Makefile
    """.split()  # noqa: SIM905
)


# --------------------------------------------------------------------------------------------------- GitHub


@dataclass(frozen=True)
class Extension(c.Model):
    """Does the file's name end in one of these: a boolean column; false without a name."""

    filename_key: str
    allowed_extensions: tuple[str, ...]
    column: str = "github_extension_filter"

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.filename_key,)

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.column: pa.bool_()}

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        names = batch.column(self.filename_key)
        found = pa.array(np.zeros(len(names), bool))
        for ending in self.allowed_extensions:
            found = pc.or_(found, pc.fill_null(pc.ends_with(names, ending), False))
        return found


def github_extension_filter(
    filename_key: str = "filename",
    allowed_extensions: Sequence[str] | None = None,
    *,
    column: str = "github_extension_filter",
    reason: str = "github_extension_filter",
) -> list[Any]:
    """Keep files whose name (column ``filename_key``) ends in one of ``allowed_extensions``, upper and
    lower case as written; None is RedPajama's list. A file without a name is dropped."""
    allowed = GITHUB_EXTENSIONS if allowed_extensions is None else tuple(allowed_extensions)
    return [Extension(filename_key, allowed, column), c.keep(quoted(column), reason=reason)]


@dataclass(frozen=True)
class AlphaPerToken(c.Model):
    """Letters (``str.isalpha``) per token of ``tokenizer_name``: a float64 column, null for a text of no
    token."""

    tokenizer_name: str
    column: str = "alphabetic_characters_to_tokens_filter"
    inputs = ("text",)
    uses = (
        "filters.text.dclm.mappers_kernels", "filters.text.dclm.classes", "filters.text.codepoints", *SHARED,
    )  # fmt: skip

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.column: pa.float64()}

    def setup(self) -> None:
        from tokenizers import Tokenizer

        place = Path(self.tokenizer_name)
        place = place / "tokenizer.json" if place.is_dir() else place
        if place.is_file():
            tokenizer = Tokenizer.from_file(str(place))
        else:
            try:
                tokenizer = Tokenizer.from_pretrained(self.tokenizer_name)
            except Exception as error:
                raise FileNotFoundError(
                    f"tokenizer {self.tokenizer_name!r} is neither a file here nor could it be downloaded "
                    f"({type(error).__name__}: {error}); give the path of its tokenizer.json"
                ) from error
        tokenizer.no_truncation()
        object.__setattr__(self, "_tokenizer", tokenizer)

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        text = batch.column("text")
        encode = self._tokenizer.encode  # type: ignore[attr-defined]
        tokens = np.array(
            [len(encode(t or "", add_special_tokens=False).ids) for t in text.to_pylist()], np.int64
        )
        alpha = measures(text)["n_alpha"]
        return pa.array(alpha / np.maximum(tokens, 1), mask=tokens == 0)


def alphabetic_characters_to_tokens_filter(
    tokenizer_name: str = "EleutherAI/pythia-6.9b-deduped",
    min_ratio: float | None = None,
    *,
    max_ratio: float | None = None,
    compat: str | None = None,
    column: str = "alphabetic_characters_to_tokens_filter",
    reason: str = "alphabetic_characters_to_tokens_filter",
) -> list[Any]:
    """Keep pages with at least ``min_ratio`` (1.5, inclusive) letters per token: text that a tokenizer cuts
    into little pieces is data, not prose or code. ``tokenizer_name``: a tokenizer.json, a folder with one,
    or a name on the model hub. DCLM calls the bound ``max_ratio``, though it is a minimum there too: that
    name is taken only with ``compat="dclm"``. An empty page is dropped."""
    name = "alphabetic_characters_to_tokens_filter"
    if importlib.util.find_spec("tokenizers") is None:
        raise PlanError(f"{name} needs the package tokenizers: pip install tokenizers")
    bound = least(name, "ratio", min_ratio, max_ratio, compat, 1.5)
    return [AlphaPerToken(tokenizer_name, column), *between(column, bound, math.inf, reason)]


# -------------------------------------------------------------------------------------------- repositories


def repository_pieces(page: Page, max_files: int, delete_content: bool) -> Pages:
    files = page["files"]
    if len(files) <= max_files:
        return [page]
    pieces = [{**page, "files": files[i : i + max_files]} for i in range(0, len(files), max_files)]
    if delete_content:
        for piece in pieces:
            piece.pop("text", None)
    return pieces


def starcoder_v2_repo_splitter(max_files: int = 1000, delete_content: bool = True) -> PageMapper:
    """A repository (column ``files``: a list of {filename, text, …}) of more than ``max_files`` files becomes
    several, of so many files each. The first keeps the id's place: ids are ``id/0``, ``id/1`` and so on.
    ``delete_content``: the pieces have no ``text``, which was that of the whole."""
    if max_files < 1:
        raise PlanError(f"starcoder_v2_repo_splitter: max_files={max_files}; it is 1 or more")
    return builtin(
        "starcoder_v2_repo_splitter", repository_pieces, ("files", "text"),
        max_files=max_files, delete_content=delete_content,
    )  # fmt: skip


def repository_text(page: Page, add_metadata_prob: float, add_sentinels: bool, seed: int) -> Pages:
    chosen = c.rng(page["id"], f"starcoder_v2_format_modifier/{seed}").random() < add_metadata_prob
    start, between_files = ("<repo_name>", "<file_sep>") if add_sentinels else ("", "\n\n")
    if chosen:
        head = f"{start}{page['repo_name']}"
        parts = [f"{between_files}{file['filename']}\n{file['text']}" for file in page["files"]]
    else:
        head, parts = "", [between_files + file["text"] for file in page["files"]]
    text = head + "".join(parts)
    return [{**page, "text": text if add_sentinels else text.strip()}]


def starcoder_v2_format_modifier(
    add_metadata_prob: float = 0.5, add_sentinels: bool = True, seed: int = 0
) -> PageMapper:
    """``text`` from all ``files`` of a repository, with ``<file_sep>`` before each; with probability
    ``add_metadata_prob`` also their names, and ``<repo_name>`` with the repository's (column ``repo_name``)
    in front. ``add_sentinels: false``: blank lines in place of the marks. The draw comes from the row's id
    and ``seed`` (DCLM's has no seed). A mark that stands in a file's own text stays; DCLM takes it out with
    the others.
    """
    if not 0 <= add_metadata_prob <= 1:
        raise PlanError(
            f"starcoder_v2_format_modifier: add_metadata_prob={add_metadata_prob} is not in 0 … 1"
        )
    return builtin(
        "starcoder_v2_format_modifier", repository_text, ("files", "repo_name", "text"),
        ("files", "repo_name"), (("text", "string"),), add_metadata_prob=add_metadata_prob,
        add_sentinels=add_sentinels, seed=seed,
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------- arXiv

_APPENDIX = re.compile(
    r"(?:\\appendix|\\begin\{(?:references|REFERENCES|thebibliography)\}|\\bibliography\{.*?\}).*", re.DOTALL
)
_COMMENT_LINE = re.compile(r"^%.*\n?", re.MULTILINE)
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%.*$", re.MULTILINE)
_COMMENT_DCLM = re.compile(r"[^\\]%.+$", re.MULTILINE)
_COMMENT_BLOCK = re.compile(r"\\begin\{comment\}.*?\\end\{comment\}", re.DOTALL)
_MACROS = (
    re.compile(r"\\newcommand\b\*?\{(\\[a-zA-Z0-9]+?)\}\{(.*?)\}$", re.MULTILINE),
    re.compile(r"\\def\s*(\\[a-zA-Z0-9]+?)\s*\{(.*?)\}$", re.MULTILINE),
)
_HEADINGS = ("chapter", "part", "section", "subsection", "subsubsection", "paragraph", "subparagraph")
_ARGUMENTS = r"\b\*?(?:\[.*?\])?\{.*?\}"
_HEADING = re.compile(rf"\\(?:{'|'.join(_HEADINGS)}){_ARGUMENTS}", re.DOTALL)
_HEADING_DCLM = re.compile(
    rf"\\(?:(?:{'|'.join(_HEADINGS[:5])}){_ARGUMENTS}|paragraph{_ARGUMENTS}\\subparagraph{_ARGUMENTS})",
    re.DOTALL,
)


def _with_text(page: Page, text: str) -> Pages:
    return [{**page, "text": text}] if text else []


def without_appendix(page: Page) -> Pages:
    return _with_text(page, _APPENDIX.sub("", page["text"]))


def without_comments(page: Page, remove_multiline: bool, compat: str | None) -> Pages:
    text = _COMMENT_LINE.sub("", page["text"])
    text = _COMMENT_DCLM.sub("", text) if compat == "dclm" else _COMMENT.sub(r"\1", text)
    if remove_multiline:
        text = _COMMENT_BLOCK.sub("", text)
    return _with_text(page, text)


def expanded_macros(page: Page) -> Pages:
    text = page["text"]
    macros = {m.group(1): m.group(2) for pattern in _MACROS for m in pattern.finditer(text)}
    for name, value in macros.items():
        text = re.sub(re.escape(name) + r"(?=[^a-zA-Z0-9])", lambda _, value=value: value, text)
    return _with_text(page, text)


def from_first_section(page: Page, compat: str | None) -> Pages:
    found = (_HEADING_DCLM if compat == "dclm" else _HEADING).search(page["text"])
    return _with_text(page, page["text"][found.start() :]) if found else []


def arxiv_appendix_modifier() -> PageMapper:
    """Nothing from the first ``\\appendix``, ``\\bibliography{…}`` or ``\\begin{references}`` (or REFERENCES,
    thebibliography) on. A page of which nothing is left is dropped, here and below."""
    return builtin("arxiv_appendix_modifier", without_appendix, ("text",))


def arxiv_comment_modifier(remove_multiline: bool = False, compat: str | None = None) -> PageMapper:
    """Without LaTeX comments: whole lines, ends of lines (not after ``\\%``) and, with
    ``remove_multiline``, ``comment`` environments. DCLM also takes the character before a '%', and leaves a
    '%' at a line's end: only with ``compat="dclm"``."""
    return builtin(
        "arxiv_comment_modifier", without_comments, ("text",),
        remove_multiline=remove_multiline, compat=compat_of(compat),
    )  # fmt: skip


def arxiv_macro_modifier() -> PageMapper:
    """Macros without arguments (``\\newcommand{\\x}{…}``, ``\\def\\x{…}``, on one line each) written out
    wherever they are used, in the order they are defined, ``\\newcommand`` first. (DCLM loses pages whose
    macros hold letters outside ASCII, to an error; here they stay.)"""
    return builtin("arxiv_macro_modifier", expanded_macros, ("text",))


def arxiv_section_strip_modifier(compat: str | None = None) -> PageMapper:
    """Nothing before the first heading (chapter, part, section … subparagraph); a page without one is
    dropped. For DCLM a ``\\paragraph`` counts only with a ``\\subparagraph`` right after it, for want of a
    '|' in its pattern: only with ``compat="dclm"``."""
    return builtin("arxiv_section_strip_modifier", from_first_section, ("text",), compat=compat_of(compat))
