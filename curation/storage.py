"""Files by URL: local paths and any fsspec URL (``s3://…``, ``gs://…``, ``memory://…``) behind one small API.

The one promise that the engine builds on is :func:`atomic_write`: a file either appears whole under its
name or does not appear at all. S3 settings (end point, keys, region) come from the environment as botocore
reads it, e.g. ``AWS_ENDPOINT_URL``; nothing is passed by hand, so workers on other machines see the same.
"""

from __future__ import annotations

import contextlib
import errno
import glob as _glob
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any

_QUESTIONS = 32  # to an object store at a time
_BLOCK = 8 << 20  # read-ahead and smallest multipart piece of object stores, bytes


@dataclass(frozen=True)
class FileInfo:
    """One file of a listing.

    ``name`` is the path relative to what was listed, with ``/`` between parts: it is the same wherever the
    folder lies. ``etag`` changes when the file does; locally it is ``"<size>-<mtime_ns>"``.
    """

    url: str
    size: int
    etag: str
    name: str


# ---------------------------------------------------------------- names


def is_local(url: str) -> bool:
    """Whether ``url`` is a path on this machine (a plain path or ``file://…``)."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> str:
    """The absolute path of a local URL; raises ValueError for any other URL."""
    if not is_local(url):
        raise ValueError(f"{url!r} is not a local path")
    return os.path.abspath(os.path.expanduser(url.removeprefix("file://")))


def join(url: str, *parts: str) -> str:
    """``url`` with ``parts`` below it, one ``/`` between each."""
    out = url
    for part in parts:
        out = (out if out.endswith("/") else out + "/") + part.lstrip("/")
    return out


def basename(url: str) -> str:
    """The last part of a URL."""
    return url.rstrip("/").rsplit("/", 1)[-1]


def _remote(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path in it."""
    import fsspec

    try:
        # Listings are not cached: other workers write while we list.
        return fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise ImportError(
            f"{url!r} needs a file system package: {error} (for S3: `winnow-data[s3]`)"
        ) from error


# ---------------------------------------------------------------- listing


def list_files(url: str | Sequence[str], suffixes: Sequence[str] | None = None) -> list[FileInfo]:
    """Files of a folder (recursively), a glob, one file, or a list of these; sorted by URL, without repeats.

    Names that begin with ``_`` or ``.`` are skipped below a folder, and so is everything under them: that is
    where a run keeps its manifest and its unfinished files. ``suffixes`` keeps names that end with one of
    them. Raises FileNotFoundError when an entry names nothing (an empty folder is no error).
    """
    entries = [url] if isinstance(url, (str, os.PathLike)) else list(url)
    found: dict[str, tuple[int, str, str]] = {}
    roots: list[str] = []
    for root, files in _listed([os.fspath(entry) for entry in entries]):
        roots.append(root)
        for file_url, size, etag in files:
            found[file_url] = (size, etag, root)
    # Names are relative to the one listed folder, or, for a list, to the folder that all entries share.
    common = _common_folder(roots)
    infos = [FileInfo(u, size, etag, _relative(u, common)) for u, (size, etag, _) in found.items()]
    if suffixes is not None:
        infos = [i for i in infos if i.url.endswith(tuple(suffixes))]
    return sorted(infos, key=lambda i: i.url)


def _listed(entries: list[str]) -> Iterator[tuple[str, list[tuple[str, int, str]]]]:
    """(root, files) of every entry; a store is asked about many at a time, for each question is a journey."""
    remote = [entry for entry in entries if not is_local(entry)]
    if len(remote) < 2:
        yield from (_list_local(entry) if is_local(entry) else _list_remote(entry) for entry in entries)
        return
    with ThreadPoolExecutor(min(_QUESTIONS, len(remote))) as pool:
        answers = pool.map(_list_remote, remote)
        yield from (_list_local(entry) if is_local(entry) else next(answers) for entry in entries)


