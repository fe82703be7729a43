"""Compiled passes of byte-level BPE over UTF-8 buffers. No Python object per document or per word.

    is_nfc          which documents the normaliser would leave as they are
    cuts            where added tokens stand, and where the pattern cuts what lies between them
    encode_cuts     the ids of each piece: from the memo, else by merging

The text must be UTF-8 (Arrow's own check). ``cuts`` fills a block of cuts and ``encode_cuts`` empties it, so
scratch stays small whatever the size of a document. The plain oracle is the `tokenizers` library.

**Memo.** An open-addressing table from the bytes of a piece to its ids, four words a slot. A piece of up to
15 bytes is its own key, so that equality is equality of content; a longer one has its hash there, and its
bytes in ``memo_bytes``, which are compared. Up to six ids lie in the slot, more in ``memo_ids``. When slots,
bytes or ids run out, the memo is emptied and learns anew: memory is bounded by its arrays, and the ids do not
depend on it.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from recipes.lm.bpe_unicode import (
    CHANGES,
    FIRST,
    JAMO_FIRST,
    JAMO_LAST,
    KIND,
    LETTER,
    NUMBER,
    OTHER,
    SECOND,
    SPACE,
)

U = np.uint64
GPT2, CL100K = range(2)

ID_BITS = 20  # ids are below 2 ** 20
_ID = U((1 << ID_BITS) - 1)
SLOT = 4  # words of a slot of the memo: key, key, ids, ids
MANY = U(15)  # in place of the number of ids: they lie in memo_ids
LONGEST = 255  # bytes of a piece that is kept in the memo
SHORT = 15  # bytes of a piece that is its own key
_LONG = U(0xFF << 56)
BLOCK = 1024  # cuts at a time
FEW = 64  # bytes up to which a piece is merged by looking through its pairs, not by a heap
NO_PAIR = np.int32(0x7FFFFFFF)
RANK_BITS = 64 - 2 * ID_BITS
SKIPPED = np.int32(1 << 30)  # in ``accept``: a special token, read as plain text

# state of the memo: slots in use, bytes and ids kept, how often it was emptied, pieces not found in it
USED, BYTES, IDS, EMPTIED, MISSED = range(5)

_RANK_BITS, _RANK, _FREE = U(RANK_BITS), U((1 << RANK_BITS) - 1), ~U(0)
_C0, _C1, _C2 = U(0x9E3779B97F4A7C15), U(0xC2B2AE3D27D4EB4F), U(0xFF51AFD7ED558CCD)
_HIGH, _LOW7, _CASE = U(0x8080808080808080), U(0x7F7F7F7F7F7F7F7F), U(0x2020202020202020)
_FROM_A, _PAST_Z = U(0x1F1F1F1F1F1F1F1F), U(0x0505050505050505)
_S32, _S8, _S64, _S128, _S56 = U(32), U(8), U(64), U(128), U(56)


@intrinsic
def load64(typingctx, data, at):
    """Eight bytes of a uint8 array as a little-endian word, at any place. The caller sees to the bounds."""

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.gep(array.data, [args[1]])
        word = builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(data, types.int64), codegen


@intrinsic
def lowest_bit(typingctx, word):
    """Number of the lowest bit that is set; 64 of 0."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), codegen


@njit(cache=True, nogil=True, inline="always")
def wide(data, i, b):
    """Code point and size of the character at ``i``, whose first byte ``b`` is not ASCII."""
    if b < 0xE0:
        return (np.int64(b & 0x1F) << 6) | np.int64(data[i + 1] & 0x3F), np.int64(2)
    if b < 0xF0:
        cp = (np.int64(b & 0x0F) << 12) | (np.int64(data[i + 1] & 0x3F) << 6) | np.int64(data[i + 2] & 0x3F)
        return cp, np.int64(3)
    cp = (np.int64(b & 0x07) << 18) | (np.int64(data[i + 1] & 0x3F) << 12)
    return cp | (np.int64(data[i + 2] & 0x3F) << 6) | np.int64(data[i + 3] & 0x3F), np.int64(4)


