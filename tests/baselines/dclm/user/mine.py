"""Mappers as a user of DCLM writes them."""

from typing import Dict, List  # noqa: UP035

from baselines.core.constants import CONTENT
from core.factory_utils import factory_function


def first_words(page: Dict, n=3) -> List[Dict]:  # noqa: UP006
    page[CONTENT] = " ".join(page[CONTENT].split()[:n])
    return [page] if page[CONTENT] else []


def by_sentence(page: Dict) -> List[Dict]:  # noqa: UP006
    return [{**page, CONTENT: part} for part in page[CONTENT].split(". ")]


@factory_function
def share_of(word):
    def enrich(page):
        words = page[CONTENT].split()
        page["share"] = words.count(word) / len(words)
        page["metadata"]["seen"] = True
        return [page]

    return enrich


def forgets_to_say(page):
    page["surprise"] = 1
    return [page]


def no_list(page):
    return page
