"""Personal data in text: e-mail addresses, public IP addresses and phone numbers, masked or only counted.

    plan = [..., mask_pii()]                       # replace; counts in column ``pii``
    plan = [..., pii_counts(), c.keep("pii_counts.email <= 10", reason="directory")]

**E-mail**, as datatrove's PIIFormatter (the code behind FineWeb): atoms of ASCII letters, digits and
``!#$%&'*+/=?^_`{|}~-`` parted by single dots, ``@``, and two or more labels or an IPv4 address in brackets;
it starts at a word boundary. Mended: Latin letters with marks (U+00C0 … U+024F) belong to an address
(``jörg@köln.example``; the last label is of ASCII), and a letter of another script right before it does not
hide it (``邮箱a@b.example``).

**IP**: IPv4 in dotted form without leading zeros, standing alone: no letter, digit or ``_`` beside it and no
further ``.number`` (1.2.3.4.5 is a version); IPv6 of the global range (2000::/3). Kept are addresses that
are not public: private, loopback, link-local, shared (100.64/10), documentation, benchmarking and reserved
ranges of IANA's special-purpose registries, as ``ipaddress.is_global`` has them. Multicast counts as public
there.

**Phone**, a conservative rule for running text. Separators are a space, a no-break space, ``-``, ``.`` and
``/``:

* international: ``+``, 8 to 15 digits, the first not 0, up to three separators or brackets between digits
  (``+49 (0)89 1234-567``; the ``(0)`` is not counted), at most one group of a single digit after the first;
* North America: ``(212) 555-0123``, ``212-555-0123``, ``212.555.0123``, with or without ``1`` before;
* with trunk zero: a first group ``0[1-9]…`` of 2 to 5 digits, also in brackets, then groups of 2 to 8 digits
  parted by one and the same separator, 9 to 11 digits in all: ``020 7946 0958``, ``01.23.45.67.89``,
  ``089/1234567``, ``03-1234-5678``. The first separator may be another one only if it is ``/`` or `` - ``.
  Dates are not phone numbers (05/2003, 01-02-2003);
* Chinese mobile numbers in 3-4-4: ``138 1234 5678``.

The last two never follow a digit and a space. Never a plain run of digits, a number that goes on after the
match, or one within 16 bytes after "ISBN", "ISSN" or "DOI". So dates, times, prices, amounts, versions and
ISBNs stay. Digits of other scripts (full width, Arabic) are not looked at.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import curation as c
from filters.text import codepoints
from filters.text.buffers import SHARED, Utf8, utf8

PII_TYPE = pa.struct([("email", pa.int32()), ("ip", pa.int32()), ("phone", pa.int32())])

# FineWeb's e-mail replacements (domains reserved for examples, RFC 2606). For IPv4 FineWeb has six real but
# idle addresses; the default here are the documentation ranges (RFC 5737, RFC 3849), nobody's ever, and for
# phone numbers the block of North American numbers kept for fiction.
EMAILS = ("email@example.com", "firstname.lastname@example.org")
IPS = ("192.0.2.1", "198.51.100.1", "203.0.113.1")
IPV6S = ("2001:db8::1", "2001:db8::2")
PHONES = ("+1 202-555-0100", "+1 202-555-0101")
FINEWEB_IPS = (
    "22.214.171.124", "126.96.36.199", "188.8.131.52", "184.108.40.206", "220.127.116.11", "18.104.22.168",
)  # fmt: skip

# IANA's special-purpose registry, without multicast.
_NOT_PUBLIC = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "240.0.0.0/4",
)  # fmt: skip
_NETWORKS = np.array(
    [[int(net[0]), int(net[-1])] for net in map(ipaddress.IPv4Network, _NOT_PUBLIC)], np.int64
)
_NOT_PUBLIC_6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))

_MODULES = (*SHARED, "filters.text.codepoints", "filters.text.pii_kernels")

# ------------------------------------------------------------------------------------------------- phones


def _pattern(source: str) -> re.Pattern[bytes]:
    """A commented pattern over UTF-8 bytes; names in braces stand for these parts."""
    for name, part in {
        "ALONE": r"(?<![0-9A-Za-z_+#$\-]) (?<![0-9][.,:/])",
        "FIRST": r"(?<![0-9A-Za-z_+#$\-]) (?<![0-9][.,:/]) (?<![0-9]\x20) (?<![0-9]\xc2\xa0)",
        "SPACE": r"(?:\x20|\xc2\xa0)",
        "JOINT": r"(?:\x20|\xc2\xa0|[.\-])",
        "END": r"(?![0-9A-Za-z_]) (?![.,\-/][0-9])",
    }.items():
        source = source.replace("{" + name + "}", part)
    return re.compile(source.encode("ascii"), re.VERBOSE)


_INTERNATIONAL = _pattern(
    r"""(?<![0-9A-Za-z_+]) \+ \(? [1-9] (?: (?:{JOINT}|[/()]){0,3} [0-9] ){7,15} {END}"""
)
_NORTH_AMERICA = _pattern(
    r"""{ALONE} (?: 1 [\x20.\-] )?
    (?: \( [2-9][0-9]{2} \) {SPACE}? [2-9][0-9]{2} [\x20.\-]
      | [2-9][0-9]{2} (?P<joint>[.\-]) [2-9][0-9]{2} (?P=joint) )
    [0-9]{4} {END}"""
)
_TRUNK_ZERO = _pattern(
    r"""{FIRST}
    (?: \( (?P<area>0[1-9][0-9]{0,3}) \) {SPACE}?
      | (?P<first>0[1-9][0-9]{0,3}) (?: {SPACE}? / {SPACE}? | {SPACE} - {SPACE} | (?={JOINT}) ) )
    (?P<rest> {JOINT}? [0-9]{2,8} (?: (?P<joint>{JOINT}) [0-9]{2,8} (?: (?P=joint) [0-9]{2,8} ){0,3} )? )
    {END} (?! {SPACE} [0-9] )"""
)
_CHINA = _pattern(
    r"""{FIRST} 1[3-9][0-9] (?P<joint>[\x20\-]) [0-9]{4} (?P=joint) [0-9]{4} {END} (?! \x20 [0-9] )"""
)
_BOOK = re.compile(rb"(?i)isbn|issn|doi")


def _international(match: re.Match[bytes]) -> bool:
    groups = re.findall(rb"[0-9]+", match.group())
    digits = sum(map(len, groups)) - (b"(0)" in match.group())
    return 8 <= digits <= 15 and sum(len(group) == 1 for group in groups[1:] if group != b"0") <= 1


def _trunk_zero(match: re.Match[bytes]) -> bool:
    first = match["area"] or match["first"]
    rest = re.findall(rb"[0-9]+", match["rest"])
    if not 9 <= len(first) + sum(map(len, rest)) <= 11:
        return False
    lead = match["rest"][:1] if match["rest"][:1] in b" .-\xc2" else b""
    if lead and match["joint"] and lead != match["joint"][:1]:
        return False
    year = len(first) == 2 and len(rest[0]) == 4 and rest[0][:2] in (b"19", b"20")
    date = len(first) == 2 and len(rest) > 1 and len(rest[0]) == 2 and len(rest[1]) == 4
    return not date and not (year and not match["area"])


_PHONES: tuple[tuple[re.Pattern[bytes], Any], ...] = (
    (_INTERNATIONAL, _international),
    (_NORTH_AMERICA, None),
    (_TRUNK_ZERO, _trunk_zero),
    (_CHINA, None),
)


def phone_at(text: bytes, at: int) -> int:
    """Where the phone number that starts at this byte ends; 0: none does."""
    for pattern, check in _PHONES:
        match = pattern.match(text, at)
        if match and (check is None or check(match)):
            return 0 if _BOOK.search(text, max(0, at - 16), at) else match.end()
    return 0


def _public_ipv6(candidate: bytes) -> int:
    """How many bytes of the candidate are a public IPv6 address; 0: none."""
    text = candidate.rstrip(b".")
    text = text[:-1] if text.endswith(b":") and not text.endswith(b"::") else text
    try:
        address = ipaddress.IPv6Address(text.decode("ascii"))
    except ValueError:
        return 0
    return 0 if any(address in network for network in _NOT_PUBLIC_6) else len(text)


# --------------------------------------------------------------------------------------------------- search


class Places(NamedTuple):
    """Where personal data is, in order: row, first byte and end in the column's buffer, kind
    (0 e-mail, 1 IPv6, 2 IPv4, 3 phone)."""

    row: np.ndarray
    start: np.ndarray
    end: np.ndarray
    kind: np.ndarray


def find_pii(column: Utf8, emails: bool = True, ips: bool = True, phones: bool = True) -> Places:
    """Personal data in the buffers of a string column. Of places that overlap, e-mail goes before IP before
    phone."""
    from filters.text import pii_kernels as kernels

    table, kinds_of = codepoints.load(), kernels.byte_classes()
    parts: list[Places] = []
    row, n_rows, room = 0, len(column.offsets) - 1, 4096
    while row < n_rows:
        out = Places(*(np.empty(room, np.int64) for _ in range(3)), np.empty(room, np.uint8))
        n, row = kernels.find(
            column.data, column.offsets, row, emails, ips, phones, kinds_of, _NETWORKS, table.pages,
            table.classes, *out,
        )  # fmt: skip
        parts.append(Places(*(array[:n] for array in out)))
        room *= 4
    found = Places(*map(np.concatenate, zip(*parts, strict=True))) if parts else Places(*_NOTHING)
    found = _judge(column, found)
    keep = np.empty(len(found.row), bool)
    kernels.settle(found.row, found.start, found.end, found.kind, keep)
    return found if keep.all() else Places(*(array[keep] for array in found))


_NOTHING = (*(np.zeros(0, np.int64) for _ in range(3)), np.zeros(0, np.uint8))


def _judge(column: Utf8, found: Places) -> Places:
    """The candidates for IPv6 and phone replaced by what they hold; sorted by row and start."""
    from filters.text.pii_kernels import EMAIL, IPV4, IPV6, PHONE

    sure = np.isin(found.kind, (EMAIL, IPV4))
    more: list[tuple[int, int, int, int]] = []
    for i in np.flatnonzero(~sure).tolist():
        row, start, end = int(found.row[i]), int(found.start[i]), int(found.end[i])
        if found.kind[i] == IPV6:
            if size := _public_ipv6(column.data[start:end].tobytes()):
                more.append((row, start, start + size, IPV6))
        else:
            # as much of the row as a number and what must not stand around it can take
            first = max(int(column.offsets[row]), start - 24)
            window = column.data[first : min(int(column.offsets[row + 1]), start + 96)].tobytes()
            if stop := phone_at(window, start - first):
                more.append((row, start, first + stop, PHONE))
    extra = [np.array(values, np.int64) for values in zip(*more, strict=True)] or [np.zeros(0, np.int64)] * 4
    merged = Places(
        *(np.concatenate([old[sure], new.astype(old.dtype)]) for old, new in zip(found, extra, strict=True))
    )
    order = np.lexsort((merged.kind, merged.start, merged.row))
    return Places(*(array[order] for array in merged))


def _count(places: Places, n_rows: int, null: pa.Array | None) -> pa.StructArray:
    columns = []
    for kinds in ((0,), (1, 2), (3,)):
        rows = places.row[np.isin(places.kind, kinds)]
        columns.append(pa.array(np.bincount(rows, minlength=n_rows).astype(np.int32)))
    return pa.StructArray.from_arrays(columns, fields=list(PII_TYPE), mask=null)


# -------------------------------------------------------------------------------------------------- steps


@dataclass(frozen=True)
class PiiCounts(c.Model):
    """Count e-mail addresses, public IP addresses and phone numbers: struct column ``pii_counts``
    (``email``, ``ip``, ``phone``). The text stays as it is; the rules are the module's. Null gives null."""

    inputs = ("text",)
    outputs = {"pii_counts": PII_TYPE}
    uses = _MODULES

    def __call__(self, batch: pa.RecordBatch) -> pa.StructArray:
        text = batch.column("text")
        return _count(find_pii(utf8(text)), len(text), text.is_null())


@dataclass(frozen=True)
class MaskPii(c.Transform):
    """Replace e-mail addresses, public IP addresses and phone numbers in the text; counts of what was
    replaced in struct column ``pii`` (``email``, ``ip``, ``phone``).

    ``emails``, ``ips``, ``phones`` switch the kinds; a kind that is off is counted 0. Each replacement is a
    string or several that take turns, from the first one in every row (datatrove takes turns across rows, so
    that its output depends on their order). ``FINEWEB_IPS`` are the IPv4 replacements of FineWeb.
    Ids and number of rows stay; null stays null, and a page is never dropped. Raises ValueError for an empty
    replacement list (an empty string is fine: it deletes).
    """

    emails: bool = True
    ips: bool = True
    phones: bool = True
    email_replacement: str | tuple[str, ...] = EMAILS
    ip_replacement: str | tuple[str, ...] = IPS
    ipv6_replacement: str | tuple[str, ...] = IPV6S
    phone_replacement: str | tuple[str, ...] = PHONES
    inputs = ("text",)
    outputs = {"pii": PII_TYPE}
    uses = _MODULES

    def __post_init__(self) -> None:
        for name in _REPLACEMENTS:
            given = getattr(self, name)
            given = (given,) if isinstance(given, str) else tuple(given or ())
            if not given or not all(isinstance(text, str) for text in given):
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: a string or several are expected ('' deletes)"
                )
            object.__setattr__(self, name, given)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        text = batch.column("text")
        column = utf8(text)
        places = find_pii(column, self.emails, self.ips, self.phones)
        counts = _count(places, len(text), text.is_null())
        if len(places.row):
            masked = _replaced(column, places, [getattr(self, name) for name in _REPLACEMENTS], text)
            at = batch.schema.get_field_index("text")
            batch = batch.set_column(at, batch.schema.field(at), masked)
        if "pii" in batch.schema.names:
            batch = batch.drop_columns(["pii"])
        return batch.append_column(pa.field("pii", PII_TYPE), counts)


_REPLACEMENTS = ("email_replacement", "ipv6_replacement", "ip_replacement", "phone_replacement")  # by kind


def _replaced(
    column: Utf8, places: Places, replacements: Sequence[Sequence[str]], text: pa.Array
) -> pa.Array:
    from filters.text import pii_kernels as kernels

    texts = utf8(pa.array([one for several in replacements for one in several], pa.string()))
    many = np.array([len(several) for several in replacements], np.int64)
    longest = int(np.diff(texts.offsets).max())
    out = np.empty(int(column.offsets[-1] - column.offsets[0]) + longest * len(places.row), np.uint8)
    offsets = np.empty_like(column.offsets)
    kernels.replace(
        column.data, column.offsets, *places, texts.data, texts.offsets, np.cumsum(many) - many, many,
        out, offsets,
    )  # fmt: skip
    valid = text.is_valid().buffers()[1] if text.null_count else None
    data = pa.py_buffer(out[: offsets[-1]])
    masked = pa.LargeStringArray.from_buffers(len(text), pa.py_buffer(offsets), data, valid)
    return masked if text.type == masked.type else masked.cast(text.type)


mask_pii = MaskPii
pii_counts = PiiCounts