@njit(cache=True, nogil=True)
def is_nfc(data, offsets, pages, classes, combining, pairs, out):
    """out[d] = 1 where NFC certainly leaves document d as it is (0: ask the library)."""
    for d in range(offsets.shape[0] - 1):
        i = offsets[d]
        end = offsets[d + 1]
        before = np.int64(0)  # combining class of the last character
        starter = np.int64(0)  # the last of class 0
        starter_class = np.int64(0)
        sure = True
        while i < end:
            b = data[i]
            if b < 0x80:
                while i + 8 <= end and load64(data, i) & _HIGH == U(0):
                    i += 8
                while i < end and data[i] < 0x80:
                    i += 1
                before = np.int64(0)
                starter = np.int64(data[i - 1])
                starter_class = np.int64(0)
                continue
            cp, size = wide(data, i, b)
            i += size
            at = (np.int64(pages[cp >> 8]) << 8) | (cp & 255)
            c = np.int64(classes[at])
            mark = np.int64(combining[at])
            if c & (CHANGES | SECOND) or mark:
                if c & CHANGES or (mark and mark < before):
                    sure = False
                    break
                if c & SECOND:
                    if starter_class & FIRST or (starter >= JAMO_FIRST and starter <= JAMO_LAST):
                        sure = False
                        break
                    pair = (starter << 32) | cp
                    k = np.searchsorted(pairs, pair)
                    if k < pairs.shape[0] and pairs[k] == pair:
                        sure = False
                        break
            before = mark
            if mark == 0:
                starter = cp
                starter_class = c
        out[d] = sure


@njit(cache=True, nogil=True, inline="always")
def find(data, i, end, edges, accept):
    """(first, last, id) of the next added token from ``i``: leftmost, then longest; (end, end, -1): none."""
    first = end
    last = end
    token = np.int64(-1)
    if accept.shape[0] == 1:  # there are none
        i = end
    while i < end:
        node = np.int64(edges[data[i]])
        if node:
            k = i + 1
            while True:
                if accept[node] >= 0:
                    first = i
                    last = k
                    token = np.int64(accept[node])
                if k == end:
                    break
                node = np.int64(edges[(node << 8) | np.int64(data[k])])
                if node == 0:
                    break
                k += 1
            if token >= SKIPPED:
                i = last
                first = end
                last = end
                token = np.int64(-1)
                continue
            if token >= 0:
                break
        i += 1
    return first, last, token


@njit(cache=True, nogil=True, inline="always")
def kind_at(data, i, b, pages, classes):
    """(kind, size) of the character at ``i``, whose first byte is ``b``."""
    if b < 0x80:
        return np.int64(classes[b]) & KIND, np.int64(1)
    cp, size = wide(data, i, b)
    return np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)]) & KIND, size


@njit(cache=True, nogil=True, inline="always")
def run_end(data, i, end, kind, pages, classes):
    """Where the run of characters of this kind ends."""
    if kind == LETTER:
        while i + 8 <= end:  # ASCII letters, eight at a time: the high bit of a byte says that it is none
            word = load64(data, i)
            lower = (word & _LOW7) | _CASE
            none = (((lower + _FROM_A) & ~(lower + _PAST_Z)) ^ _HIGH | word) & _HIGH
            if none != U(0):
                i += lowest_bit(none) >> 3
                break
            i += 8
    while i < end:
        b = data[i]
        if b < 0x80:
            if np.int64(classes[b]) & KIND != kind:
                break
            i += 1
        else:
            cp, size = wide(data, i, b)
            if np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)]) & KIND != kind:
                break
            i += size
    return i


@njit(cache=True, nogil=True)
def cuts_gpt2(data, i, end, pages, classes, ends, ids, n):
    """Cut ``data[i:end]`` by GPT-2's pattern, from cut ``n`` on, until ``ends`` is full; (where, cuts)::

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+
    """
    room = ends.shape[0]
    while i < end and n < room:
        b = data[i]
        j = i
        if b == 0x27 and i + 1 < end:
            b1 = data[i + 1]
            size = np.int64(0)
            if b1 == 0x73 or b1 == 0x74 or b1 == 0x6D or b1 == 0x64:  # s t m d
                size = np.int64(2)
            elif i + 2 < end:
                b2 = data[i + 2]
                if (b2 == 0x65 and (b1 == 0x72 or b1 == 0x76)) or (b1 == 0x6C and b2 == 0x6C):  # re ve ll
                    size = np.int64(3)
            if size:
                i += size
                ends[n] = i
                ids[n] = -1
                n += 1
                continue
        elif b == 0x20 and i + 1 < end:
            j = i + 1
            b = data[j]
        kind, size = kind_at(data, j, b, pages, classes)
        if kind != SPACE:
            i = run_end(data, j + size, end, kind, pages, classes)
        else:
            j = i
            last = i
            while j < end:
                kind, size = kind_at(data, j, data[j], pages, classes)
                if kind != SPACE:
                    break
                last = j
                j += size
            i = last if j < end and last > i else j
        ends[n] = i
        ids[n] = -1
        n += 1
    return i, n


