"""Characters of UTF-8 buffers, for every compiled pass over text.

An array handed to a helper is reference-counted at every call, which was measured to be a quarter of the time
of a scan of Cyrillic text, and more for helpers called at every byte. So ``char_at`` is written into its
callers, passes look at ASCII bytes themselves, and other helpers inside their loops take scalars only.
"""

from __future__ import annotations

import numpy as np
from numba import njit

MALFORMED = 0xFFFD


@njit(cache=True, nogil=True)
def decode(b0, b1, b2, b3):
    """Code point and size of the character of these bytes (0 past the end); U+FFFD of size 1 if malformed."""
    b0, b1, b2, b3 = np.int64(b0), np.int64(b1), np.int64(b2), np.int64(b3)
    if b0 < 0x80:
        return b0, np.int64(1)
    if b0 >= 0xC2 and b0 < 0xE0 and (b1 & 0xC0) == 0x80:
        return ((b0 & 0x1F) << 6) | (b1 & 0x3F), np.int64(2)
    if b0 >= 0xE0 and b0 < 0xF0 and (b1 & 0xC0) == 0x80 and (b2 & 0xC0) == 0x80:
        return ((b0 & 0x0F) << 12) | ((b1 & 0x3F) << 6) | (b2 & 0x3F), np.int64(3)
    if b0 >= 0xF0 and b0 < 0xF5 and (b1 & 0xC0) == 0x80 and (b2 & 0xC0) == 0x80 and (b3 & 0xC0) == 0x80:
        cp = ((b0 & 0x07) << 18) | ((b1 & 0x3F) << 12) | ((b2 & 0x3F) << 6) | (b3 & 0x3F)
        if cp <= 0x10FFFF:
            return cp, np.int64(4)
    return np.int64(MALFORMED), np.int64(1)


@njit(cache=True, nogil=True, inline="always")
def char_at(data, i, end):
    """Code point and size of the character at byte ``i``; (-1, 0) at the end."""
    if i >= end:
        return np.int64(-1), np.int64(0)
    b = data[i]
    if b < 0x80:
        return np.int64(b), np.int64(1)
    b1 = data[i + 1] if i + 1 < end else np.uint8(0)
    b2 = data[i + 2] if i + 2 < end else np.uint8(0)
    b3 = data[i + 3] if i + 3 < end else np.uint8(0)
    return decode(b, b1, b2, b3)


@njit(cache=True, nogil=True)
def encode(cp):
    """(up to four bytes packed low first, how many) of a code point."""
    if cp < 0x80:
        return cp, np.int64(1)
    if cp < 0x800:
        return (0xC0 | (cp >> 6)) | ((0x80 | (cp & 0x3F)) << 8), np.int64(2)
    if cp < 0x10000:
        packed = (0xE0 | (cp >> 12)) | ((0x80 | ((cp >> 6) & 0x3F)) << 8) | ((0x80 | (cp & 0x3F)) << 16)
        return packed, np.int64(3)
    packed = (0xF0 | (cp >> 18)) | ((0x80 | ((cp >> 12) & 0x3F)) << 8)
    return packed | ((0x80 | ((cp >> 6) & 0x3F)) << 16) | ((0x80 | (cp & 0x3F)) << 24), np.int64(4)


@njit(cache=True, nogil=True)
def copy(data, first, last, out, at):
    """Write ``data[first:last]`` to ``out[at:]``; where it ends."""
    size = last - first
    out[at : at + size] = data[first:last]
    return at + size


@njit(cache=True, nogil=True)
def longest_of(offsets):
    """Bytes of the longest string of a column."""
    most = np.int64(0)
    for d in range(offsets.shape[0] - 1):
        most = max(most, offsets[d + 1] - offsets[d])
    return most
