"""One look at the bytes of a web page, eight at a time: how many tags it has, and whether any stretch lacks
their ends. Bytes that are equal to a wanted one are found in a word as in Hacker's Delight, section 6-1."""

from __future__ import annotations

import numpy as np
from numba import njit

_ONES = np.uint64(0x0101010101010101)
_LOW7 = np.uint64(0x7F7F7F7F7F7F7F7F)
_LESS, _SLASH, _GREATER = (np.uint64(ord(c)) * _ONES for c in "</>")
_SEVEN, _EIGHT, _TOP = np.uint64(7), np.uint64(8), np.uint64(56)
_LANES = 255  # words whose hits a byte can count


@njit(cache=True, nogil=True)
def tags(words, window):
    """(number of ``<``, number of ``</``, whether a window holds no ``>``) of a page.

    ``words``: uint64[n + 1], the page's bytes, little-endian; the last word is not looked at. ``window`` in
    words; a last, shorter one is not asked about.
    """
    n = len(words) - 1
    opened = closed = 0
    bare = False
    for start in range(0, n, window):
        stop = min(start + window, n)
        ends = np.uint64(0)
        for low in range(start, stop, _LANES):
            high = min(low + _LANES, stop)
            a = np.uint64(0)
            b = np.uint64(0)
            part = words[low : high + 1]  # counted from 0, so that the loop becomes one over vectors
            for i in range(high - low):
                word = part[i]
                x = word ^ _LESS
                hit = ~(((x & _LOW7) + _LOW7) | x | _LOW7)
                y = (word >> _EIGHT | part[i + 1] << _TOP) ^ _SLASH
                a += hit >> _SEVEN
                b += (hit & ~(((y & _LOW7) + _LOW7) | y | _LOW7)) >> _SEVEN
                z = word ^ _GREATER
                ends |= ~(((z & _LOW7) + _LOW7) | z | _LOW7)
            for lane in range(8):
                shift = np.uint64(8 * lane)
                opened += np.int64((a >> shift) & np.uint64(255))
                closed += np.int64((b >> shift) & np.uint64(255))
        if ends == 0 and stop - start == window:
            bare = True
    return opened, closed, bare
