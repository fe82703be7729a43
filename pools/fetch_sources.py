"""Where fetched bytes come from: http(s), object stores and local paths behind one small value.

A source says how long the file is, what identifies this version of it, and which checksums are promised; its
errors come as FetchError with a kind.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message

from curation import storage
from pools.public_http import FetchError, classified, is_http, open_url


@dataclass
class Body:
    """An open source from byte `start`; `total` is the whole file's size, `framed`: its end is explicit."""

    start: int
    total: int | None
    validator: str | None
    promised: dict[str, str]
    framed: bool
    read: Callable[[int], bytes]


@contextlib.contextmanager
def open_source(
    url: str,
    have: int,
    validator: str | None,
    timeout: float,
    allow_private: bool | None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[Body]:
    """The bytes of `url` from `have` on, when it still is the version that `validator` names; else from 0.

    `headers`: sent with the request where the source is http(s)."""
    opened = (
        _open_http(url, have if validator else 0, validator, timeout, allow_private, headers)
        if is_http(url)
        else _open_stored(url, have if validator else 0, validator)
    )
    with opened as body:
        yield body


@contextlib.contextmanager
def _open_http(
    url: str,
    have: int,
    wanted: str | None,
    timeout: float,
    allow_private: bool | None,
    own: Mapping[str, str] | None = None,
) -> Iterator[Body]:
    headers = {"Range": f"bytes={have}-", "If-Range": wanted} if have and wanted else {}
    with open_url(url, {**(own or {}), **headers}, timeout=timeout, allow_private=allow_private) as answer:
        validator = validator_of(answer.headers)
        start, total = 0, length_of(answer.headers.get("Content-Length"))
        if answer.status == 416:
            raise FetchError("changed", url, f"has no byte {have:,} any more")
        if answer.status == 206:
            found = re.match(r"bytes (\d+)-(\d+)/(\d+)$", answer.headers.get("Content-Range", "").strip())
            start, total = (int(found[1]), int(found[3])) if found else (-1, None)
            if not headers or start != have:
                raise FetchError("changed", url, f"byte {have:,} was asked for, and byte {start:,} came")
            if validator and validator != wanted:
                raise FetchError("changed", url, "became another version between two parts")

        def read(n: int) -> bytes:
            try:
                return answer.response.read1(n)  # what is there: a stall later must not cost it
            except (OSError, http.client.HTTPException) as error:
                raise classified(url, error) from error

        framed = "chunked" in answer.headers.get("Transfer-Encoding", "").lower()
        yield Body(start, total, validator, _promised(answer.headers, answer.first), framed, read)


@contextlib.contextmanager
def _open_stored(url: str, have: int, wanted: str | None) -> Iterator[Body]:
    with storage_errors(url):
        info = storage.info(url)
        start = have if wanted == info.etag and have <= info.size else 0
        with storage.open_read(url) as file:
            file.seek(start)

            def read(n: int) -> bytes:
                with storage_errors(url):
                    return file.read(n)

            promised = {"md5": info.etag} if _etag_is_md5(url, info.etag) else {}
            yield Body(start, info.size, info.etag, promised, True, read)


def _etag_is_md5(url: str, etag: str) -> bool:
    """Whether an S3 ETag is the MD5 of the bytes: put in one piece, not encrypted with a key of its own."""
    if not (url.startswith(("s3://", "s3a://")) and re.fullmatch(r"[0-9a-f]{32}", etag)):
        return False
    import fsspec

    try:
        store, path = fsspec.core.url_to_fs(url)
        bucket, key, _ = store.split_path(path)
        head = store.call_s3("head_object", Bucket=bucket, Key=key)
    except Exception:  # then the size is all there is to check
        return False
    return head.get("ServerSideEncryption", "AES256") == "AES256" and not head.get("SSECustomerAlgorithm")


@contextlib.contextmanager
def storage_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (FetchError, GeneratorExit):
        raise
    except FileNotFoundError as error:
        raise FetchError("gone", url, "no such file") from error
    except IsADirectoryError as error:
        raise FetchError("refused", url, "is a folder") from error
    except (OSError, ImportError, EOFError) as error:
        raise _stored_error(url, error) from error
    except Exception as error:  # botocore's own, e.g. no credentials
        if type(error).__module__.split(".")[0] not in ("botocore", "s3fs", "gcsfs", "adlfs", "aiohttp"):
            raise
        raise _stored_error(url, error) from error


def _stored_error(url: str, error: BaseException) -> FetchError:
    text = f"{type(error).__name__}: {error}"
    code = getattr(error, "errno", None)
    if code == errno.EBUSY or any(w in text for w in ("SlowDown", "Throttl", "TooManyRequests")):
        return FetchError("throttled", url, text)
    if "FileExpired" in text or "PreconditionFailed" in text:
        return FetchError("changed", url, text)
    if isinstance(error, (PermissionError, ImportError)) or "Credentials" in text:
        hint = "" if storage.is_local(url) else " (object stores want credentials: AWS_ACCESS_KEY_ID, …)"
        return FetchError("refused", url, text + hint)
    if "EndpointConnection" in text or isinstance(error, ConnectionRefusedError):
        return FetchError("unreachable", url, text)
    return FetchError("timeout", url, text)


def length_of(value: str | None) -> int | None:
    return int(value) if value and value.strip().isdigit() else None


def validator_of(headers: Message) -> str | None:
    """What identifies this version of the file: a strong ETag, or when it was last modified."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _promised(headers: Message, first: Message) -> dict[str, str]:
    """Checksums of the whole file that the server gives, hex: standard headers, and what stores say of ETags.

    S3: an ETag of 32 hex digits is the MD5 of an object that was put in one piece without a key of its own.
    The Hugging Face hub names a large file's sha256 as `X-Linked-Etag` before it redirects.
    """
    promised: dict[str, str] = {}
    whole = headers.get("Content-Range") is None

    def base64(name: str, value: str, digest_bytes: int) -> None:
        with contextlib.suppress(Base64Error, ValueError):
            raw = b64decode(value.strip().strip(":"), validate=True)
            if len(raw) == digest_bytes:
                promised[name] = raw.hex()

    if headers.get("Content-MD5") and whole:
        base64("md5", headers["Content-MD5"], 16)
    for item in ",".join(filter(None, (headers.get("Repr-Digest"), headers.get("Digest")))).split(","):
        name, _, value = item.strip().partition("=")
        if name.lower() == "sha-256":
            base64("sha256", value, 32)
    for item in (headers.get("x-goog-hash") or "").split(","):
        name, _, value = item.strip().partition("=")
        if name == "md5" and not headers.get("x-goog-stored-content-encoding", "identity").startswith("gz"):
            base64("md5", value, 16)
    etag = (headers.get("ETag") or "").strip('"')
    is_s3 = "AmazonS3" in headers.get("Server", "") or headers.get("x-amz-request-id")
    keyed = headers.get("x-amz-server-side-encryption", "AES256") != "AES256" or headers.get(
        "x-amz-server-side-encryption-customer-algorithm"
    )
    if is_s3 and not keyed and re.fullmatch(r"[0-9a-f]{32}", etag):
        promised["md5"] = etag
    linked = (first.get("X-Linked-Etag") or "").strip('"')
    if re.fullmatch(r"[0-9a-f]{64}", linked):
        promised["sha256"] = linked
    return promised