@njit(cache=True, nogil=True)
def cuts_cl100k(data, i, end, digits, pages, classes, ends, ids, n):
    """The same by the pattern of cl100k (``digits`` = 3; Llama 3 too) and Qwen 2 (``digits`` = 1)::

    (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*
    |\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+
    """
    room = ends.shape[0]
    while i < end and n < room:
        b = data[i]
        kind, size = kind_at(data, i, b, pages, classes)
        after = i + size
        stop = i
        if b == 0x27 and after < end:
            b1 = data[after] | 0x20 if data[after] < 0x80 else data[after]
            if b1 == 0x73 or b1 == 0x74 or b1 == 0x6D or b1 == 0x64:  # s t m d
                stop = after + 1
            elif after + 1 < end:
                b2 = data[after + 1] | 0x20 if data[after + 1] < 0x80 else data[after + 1]
                if (
                    (b2 == 0x65 and (b1 == 0x72 or b1 == 0x76))
                    or (b1 == 0x6C and b2 == 0x6C)
                    or (b1 == 0xC5 and b2 == 0xBF)
                ):  # re ve ll
                    stop = after + 2
        if stop == i:
            if kind == LETTER:
                stop = run_end(data, after, end, kind, pages, classes)
            elif kind == NUMBER:
                stop = after
                for _ in range(digits - 1):
                    if stop < end:
                        kind, size = kind_at(data, stop, data[stop], pages, classes)
                        if kind != NUMBER:
                            break
                        stop += size
            else:
                then = np.int64(SPACE)
                if after < end:
                    then, size = kind_at(data, after, data[after], pages, classes)
                if then == LETTER and b != 0x0A and b != 0x0D:
                    stop = run_end(data, after + size, end, then, pages, classes)
                elif kind == OTHER or (b == 0x20 and then == OTHER):
                    stop = run_end(data, after, end, np.int64(OTHER), pages, classes)
                    while stop < end and (data[stop] == 0x0A or data[stop] == 0x0D):
                        stop += 1
                else:
                    j = i
                    last = i
                    line = i  # after the last line break of the run
                    while j < end:
                        kind, size = kind_at(data, j, data[j], pages, classes)
                        if kind != SPACE:
                            break
                        last = j
                        j += size
                        if data[last] == 0x0A or data[last] == 0x0D:
                            line = j
                    stop = last if j < end and last > i else j
                    stop = line if line > i else stop
        i = stop
        ends[n] = i
        ids[n] = -1
        n += 1
    return i, n


@njit(cache=True, nogil=True, inline="always")
def mix(k0, k1):
    h = (k0 * _C0) ^ ((k1 ^ (k0 >> _S32)) * _C1)
    h = (h ^ (h >> _S32)) * _C2
    return h ^ (h >> _S32)


@njit(cache=True, nogil=True, inline="always")
def key_of(data, a, n):
    """Two words of ``data[a:a + n]``: itself and its length up to SHORT bytes, else hash and length."""
    k0 = U(0)
    k1 = U(0)
    if n <= SHORT:
        if a + 16 <= data.shape[0]:
            k0 = load64(data, a)
            if n <= 8:
                k0 = k0 & (~U(0) >> (_S64 - U(8 * n)))
            else:
                k1 = load64(data, a + 8) & (~U(0) >> (_S128 - U(8 * n)))
        else:
            for k in range(min(n, 8)):
                k0 |= U(data[a + k]) << U(8 * k)
            for k in range(8, n):
                k1 |= U(data[a + k]) << U(8 * (k - 8))
        k1 |= U(n) << _S56
    else:
        k = a
        while k + 8 <= a + n:
            k0 = mix(k0, load64(data, k))
            k += 8
        while k < a + n:
            k1 = (k1 << _S8) | U(data[k])
            k += 1
        k0 = mix(k0, k1)
        k1 = _LONG | (U(n) << U(40))
    return k0, k1


