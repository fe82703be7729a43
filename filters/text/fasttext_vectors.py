"""Machine instructions that fastText's kernels need and numba has no word for.

Each reads an array without bounds check and at any alignment: the caller answers for the room. Import it only
where used: it brings numba with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK = 32
"""Bytes that are looked at together: a text must have as many after its last byte."""

_I1, _I8, _I32, _I64, _F32 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
_BYTES = ir.VectorType(_I8, BLOCK)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any, to: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(cgutils.gep_inbounds(builder, data, at), to.as_pointer())


def _load(context: Any, builder: Any, kind: Any, array: Any, at: Any, what: Any) -> Any:
    value = builder.load(_pointer(context, builder, kind, array, at, what), typ=what)
    value.align = 1
    return value


def _every(byte: int) -> Any:
    return ir.Constant(_BYTES, [byte & 255] * BLOCK)


def _mask(compare: Callable[[Any, Any], Any]) -> Any:
    """Intrinsic (bytes, i) → uint64: bit k says whether `compare` holds for byte i + k, k < BLOCK."""

    @intrinsic
    def mask(typingctx, data, i):
        def codegen(context, builder, signature, args):
            block = _load(context, builder, signature.args[0], args[0], args[1], _BYTES)
            bits = builder.bitcast(compare(builder, block), ir.IntType(BLOCK))
            return builder.zext(bits, _I64)

        return types.uint64(data, types.int64), codegen

    return mask


def _is_separator(builder: Any, block: Any) -> Any:
    """Space, NUL, and \\t \\n \\v \\f \\r: what fastText cuts words at."""
    control = builder.icmp_unsigned("<", builder.sub(block, _every(9)), _every(5))
    blank = builder.icmp_unsigned("==", builder.and_(block, _every(~32)), _every(0))
    return builder.or_(control, blank)


def _is_start(builder: Any, block: Any) -> Any:
    return builder.icmp_signed(">", block, _every(0xBF))


separators = _mask(_is_separator)
starts = _mask(_is_start)
"""First bytes of characters."""


def _first_bytes(typingctx, data, i, size):
    """(bytes, i, size) → four uint64: bytes i … i + size − 1, zeros after them; size ≤ BLOCK."""

    def codegen(context, builder, signature, args):
        block = _load(context, builder, signature.args[0], args[0], args[1], _BYTES)
        size = builder.trunc(args[2], _I8)
        undefined = ir.Constant(_BYTES, ir.Undefined)
        spread = builder.insert_element(undefined, size, _I32(0))
        everywhere = ir.Constant(ir.VectorType(_I32, BLOCK), [0] * BLOCK)
        spread = builder.shuffle_vector(spread, undefined, everywhere)
        inside = builder.icmp_unsigned("<", ir.Constant(_BYTES, list(range(BLOCK))), spread)
        block = builder.select(inside, block, _every(0))
        words = builder.bitcast(block, ir.VectorType(_I64, 4))
        parts = [builder.extract_element(words, _I32(k)) for k in range(4)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(types.uint64, 4)(data, types.int64, types.int64), codegen


def _trailing_zeros(typingctx, bits):
    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], _I1(0))

    return types.int64(types.uint64), codegen


def _ones(typingctx, bits):
    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


def _remainder(typingctx, low, divisor):
    """The upper 64 bits of a product (Lemire, Kaser and Kurz 2019, "Faster remainder by direct computation"):
    h % d = times_high(h · ⌈2⁶⁴ / d⌉ mod 2⁶⁴, d) for 32-bit h and d."""

    def codegen(context, builder, signature, args):
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), _I64)

    return types.uint64(types.uint64, types.uint64), codegen


def _ask(typingctx, data, i):
    """Ask for the cache line of byte i, which will be read soon."""

    def codegen(context, builder, signature, args):
        line = _pointer(context, builder, signature.args[0], args[0], args[1], _I8)
        kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(fetch, [line, _I32(0), _I32(3), _I32(1)])  # to read, keep, data
        return context.get_dummy_value()

    return types.void(data, types.int64), codegen


def _load_float(typingctx, data, i):
    """The float32 whose first byte is byte i."""

    def codegen(context, builder, signature, args):
        return _load(context, builder, signature.args[0], args[0], args[1], _F32)

    return types.float32(data, types.int64), codegen


def _borrow(typingctx, array):
    """The same array without its owner, for use while another holds it. Numba counts references to an array's
    owner at every call and assignment, in loops most of the time goes there; to nobody it counts none."""

    def codegen(context, builder, signature, args):
        same = context.make_array(signature.args[0])(context, builder, args[0])
        same.meminfo = cgutils.get_null_value(same.meminfo.type)
        same.parent = cgutils.get_null_value(same.parent.type)
        return same._getvalue()

    return array(array), codegen


def _adder(n: int) -> Any:
    """Intrinsic (floats, j, bytes, i): floats[j:j + n] += the n float32 from byte i on."""

    @intrinsic
    def add(typingctx, into, j, data, i):
        def codegen(context, builder, signature, args):
            lanes = ir.VectorType(_F32, n)
            to = _pointer(context, builder, signature.args[0], args[0], args[1], lanes)
            have = builder.load(to, typ=lanes)
            have.align = 4
            more = _load(context, builder, signature.args[2], args[2], args[3], lanes)
            builder.store(builder.fadd(have, more), to).align = 4
            return context.get_dummy_value()

        return types.void(into, types.int64, data, types.int64), codegen

    return add


first_bytes: Any = intrinsic(_first_bytes)
trailing_zeros: Any = intrinsic(_trailing_zeros)
"""64 for zero."""
ones: Any = intrinsic(_ones)
times_high: Any = intrinsic(_remainder)
prefetch: Any = intrinsic(_ask)
load_float: Any = intrinsic(_load_float)
borrow: Any = intrinsic(_borrow)
_add16, _add4 = _adder(16), _adder(4)


@njit(cache=True, nogil=True, inline="always")
def add_row(into, data, i, dim):
    """into[:dim] += the dim float32 from byte i of data on."""
    j = 0
    while j + 16 <= dim:
        _add16(into, j, data, i + 4 * j)
        j += 16
    while j + 4 <= dim:
        _add4(into, j, data, i + 4 * j)
        j += 4
    while j < dim:
        into[j] += load_float(data, i + 4 * j)
        j += 1