def _list_local(entry: str) -> tuple[str, list[tuple[str, int, str]]]:
    path = local_path(entry)
    if os.path.isfile(path):
        return os.path.dirname(path), [_stat(path)]
    if os.path.isdir(path):
        out = []
        for folder, folders, files in os.walk(path, followlinks=True):
            folders[:] = sorted(d for d in folders if not _hidden(d))
            out += [_stat(os.path.join(folder, f)) for f in files if not _hidden(f)]
        return path, out
    if _glob.has_magic(path):
        matches = [p for p in _glob.glob(path, recursive=True) if os.path.isfile(p)]
        root = _before_magic(path)
        matches = [p for p in matches if not any(_hidden(s) for s in os.path.relpath(p, root).split(os.sep))]
        if matches:
            return root, [_stat(p) for p in matches]
    raise FileNotFoundError(errno.ENOENT, "no such file, folder, or match of a pattern", entry)


def _list_remote(entry: str) -> tuple[str, list[tuple[str, int, str]]]:
    fs, path = _remote(entry)
    fs.invalidate_cache()
    if _glob.has_magic(path):
        found = fs.glob(path, detail=True)
        root = _before_magic(path)
    else:
        found = fs.find(path, detail=True)
        root = path
        if set(found) == {path}:
            root = path.rsplit("/", 1)[0]
    found = {p: i for p, i in found.items() if i["type"] == "file" and not p.endswith("/")}
    if not found and not fs.exists(path):
        raise FileNotFoundError(errno.ENOENT, "no such file, folder, or match of a pattern", entry)
    root_url = fs.unstrip_protocol(root)
    out = []
    for p, info in found.items():
        file_url = fs.unstrip_protocol(p)
        if not any(_hidden(s) for s in _relative(file_url, root_url).split("/")):
            out.append((file_url, int(info["size"]), _etag(info)))
    return root_url, out


def _hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _before_magic(path: str) -> str:
    """The deepest folder of a glob that has no pattern in it."""
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if _glob.has_magic(part))
    return "/".join(parts[:first]) or "/"


def _common_folder(roots: list[str]) -> str:
    split = [r.rstrip("/").split("/") for r in roots]
    shared = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared)


def _relative(url: str, folder: str) -> str:
    folder = folder.rstrip("/") + "/"
    return url[len(folder) :] if url.startswith(folder) else url.split("://", 1)[-1].lstrip("/")


def _stat(path: str) -> tuple[str, int, str]:
    s = os.stat(path)
    return path, s.st_size, f"{s.st_size}-{s.st_mtime_ns}"


def _etag(info: dict[str, Any]) -> str:
    """What the store says identifies this version of the object."""
    for key in ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "created"):
        if info.get(key):
            return str(info[key]).strip('"')
    return str(info.get("size"))


def info(url: str) -> FileInfo:
    """Size and etag of one file; raises FileNotFoundError."""
    if is_local(url):
        path, size, etag = _stat(local_path(url))
        return FileInfo(path, size, etag, os.path.basename(path))
    fs, path = _remote(url)
    fs.invalidate_cache()
    found = fs.info(path)
    if found["type"] != "file":
        raise FileNotFoundError(errno.ENOENT, "not a file", url)
    return FileInfo(fs.unstrip_protocol(path), int(found["size"]), _etag(found), basename(url))


def exists(url: str) -> bool:
    """Whether a file or folder is there."""
    if is_local(url):
        return os.path.exists(local_path(url))
    fs, path = _remote(url)
    fs.invalidate_cache()
    return bool(fs.exists(path))


# ---------------------------------------------------------------- reading, removing


def open_read(url: str) -> IO[bytes]:
    """The file's bytes, seekable. Raises FileNotFoundError."""
    if is_local(url):
        return open(local_path(url), "rb")
    fs, path = _remote(url)
    return fs.open(path, "rb", block_size=_BLOCK, cache_type="readahead")


def read_bytes(url: str) -> bytes:
    """The whole file in memory: for small files."""
    if is_local(url):
        with open(local_path(url), "rb") as f:
            return f.read()
    fs, path = _remote(url)
    return fs.cat_file(path)


def remove(url: str, missing_ok: bool = True) -> None:
    """Remove one file; a file that is not there is an error only with ``missing_ok=False``."""
    try:
        if is_local(url):
            os.unlink(local_path(url))
        else:
            fs, path = _remote(url)
            if not missing_ok and not fs.exists(path):
                raise FileNotFoundError(errno.ENOENT, "no such file", url)
            fs.rm_file(path)
    except FileNotFoundError:
        if not missing_ok:
            raise


# ---------------------------------------------------------------- writing