@njit(cache=True, nogil=True, inline="always")
def slot_of(memo, memo_bytes, shift, data, a, n, k0, k1):
    """The first word of the slot where this piece is, or of the empty one where it belongs."""
    mask = memo.shape[0] - 1
    at = np.int64(mix(k0, k1) >> shift) * SLOT
    if n <= SHORT:
        while memo[at + 1] != 0 and (memo[at] != k0 or memo[at + 1] != k1):
            at = (at + SLOT) & mask
    else:
        while memo[at + 1] != 0:
            if memo[at] == k0 and (memo[at + 1] >> U(40)) == (k1 >> U(40)):
                kept = np.int64(memo[at + 1] & U((1 << 40) - 1))
                same = True
                for k in range(n):
                    if memo_bytes[kept + k] != data[a + k]:
                        same = False
                        break
                if same:
                    break
            at = (at + SLOT) & mask
    return at


@njit(cache=True, nogil=True, inline="always")
def merged(merges, bits, left, right):
    """Rank of the merge of a pair of ids; NO_PAIR if there is none."""
    key = (U(left) << U(ID_BITS)) | U(right)
    mask = merges.shape[0] - 1
    at = np.int64((key * _C0) >> (_S64 - U(bits)))
    while merges[at] >> _RANK_BITS != key:
        if merges[at] == _FREE:
            return np.int64(NO_PAIR)
        at = (at + 1) & mask
    return np.int64(merges[at] & _RANK)


@njit(cache=True, nogil=True)
def merge_few(data, a, n, byte_ids, byte_pairs, merges, bits, merge_ids, symbols, pair):
    """Ids of a short piece into ``symbols``; how many. The lowest rank first, the leftmost of equals."""
    for k in range(n):
        symbols[k] = byte_ids[data[a + k]]
    for k in range(n - 1):
        pair[k] = byte_pairs[(np.int64(data[a + k]) << 8) | np.int64(data[a + k + 1])]
    while n > 1:
        best = pair[0]
        for k in range(1, n - 1):
            best = min(best, pair[k])
        if best == NO_PAIR:
            break
        at = np.int64(0)
        while pair[at] != best:
            at += 1
        n -= 1
        for k in range(at + 1, n):
            symbols[k] = symbols[k + 1]
        for k in range(at + 1, n - 1):
            pair[k] = pair[k + 1]
        symbols[at] = merge_ids[best]
        if at + 1 < n:
            pair[at] = merged(merges, bits, symbols[at], symbols[at + 1])
        if at > 0:
            pair[at - 1] = merged(merges, bits, symbols[at - 1], symbols[at])
    return n


@njit(cache=True, nogil=True)
def _sift(heap, size, item):
    """Put an item where the smallest was."""
    at = np.int64(0)
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= item:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = item


@njit(cache=True, nogil=True)
def _push(heap, size, item):
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        if heap[parent] <= item:
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = item


@njit(cache=True, nogil=True)
def merge_many(data, a, n, byte_ids, byte_pairs, merges, bits, merge_ids, out, o):
    """Ids of a piece of any size into ``out[o:]``; where they end. A heap of rank << 32 | place: n log n."""
    symbols = np.empty(n, np.int32)
    pair = np.empty(n, np.int32)
    after = np.empty(n, np.int32)
    before = np.empty(n, np.int32)
    heap = np.empty(3 * n, np.int64)
    size = np.int64(0)
    for k in range(n):
        symbols[k] = byte_ids[data[a + k]]
        after[k] = k + 1
        before[k] = k - 1
        pair[k] = NO_PAIR
        if k + 1 < n:
            pair[k] = byte_pairs[(np.int64(data[a + k]) << 8) | np.int64(data[a + k + 1])]
            if pair[k] != NO_PAIR:
                _push(heap, size, (np.int64(pair[k]) << 32) | k)
                size += 1
    while size > 0:
        top = heap[0]
        size -= 1
        _sift(heap, size, heap[size])
        at = top & 0xFFFFFFFF
        rank = top >> 32
        if np.int64(pair[at]) != rank:  # the pair has changed since, or is gone
            continue
        right = np.int64(after[at])
        then = np.int64(after[right])
        symbols[at] = merge_ids[rank]
        after[at] = then
        pair[right] = NO_PAIR
        pair[at] = NO_PAIR
        if then < n:
            before[then] = at
            rank = merged(merges, bits, symbols[at], symbols[then])
            if rank != NO_PAIR:
                pair[at] = rank
                _push(heap, size, (rank << 32) | at)
                size += 1
        last = np.int64(before[at])
        if last >= 0:
            rank = merged(merges, bits, symbols[last], symbols[at])
            pair[last] = rank
            if rank != NO_PAIR:
                _push(heap, size, (rank << 32) | last)
                size += 1
    k = np.int64(0)
    while k < n:
        out[o] = symbols[k]
        o += 1
        k = np.int64(after[k])
    return o


