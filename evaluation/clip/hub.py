"""The hub that serves the evaluation sets: which commit a revision is, and its files with their checksums.

``HF_ENDPOINT`` names another host (a mirror) and ``HF_TOKEN`` the reader, as for the hub's own library.
"""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from evaluation.clip.set_files import HubFile
from pools.fetch import Policy
from pools.public_http import FetchError, classified, open_url, private_allowed

ENDPOINT = "https://huggingface.co"
MAX_ANSWER = 64 << 20
"""Bytes of one answer of the API, at most."""


def endpoint() -> str:
    """Where the hub is: ``HF_ENDPOINT``, else the public one. ValueError when it is no http(s) address."""
    found = (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
    if urlsplit(found).scheme not in ("http", "https") or not urlsplit(found).hostname:
        raise ValueError(f"HF_ENDPOINT is {found!r}; it must be an address as {ENDPOINT}")
    return found


def headers(policy: Policy) -> dict[str, str]:
    """``HF_TOKEN`` as the header of a request, if set; without TLS only inside one's own network."""
    token = os.environ.get("HF_TOKEN", "").strip()
    secure = endpoint().startswith("https:") or private_allowed(policy.allow_private)
    return {"Authorization": f"Bearer {token}"} if token and secure else {}


def file_url(source: str, revision: str, path: str) -> str:
    """Where a file of a data set is fetched."""
    return f"{endpoint()}/datasets/{source}/resolve/{quote(revision, safe='')}/{quote(path)}"


def commit(source: str, revision: str, policy: Policy) -> str:
    """The commit (40 hex digits) that a branch, tag or commit of a data set is. FetchError."""
    url = f"{endpoint()}/api/datasets/{source}/revision/{quote(revision, safe='')}"
    answer, _ = _get_json(url, policy)
    found = answer.get("sha") if isinstance(answer, dict) else None
    if not isinstance(found, str) or not re.fullmatch(r"[0-9a-f]{40}", found):
        raise FetchError("refused", url, f"says no commit, but {str(answer)[:80]!r}: is it a hub?")
    return found


def files(source: str, revision: str, policy: Policy) -> list[HubFile]:
    """Every file of a data set at a commit, with size and checksum. FetchError."""
    url: str | None = f"{endpoint()}/api/datasets/{source}/tree/{quote(revision, safe='')}?recursive=true"
    found: list[HubFile] = []
    while url is not None:
        answer, following = _get_json(url, policy)
        try:
            for entry in answer:
                if entry["type"] == "file":
                    found.append(_file(entry))
        except (KeyError, TypeError, ValueError) as error:
            raise FetchError("refused", url, f"is no list of files ({error!r}): is it a hub?") from None
        url = following
    return found


def _file(entry: dict[str, Any]) -> HubFile:
    path, large = str(entry["path"]), entry.get("lfs")
    if large:
        return HubFile(path, int(large["size"]), sha256=str(large["oid"]).removeprefix("sha256:"))
    return HubFile(path, int(entry["size"]), blob=str(entry["oid"]))


def _get_json(url: str, policy: Policy) -> tuple[Any, str | None]:
    """An answer of the API and the URL of its next page; retried as files are (`pools.fetch.Policy`)."""
    tries = 0
    while True:
        try:
            return _get_json_once(url, policy)
        except FetchError as error:
            tries += 1
            most = policy.throttled_tries if error.kind == "throttled" else policy.tries
            if error.kind not in ("throttled", "timeout", "unreachable") or tries > most:
                raise
            time.sleep(policy.delay(url, tries, error.retry_after))


def _get_json_once(url: str, policy: Policy) -> tuple[Any, str | None]:
    sent = headers(policy)
    with open_url(url, sent, timeout=policy.timeout, allow_private=policy.allow_private) as answer:
        try:
            data = answer.response.read(MAX_ANSWER + 1)
        except Exception as error:
            raise classified(url, error) from error
        if len(data) > MAX_ANSWER:
            raise FetchError("refused", url, f"answers with more than {MAX_ANSWER:,} bytes")
        following = re.search(r'<([^>]+)>;\s*rel="?next"?', answer.headers.get("Link", ""))
    try:
        value = json.loads(data)
    except ValueError as error:
        raise FetchError("timeout", url, f"answers with no JSON ({error})") from None
    return value, (urljoin(url, following[1]) if following else None)
