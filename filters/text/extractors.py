"""HTML extractors by name: resiliparse, trafilatura, jusText, or a function of your own.

    resiliparse            main content (the default); resiliparse:all keeps navigation and footers
    trafilatura            trafilatura:precision drops more of the doubtful parts, trafilatura:recall less
    justext                stop words of the page's language; justext:German those of one language
    package.module:name    a function from HTML (str) to text (str)

The libraries are imported where used: naming an extractor is free.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from curation.errors import PlanError, suggest

OPTIONS = {"resiliparse": ("", "all"), "trafilatura": ("", "precision", "recall"), "justext": ("",)}
_PACKAGE = {"resiliparse": "resiliparse", "trafilatura": "trafilatura", "justext": "jusText"}


def check(name: str) -> None:
    """Refuse an extractor that does not exist or is not installed, naming the nearest right one."""
    if not isinstance(name, str):
        raise PlanError(
            f"an extractor is a name, such as 'resiliparse' or 'trafilatura:recall'; not {name!r}"
        )
    base, _, option = name.partition(":")
    if "." in base:
        _function(name)
        return
    if base not in OPTIONS:
        raise PlanError(f"unknown extractor {name!r}; {suggest(base, tuple(OPTIONS))}")
    if importlib.util.find_spec(base) is None:
        raise PlanError(
            f"extractor {name!r} needs {_PACKAGE[base]}, which is not installed: pip install {_PACKAGE[base]}"
        )
    known = (*OPTIONS[base], *_stop_lists()) if base == "justext" else OPTIONS[base]
    if option not in known:
        raise PlanError(f"extractor {name!r}: {base} has no option {option!r}; {suggest(option, known[1:])}")


@functools.cache
def label(name: str) -> str:
    """What stands in the ``extractor`` column: the name with the version of its library."""
    base, _, option = name.partition(":")
    if base not in OPTIONS:
        return name
    try:
        made = f"{base}-{version(_PACKAGE[base])}"
    except PackageNotFoundError:  # vendored, without metadata
        made = base
    return f"{made}:{option}" if option else made


@functools.cache
def load(name: str) -> Callable[[str], str | None]:
    """The extractor as a function from HTML to text; imports its library."""
    base, _, option = name.partition(":")
    if base == "resiliparse":
        return _resiliparse(main_content=option != "all")
    if base == "trafilatura":
        return _trafilatura(option)
    if base == "justext":
        return _justext(option)
    return _function(name)


def _resiliparse(main_content: bool) -> Callable[[str], str | None]:
    from resiliparse.extract.html2text import extract_plain_text

    return functools.partial(extract_plain_text, main_content=main_content)


def _trafilatura(option: str) -> Callable[[str], str | None]:
    import trafilatura

    return functools.partial(
        trafilatura.extract,
        include_comments=False,
        favor_precision=option == "precision",
        favor_recall=option == "recall",
    )


def _justext(option: str) -> Callable[[str], str | None]:
    import justext
    from resiliparse.parse.lang import detect_fast

    def extract(html: str) -> str:
        name = option or _stop_list_of(detect_fast(_bare(html))[0])
        # Without a list for the language, jusText's own advice: judge by length and links alone.
        settings = {} if name else {"stopwords_low": 0, "stopwords_high": 0}
        paragraphs = justext.justext(html, justext.get_stoplist(name) if name else frozenset(), **settings)
        return "\n".join(p.text for p in paragraphs if not p.is_boilerplate)

    return extract


def _bare(html: str) -> str:
    """Some text of a page, enough to tell its language."""
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(html[:200_000], main_content=False, preserve_formatting=False))[:20_000]


# languages as resiliparse codes them, and the names of jusText's lists
_LANGUAGES = """
af Afrikaans, sq Albanian, ar Arabic, an Aragonese, hy Armenian, az Azerbaijani, eu Basque, be
Belarusian, bn Bengali, bs Bosnian, br Breton, bg Bulgarian, ca Catalan, cs Czech, da Danish, nl Dutch,
en English, eo Esperanto, et Estonian, fi Finnish, fr French, gl Galician, ka Georgian, de German, el
Greek, gu Gujarati, ht Haitian, he Hebrew, hi Hindi, hr Croatian, hu Hungarian, is Icelandic, io Ido, id
Indonesian, ga Irish, it Italian, jv Javanese, kn Kannada, kk Kazakh, ko Korean, ku Kurdish, ky Kyrgyz,
la Latin, lv Latvian, lt Lithuanian, lb Luxembourgish, mk Macedonian, ms Malay, ml Malayalam, mr
Marathi, ne Nepali, no Norwegian_Bokmal, nn Norwegian_Nynorsk, oc Occitan, fa Persian, pl Polish, pt
Portuguese, ro Romanian, ru Russian, sr Serbian, sh Serbo_Croatian, sk Slovak, sl Slovenian, es Spanish,
su Sundanese, sw Swahili, sv Swedish, tl Tagalog, ta Tamil, te Telugu, tr Turkish, tk Turkmen, uk
Ukrainian, ur Urdu, uz Uzbek, vi Vietnamese, cy Welsh, fy West_Frisian, yo Yoruba
"""


def _stop_list_of(code: str) -> str:
    """jusText's list for a language code, or "" when it has none."""
    name = dict(pair.split() for pair in _LANGUAGES.split(",")).get(code, "")
    return name if name in _stop_lists() else ""


@functools.cache
def _stop_lists() -> tuple[str, ...]:
    from justext import get_stoplists

    return tuple(sorted(get_stoplists()))


def _function(name: str) -> Callable[[str], str | None]:
    module_name, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute or "extract", None)
    except ModuleNotFoundError as error:
        raise PlanError(f"extractor {name!r}: there is no module {error.name!r}") from None
    if not callable(found):
        raise PlanError(f"extractor {name!r}: {module_name} has no function {attribute or 'extract'!r}")
    return found


__all__ = ["OPTIONS", "check", "label", "load"]