@njit(cache=True, nogil=True)
def encode_cuts(
    data, start, ends, given, n_cuts, model, whole, whole_bytes, memo, memo_bytes, memo_ids, state, scratch,
    out, o,
):  # fmt: skip
    """Append to ``out[o:]`` the ids of the pieces that end at ``ends``, the first beginning at ``start``.

    ``given``: the id of an added token, -1 for a piece to encode. ``model``: of ``bpe_tables.Model``.
    ``whole``: pieces that are one id whatever the merges (ignore_merges), laid out as the memo.
    """
    byte_ids, byte_pairs, merges, bits, merge_ids = model
    symbols, pair, hits, keep = scratch
    slots = memo.shape[0] // SLOT
    shift = U(64)
    while (U(1) << (_S64 - shift)) < U(slots):
        shift -= U(1)
    whole_shift = U(64)
    while (U(1) << (_S64 - whole_shift)) < U(whole.shape[0] // SLOT):
        whole_shift -= U(1)
    # ---- the slots of all short pieces, whose loads then overlap
    a = start
    words = data.shape[0] - 16
    for c in range(n_cuts):
        b = np.int64(ends[c])
        n = b - a
        slot = np.int64(-1)
        if n <= SHORT and a <= words:
            k0 = load64(data, a) & keep[n]
            k1 = (load64(data, a + 8) & keep[n + 16]) | (U(n) << _S56)
            at = np.int64(mix(k0, k1) >> shift) * SLOT
            if memo[at] == k0 and memo[at + 1] == k1:
                slot = at
        hits[c] = slot
        a = b
    a = start
    emptied = state[EMPTIED]
    for c in range(n_cuts):
        b = np.int64(ends[c])
        n = b - a
        at = hits[c]
        if given[c] >= 0:
            out[o] = given[c]
            o += 1
            a = b
            continue
        k0 = U(0)
        k1 = U(0)
        if at < 0 or state[EMPTIED] != emptied:
            if n > LONGEST:
                o = merge_many(data, a, n, byte_ids, byte_pairs, merges, bits, merge_ids, out, o)
                a = b
                continue
            k0, k1 = key_of(data, a, n)
            at = slot_of(memo, memo_bytes, shift, data, a, n, k0, k1)
        if memo[at + 1] != 0:
            ids = memo[at + 2]
            count = ids & MANY
            if count < MANY:  # the room after the last is there
                out[o] = (ids >> U(4)) & _ID
                out[o + 1] = (ids >> U(24)) & _ID
                out[o + 2] = ids >> U(44)
                if count > 3:
                    more = memo[at + 3]
                    out[o + 3] = more & _ID
                    out[o + 4] = (more >> U(20)) & _ID
                    out[o + 5] = more >> U(40)
                o += np.int64(count)
            else:
                kept = np.int64(ids >> U(24))
                size = np.int64((ids >> U(4)) & _ID)
                for k in range(size):
                    out[o + k] = memo_ids[kept + k]
                o += size
            a = b
            continue

        # ---- not in the memo: merge, then keep
        state[MISSED] += 1
        first = o
        found = False
        if whole_shift < U(64):
            there = slot_of(whole, whole_bytes, whole_shift, data, a, n, k0, k1)
            if whole[there + 1] != 0:
                out[o] = (whole[there + 2] >> U(4)) & _ID
                o += 1
                found = True
        if not found:
            if n <= FEW:
                size = merge_few(data, a, n, byte_ids, byte_pairs, merges, bits, merge_ids, symbols, pair)
                for k in range(size):
                    out[o + k] = symbols[k]
                o += size
            else:
                o = merge_many(data, a, n, byte_ids, byte_pairs, merges, bits, merge_ids, out, o)
        size = o - first
        if (
            4 * (state[USED] + 1) > 3 * slots
            or state[BYTES] + n > memo_bytes.shape[0]
            or state[IDS] + size > memo_ids.shape[0]
        ):
            memo[:] = U(0)
            state[USED] = 0
            state[BYTES] = 0
            state[IDS] = 0
            state[EMPTIED] += 1
            at = slot_of(memo, memo_bytes, shift, data, a, n, k0, k1)
        state[USED] += 1
        if n > SHORT:
            kept = state[BYTES]
            memo_bytes[kept : kept + n] = data[a:b]
            state[BYTES] += n
            k1 |= U(kept)
        memo[at] = k0
        memo[at + 1] = k1
        if size <= 6:
            ids = U(size)
            more = U(0)
            for k in range(size):
                if k < 3:
                    ids |= U(out[first + k]) << U(4 + ID_BITS * k)
                else:
                    more |= U(out[first + k]) << U(ID_BITS * (k - 3))
            memo[at + 2] = ids
            memo[at + 3] = more
        else:
            kept = state[IDS]
            for k in range(size):
                memo_ids[kept + k] = out[first + k]
            state[IDS] += size
            memo[at + 2] = MANY | (U(size) << U(4)) | (U(kept) << U(24))
        a = b
    return o


@njit(cache=True, nogil=True)
def encode(
    data, offsets, pattern, digits, raw_trie, trie, characters, model, whole, memo, state, out, out_offsets
):
    """Ids of documents ``data[offsets[d]:offsets[d + 1]]`` into ``out``, which has room for an id a byte and
    six more; their ends into ``out_offsets[1:]``. Returns how many ids there are."""
    pages, classes = characters
    raw_edges, raw_accept = raw_trie
    edges, accept = trie
    whole_slots, whole_bytes = whole
    memo_slots, memo_bytes, memo_ids = memo
    ends = np.empty(BLOCK, np.int64)
    given = np.empty(BLOCK, np.int32)
    keep = np.zeros(32, U)  # of the two words of a piece of n bytes: keep[n], keep[n + 16]
    for k in range(1, 16):
        keep[k] = ~U(0) >> (_S64 - U(8 * min(k, 8)))
        keep[k + 16] = (U(1) << U(8 * max(k - 8, 0))) - U(1)
    scratch = (np.empty(FEW, np.int32), np.empty(FEW, np.int32), np.empty(BLOCK, np.int64), keep)
    n = np.int64(0)
    o = np.int64(0)
    for d in range(offsets.shape[0] - 1):
        i = offsets[d]
        end = offsets[d + 1]
        start = i
        # the next added token of each kind; the second is looked for only before the first
        raw_first, raw_last, raw_token = i, i, np.int64(-1)
        first, last, token = i, i, np.int64(-1)
        while True:
            if n == BLOCK or (i == end and n > 0 and token < 0 and raw_token < 0):
                o = encode_cuts(
                    data, start, ends, given, n, model, whole_slots, whole_bytes,
                    memo_slots, memo_bytes, memo_ids, state, scratch, out, o,
                )  # fmt: skip
                start = i
                n = np.int64(0)
            if i < first:
                if pattern == GPT2:
                    i, n = cuts_gpt2(data, i, first, pages, classes, ends, given, n)
                else:
                    i, n = cuts_cl100k(data, i, first, digits, pages, classes, ends, given, n)
            elif token >= 0:
                ends[n] = last
                given[n] = token
                n += 1
                i = last
                token = np.int64(-1)
            elif i < raw_first:
                first, last, token = find(data, i, raw_first, edges, accept)
            elif raw_token >= 0:
                ends[n] = raw_last
                given[n] = raw_token
                n += 1
                i = raw_last
                raw_token = np.int64(-1)
            elif i < end:
                raw_first, raw_last, raw_token = find(data, i, end, raw_edges, raw_accept)
            else:
                break
        out_offsets[d + 1] = o
    return o


@njit(cache=True, nogil=True)
def fill_whole(data, offsets, ids, slots):
    """Lay out pieces ``data[offsets[k]:offsets[k + 1]]``, one id each, as the memo lays out its own."""
    shift = U(64)
    while (U(1) << (_S64 - shift)) < U(slots.shape[0] // SLOT):
        shift -= U(1)
    for k in range(ids.shape[0]):
        a = offsets[k]
        n = offsets[k + 1] - a
        k0, k1 = key_of(data, a, n)
        at = slot_of(slots, data, shift, data, a, n, k0, k1)
        if n > SHORT:
            k1 |= U(a)
        slots[at] = k0
        slots[at + 1] = k1
        slots[at + 2] = U(1) | (ids[k] << U(4))
