"""Compiled look-up of hosts and URLs in lists of millions: parse, lower-case, hash, probe. Nothing is copied
but the host itself.

A table is open addressing over 64-bit hashes (0: empty slot), at most 7/10 full. The strings themselves are
not kept: among 5 million entries and 3 look-ups a URL, one URL in 10^12 is expected to match by chance.

Hosts are hashed from the last byte to the first, so that one pass gives the hash of every parent domain;
URLs from the first to the last, so that one pass gives that of every prefix.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from filters.text.automaton_kernels import lower_case
from filters.text.hash_kernels import PRIME, SEED, U, mix
from filters.text.utf8_kernels import copy

_ONE, _NONE = U(1), U(0)

_HASH, _SLASH, _BACKSLASH, _QUERY, _COLON, _AT, _DOT = 0x23, 0x2F, 0x5C, 0x3F, 0x3A, 0x40, 0x2E
_OPEN, _CLOSE = 0x5B, 0x5D


@njit(cache=True, nogil=True)
def _finish(h):
    """A well-mixed hash that is never 0."""
    h = mix(h)
    return h if h != _NONE else _ONE


@njit(cache=True, nogil=True)
def host_of(data, start, end):
    """(first byte, end) of the host of a URL, and where its path begins; see ``url_hosts`` for the rule."""
    i = start
    while i < end and data[i] <= 0x20:
        i += 1
    # scheme://, or // alone, or nothing
    j = i
    while j < end:
        b = data[j]
        letter = (b >= 65 and b <= 90) or (b >= 97 and b <= 122)
        if letter or (j > i and ((b >= 48 and b <= 57) or b == 0x2B or b == 0x2D or b == _DOT)):
            j += 1
        else:
            break
    if j > i and j < end and data[j] == _COLON:
        j += 1
    else:
        j = i
    slashes = j + 1 < end and (data[j] == _SLASH or data[j] == _BACKSLASH)
    slashes = slashes and (data[j + 1] == _SLASH or data[j + 1] == _BACKSLASH)
    first = j + 2 if slashes else i
    # the authority
    stop = first
    at = np.int64(-1)
    while stop < end:
        b = data[stop]
        if b in (_SLASH, _BACKSLASH, _QUERY, _HASH):
            break
        if b == _AT and slashes:
            at = stop
        stop += 1
    if at >= 0:
        first = at + 1
    last = first
    if first < stop and data[first] == _OPEN:
        first += 1
        last = first
        while last < stop and data[last] != _CLOSE:
            last += 1
    else:
        while last < stop and data[last] != _COLON and data[last] > 0x20:
            last += 1
        while last > first and data[last - 1] == _DOT:
            last -= 1
    return first, last, stop


@njit(cache=True, nogil=True)
def hosts(data, offsets, pages, shifts, out, out_offsets):
    """Host of every URL, in lower case, as one string buffer."""
    at = np.int64(0)
    out_offsets[0] = 0
    for row in range(offsets.shape[0] - 1):
        first, last, _ = host_of(data, offsets[row], offsets[row + 1])
        at = lower_case(data, first, last, np.bool_(True), pages, shifts, out, at)
        out_offsets[row + 1] = at


@njit(cache=True, nogil=True)
def _entry(block, i):
    """(first byte, end) of what stands on the line that begins at byte ``i``, white space around it left out,
    and where the next line begins. A comment is nothing."""
    stop = i
    while stop < block.shape[0] and block[stop] != 10:
        stop += 1
    a, z = i, stop
    while a < z and block[a] <= 0x20:
        a += 1
    while z > a and block[z - 1] <= 0x20:
        z -= 1
    if a < z and block[a] == _HASH:
        a = z
    return a, z, stop + 1


@njit(cache=True, nogil=True)
def host_entries(block, pages, shifts, scratch, hashes):
    """Hashes of the host names in ``block``, one a line: (how many, unfit lines, where the first is).

    Blank lines and lines that begin with '#' are no entries; white space around, ``*.`` or ``.`` before and
    dots after an entry do not count. A line with white space, or a character that no host has, is unfit.
    """
    n = np.int64(0)
    unfit = np.int64(0)
    unfit_at = np.int64(-1)
    i = np.int64(0)
    while i < block.shape[0]:
        line = i
        a, z, i = _entry(block, line)
        if a == z:
            continue
        if block[a] == 0x2A and a + 1 < z and block[a + 1] == _DOT:
            a += 1
        if block[a] == _DOT:
            a += 1
        if a < z and block[a] == _OPEN and block[z - 1] == _CLOSE:
            a += 1
            z -= 1
        while z > a and block[z - 1] == _DOT:
            z -= 1
        fit = z > a
        colons = 0
        for k in range(a, z):
            b = block[k]
            if b == _COLON:
                colons += 1
            elif b < 0x80 and not (
                (b >= 48 and b <= 57)
                or (b >= 65 and b <= 90)
                or (b >= 97 and b <= 122)
                or b == 0x2D
                or b == _DOT
                or b == 0x5F
            ):
                fit = False
        if not fit or colons == 1:
            unfit += 1
            if unfit_at < 0:
                unfit_at = line
            continue
        size = lower_case(block, a, z, np.bool_(True), pages, shifts, scratch, np.int64(0))
        h = SEED
        for k in range(size - 1, -1, -1):
            h = (h ^ U(scratch[k])) * PRIME
        hashes[n] = _finish(h)
        n += 1
    return n, unfit, unfit_at


@njit(cache=True, nogil=True)
def _canonical(data, start, end, fold_path, pages, shifts, scratch):
    """Write host (lower case, without ``www.``) and path with query (without fragment and one last slash) to
    ``scratch``: (size of the host, size of all)."""
    first, last, path = host_of(data, start, end)
    host = lower_case(data, first, last, np.bool_(True), pages, shifts, scratch, np.int64(0))
    if host > 4 and scratch[0] == 119 and scratch[1] == 119 and scratch[2] == 119 and scratch[3] == _DOT:
        host -= 4
        for k in range(host):
            scratch[k] = scratch[k + 4]
    stop = path
    while stop < end and data[stop] != _HASH:
        stop += 1
    while stop > path and data[stop - 1] <= 0x20:
        stop -= 1
    if stop > path and data[stop - 1] == _SLASH:
        stop -= 1
    if fold_path:
        return host, lower_case(data, path, stop, np.bool_(True), pages, shifts, scratch, host)
    return host, copy(data, path, stop, scratch, host)


@njit(cache=True, nogil=True)
def url_entries(block, fold_path, pages, shifts, scratch, hashes):
    """Hashes of the URLs in ``block``, one a line, with or without scheme; as ``host_entries``."""
    n = np.int64(0)
    unfit = np.int64(0)
    unfit_at = np.int64(-1)
    i = np.int64(0)
    while i < block.shape[0]:
        line = i
        a, z, i = _entry(block, line)
        if a == z:
            continue
        host, size = _canonical(block, a, z, fold_path, pages, shifts, scratch)
        if host == 0:
            unfit += 1
            if unfit_at < 0:
                unfit_at = line
            continue
        h = SEED
        for k in range(size):
            h = (h ^ U(scratch[k])) * PRIME
        hashes[n] = _finish(h)
        n += 1
    return n, unfit, unfit_at


@njit(cache=True, nogil=True)
def insert(hashes, bit, keys, sets, members, n_members, shift):
    """Put the entries of the list with this bit into the table: (new entries, sets of lists so far).

    ``sets[slot]`` is an index into ``members``, the different sets of lists that an entry is on: they are
    few, and searched one by one. Returns -1 for the second when there is no more room for one.
    """
    mask = np.int64(keys.shape[0] - 1)
    new = np.int64(0)
    for i in range(hashes.shape[0]):
        slot = np.int64(hashes[i] >> shift)
        while keys[slot] != _NONE and keys[slot] != hashes[i]:
            slot = (slot + 1) & mask
        lists = bit
        if keys[slot] == _NONE:
            keys[slot] = hashes[i]
            new += 1
        else:
            lists = members[sets[slot]] | bit
        which = np.int64(0)
        while which < n_members and members[which] != lists:
            which += 1
        if which == n_members:
            if n_members == members.shape[0]:
                return new, np.int64(-1)
            members[which] = lists
            n_members += 1
        sets[slot] = which
    return new, np.int64(n_members)


@njit(cache=True, nogil=True)
def _on_lists(key, keys, sets, members, shift):
    """Bits of the lists that the entry with this hash is on."""
    slot = np.int64(key >> shift)
    while keys[slot] != _NONE and keys[slot] != key:
        slot = (slot + 1) & np.int64(keys.shape[0] - 1)
    return members[sets[slot]] if keys[slot] != _NONE else _NONE


@njit(cache=True, nogil=True)
def match_hosts(
    data, offsets, subdomains, pages, shifts, keys, sets, members, shift, scratch, lists, hit, hit_offsets
):
    """Which lists (bits of ``lists[row]``) hold the host of each URL; the entry found goes to ``hit``.

    ``subdomains``: an entry covers the hosts below it too (not for IP addresses). Without: only the host
    itself, as it is or without a leading ``www.``. Of several entries the shortest is the hit.
    """
    at = np.int64(0)
    hit_offsets[0] = 0
    for row in range(offsets.shape[0] - 1):
        found = _NONE
        first, last, _ = host_of(data, offsets[row], offsets[row + 1])
        if last > first:
            size = lower_case(data, first, last, np.bool_(True), pages, shifts, scratch, np.int64(0))
            www = (
                size > 4
                and scratch[0] == 119
                and scratch[1] == 119
                and scratch[2] == 119
                and scratch[3] == _DOT
            )
            # an IP address has no parents: IPv6 stands in brackets, IPv4 ends in a number
            parents = subdomains and data[last - 1] > 57 and not (first > 0 and data[first - 1] == _OPEN)
            if subdomains and not parents and (first == 0 or data[first - 1] != _OPEN):
                k = size - 1
                while k >= 0 and scratch[k] >= 48 and scratch[k] <= 57:
                    k -= 1
                parents = k >= 0 and scratch[k] != _DOT
            h = SEED
            for k in range(size - 1, -1, -1):
                h = (h ^ U(scratch[k])) * PRIME
                whole = k == 0 or (k == 4 and www and not subdomains)
                if whole or (parents and scratch[k - 1] == _DOT):
                    on = _on_lists(_finish(h), keys, sets, members, shift)
                    if on != _NONE and found == _NONE:
                        at = copy(scratch, k, size, hit, at)
                    found |= on
        lists[row] = found
        hit_offsets[row + 1] = at


@njit(cache=True, nogil=True)
def match_urls(
    data,
    offsets,
    prefixes,
    fold_path,
    pages,
    shifts,
    keys,
    sets,
    members,
    shift,
    scratch,
    lists,
    hit,
    hit_offsets,
):
    """Which lists hold each URL; as ``match_hosts``. ``prefixes``: an entry covers every URL that goes on
    after it with '/', '?' or '&'."""
    at = np.int64(0)
    hit_offsets[0] = 0
    for row in range(offsets.shape[0] - 1):
        found = _NONE
        host, size = _canonical(data, offsets[row], offsets[row + 1], fold_path, pages, shifts, scratch)
        if host > 0:
            h = SEED
            for k in range(size + 1):
                b = scratch[k] if k < size else np.uint8(0)
                if k == size or (prefixes and k >= host and b in (_SLASH, _QUERY, 0x26)):
                    on = _on_lists(_finish(h), keys, sets, members, shift)
                    if on != _NONE and found == _NONE:
                        at = copy(scratch, np.int64(0), k, hit, at)
                    found |= on
                h = (h ^ U(b)) * PRIME
        lists[row] = found
        hit_offsets[row + 1] = at