@contextlib.contextmanager
def atomic_write(
    url: str, tmp_dir: str | None = None, sync_folder: bool = True, sync: bool = True
) -> Iterator[IO[bytes]]:
    """A binary file that appears at ``url`` when the block ends without an error, and never otherwise.

    Local: written beside the target (or in ``tmp_dir``, which must be on the same file system) under a name
    that listings skip, flushed, synced, renamed over the target, and the folder synced, so that after a
    power cut the target is the old file or the new one. Object store: one PUT, or a multipart upload that is
    completed only at the end and aborted on an error. The error that stopped the block is the one that is
    raised, whatever the clean-up meets (a full disk stays ENOSPC).

    ``sync_folder=False`` leaves the last step to the file system: for a caller that checks, when it starts
    again, which of its files are there. ``sync=False`` leaves all of it: after a power cut the file may be
    there and empty, which its reader must be able to tell.
    """
    with (
        _atomic_local(local_path(url), tmp_dir, sync_folder, sync)
        if is_local(url)
        else _atomic_remote(url) as f
    ):
        yield f


@contextlib.contextmanager
def _atomic_local(path: str, tmp_dir: str | None, sync_folder: bool, sync: bool) -> Iterator[IO[bytes]]:
    folder = os.path.dirname(path)
    tmp_folder = folder if tmp_dir is None else local_path(tmp_dir)
    os.makedirs(folder, exist_ok=True)
    os.makedirs(tmp_folder, exist_ok=True)
    # The random part keeps two attempts at one shard apart; both write the same bytes, the last rename wins.
    tmp = os.path.join(tmp_folder, f".tmp-{os.path.basename(path)[:80]}-{os.getpid()}-{secrets.token_hex(4)}")
    f = open(tmp, "xb")  # noqa: SIM115 (closed below, before the rename)
    try:
        yield f
        f.flush()
        if sync:
            os.fsync(f.fileno())
        f.close()
        try:
            os.replace(tmp, path)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise OSError(
                    errno.EXDEV, f"tmp_dir {tmp_folder!r} must be on the file system of the target", path
                ) from error
            raise
    except BaseException:
        with contextlib.suppress(OSError, ValueError):
            f.close()  # may meet the same full disk while it flushes; the first error is the one to tell
        with contextlib.suppress(OSError):
            os.unlink(tmp)
        raise
    if sync and sync_folder:
        _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync a folder
            raise
    finally:
        os.close(fd)


@contextlib.contextmanager
def _atomic_remote(url: str) -> Iterator[IO[bytes]]:
    fs, path = _remote(url)
    if not _two_step(fs):
        with _atomic_by_rename(fs, path) as spool:
            yield spool
        return
    # autocommit=False is fsspec's two-step write: close() uploads, commit() makes the object appear.
    f = fs.open(path, "wb", block_size=_BLOCK, autocommit=False)
    try:
        yield f
        f.close()
        f.commit()
    except BaseException:
        with contextlib.suppress(Exception):
            f.discard()
        f.closed = True  # else the garbage collector would close, and thereby upload, half a file
        raise


def _two_step(fs: Any) -> bool:
    """Whether the store's files upload first and appear on commit (S3, Google Cloud, Azure)."""
    protocol = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    return bool(protocol & {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})


@contextlib.contextmanager
def _atomic_by_rename(fs: Any, path: str) -> Iterator[IO[bytes]]:
    """For file systems without a two-step write (memory, sftp): spool here, put beside the target, move."""
    tmp = f"{path.rsplit('/', 1)[0]}/.tmp-{secrets.token_hex(8)}"
    with tempfile.NamedTemporaryFile(prefix="winnow-") as spool:
        yield spool  # type: ignore[misc]
        spool.flush()
        try:
            fs.makedirs(tmp.rsplit("/", 1)[0], exist_ok=True)
            fs.put_file(spool.name, tmp)
            fs.mv(tmp, path)
        except BaseException:
            with contextlib.suppress(Exception):
                fs.rm_file(tmp)
            raise


def write_bytes(url: str, data: bytes, tmp: str | None = None, sync: bool = True) -> None:
    """Write a small file atomically (see :func:`atomic_write`)."""
    with atomic_write(url, tmp, sync=sync) as f:
        f.write(data)
