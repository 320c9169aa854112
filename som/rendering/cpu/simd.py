"""Explicit vectors for Numba: arithmetic on 16 numbers at a time, written like NumPy.

A value of type ``Lanes`` is one or more *registers* of 16 *lanes*; a lane is a float32, an int32 or a bool (a mask).
Everything is elementwise, as if the 16 lanes were a small NumPy array: ``where(x > 0.0, x * y, 0.0)`` works on all
lanes at once and has no branches. Plain Python numbers broadcast.

Why not leave this to the compiler? Loops over pixels with early exits, per-pixel stopping and rounding tricks are not
vectorised automatically (three times slower here), and the choice of *which* 16 numbers go side by side is the design
of the rasteriser. LLVM turns one register into 1 AVX-512, 2 AVX, 4 SSE or 4 NEON registers, so one source serves all.

A value of several registers, ``Lanes(f, 4)``, holds several independent calculations: an addition takes four cycles
to answer but can start every half cycle, so that four interleaved chains take hardly more time than one.

NumPy equivalents, with ``a`` an array (always one-dimensional), ``i`` an offset into it, ``x, y, z`` Lanes and
``r = numpy.arange(16)``:

=================================== =====================================================================
``x + y``, ``x <= y``, ``m & n``    the same
``broadcast(s)``, ``broadcast_int`` ``numpy.full(16, s)``
``lane_numbers(i)``                 ``i + r`` (int32)
``lane_columns()``, ``lane_rows()`` ``r % 4``, ``r // 4`` (float32): the pixels of a 4 x 4 block
``zeros(n)``                        ``numpy.zeros((n, 16))``
``load(a, i)``, ``store(a, i, x)``  ``a[i + r]``; ``load`` and ``store_at``: a tuple, one offset per register
``load_broadcast(a, i)``            ``numpy.full(16, a[i])``; likewise
``gather(a, i, s)``, ``scatter``    ``a[i + s * r]``: one field of 16 records that are s numbers long
``load_grid(a, i, dy, dx)``         ``a[i + r // 4 * dy + r % 4 * dx]``, and ``store_grid``
``load_grid4(a, i, dy, dx)``        four registers, ``load_grid(a, i + k, dy, dx)`` for k < 4, and ``store_grid4``
=================================== =====================================================================
"""

from __future__ import annotations

import operator

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16

_f32, _i1, _i8, _i16, _i32, _i64 = ir.FloatType(), *(ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_REGISTER = {"f": ir.VectorType(_f32, LANES), "i": ir.VectorType(_i32, LANES), "m": ir.VectorType(_i1, LANES)}
_floats, _ints, _mask = _REGISTER["f"], _REGISTER["i"], _REGISTER["m"]
# The compiler may fuse and reorder sums, but must keep NaN and infinity: masks are made from them.
_FAST = ("contract", "nsz", "arcp", "reassoc")


class Lanes(types.Type):
    """Numba type of ``registers`` registers of kind f (float32), i (int32) or m (mask)."""

    def __init__(self, kind: str, registers: int = 1):
        self.kind, self.registers = kind, registers
        super().__init__(name=f"Lanes({kind}, {registers})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, lanes):
        register = _REGISTER[lanes.kind]
        several = lanes.registers > 1
        super().__init__(manager, lanes, ir.ArrayType(register, lanes.registers) if several else register)


# ---------------------------------------------------------------------------- building blocks of the generated code
def _split(builder, type_, value) -> list:
    """The registers of a value."""
    if type_.registers == 1:
        return [value]
    return [builder.extract_value(value, k) for k in range(type_.registers)]


def _join(builder, registers):
    """A value from its registers."""
    if len(registers) == 1:
        return registers[0]
    value = ir.Constant(ir.ArrayType(registers[0].type, len(registers)), ir.Undefined)
    for k, register in enumerate(registers):
        value = builder.insert_value(value, register, k)
    return value


def _constant(number, register=_floats):
    return ir.Constant(register, [number] * LANES)


def _lane_constants(numbers):
    numbers = list(numbers)
    return ir.Constant(ir.VectorType(_i32, len(numbers)), numbers)


def _splat(builder, scalar, register):
    undefined = ir.Constant(register, ir.Undefined)
    first = builder.insert_element(undefined, scalar, _i32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_ints, [0] * LANES))


def _operand(context, builder, type_, value, kind, registers) -> list:
    """``registers`` registers of an argument, which is Lanes or a plain number; single registers are repeated."""
    if isinstance(type_, Lanes):
        parts = _split(builder, type_, value)
        return parts * registers if len(parts) == 1 else parts
    scalar_type = types.float32 if kind == "f" else types.int32
    return [_splat(builder, context.cast(builder, value, type_, scalar_type), _REGISTER[kind])] * registers


def _call(builder, name, return_type, arguments):
    function_type = ir.FunctionType(return_type, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)


def _fma(builder, x, y, z):
    return _call(builder, "llvm.fmuladd.v16f32", _floats, [x, y, z])


def _pointer(context, builder, array_type, array, offset, vector=None):
    """Address of ``array[offset]``, seen as a pointer to ``vector``."""
    data = context.make_array(array_type)(context, builder, array).data
    element = context.get_data_type(array_type.dtype).as_pointer()
    address = builder.gep(builder.bitcast(data, element), [offset])
    return address if vector is None else builder.bitcast(address, vector.as_pointer())


def _kind_of(array_type) -> str:
    return "i" if array_type.dtype == types.int32 else "f"


def _offset_count(offsets) -> int:
    return 1 if isinstance(offsets, types.Integer) else len(offsets)


def _offset(builder, type_, offsets, k):
    return offsets if isinstance(type_, types.Integer) else builder.extract_value(offsets, k)


# ---------------------------------------------------------------------------------------------- elementwise operations
def _elementwise(result_kind, argument_kinds, per_register):
    """``(typing, code generator)`` of an elementwise operation; ``per_register(builder, *registers)`` writes it."""

    def typing(arguments):
        lanes = [a for a in arguments if isinstance(a, Lanes)]
        fits = all(
            a.kind == kind if isinstance(a, Lanes) else isinstance(a, types.Number)
            for a, kind in zip(arguments, argument_kinds, strict=True)
        )
        return Lanes(result_kind, max(a.registers for a in lanes)) if lanes and fits else None

    def generate(context, builder, sig, arguments):
        n = sig.return_type.registers
        operands = [
            _operand(context, builder, type_, value, kind, n)
            for type_, value, kind in zip(sig.args, arguments, argument_kinds, strict=True)
        ]
        return _join(builder, [per_register(builder, *registers) for registers in zip(*operands, strict=True)])

    return typing, generate


def _function(result_kind, argument_kinds, per_register, doc):
    """A function of one, two or three Lanes or numbers."""
    typing, generate = _elementwise(result_kind, argument_kinds, per_register)

    def describe(*arguments):
        result = typing(arguments)
        return None if result is None else (result(*arguments), generate)

    def unary(typingctx, x):
        return describe(x)

    def binary(typingctx, x, y):
        return describe(x, y)

    def ternary(typingctx, x, y, z):
        return describe(x, y, z)

    operation = (unary, binary, ternary)[len(argument_kinds) - 1]
    operation.__doc__ = doc
    return intrinsic(operation)


def _operator(function, variants):
    """Gives a Python operator its meaning for Lanes; ``variants``: (result kind, argument kinds, per register)."""
    for result_kind, argument_kinds, per_register in variants:
        typing, _ = _elementwise(result_kind, argument_kinds, per_register)

        class Template(AbstractTemplate):
            key = function
            _typing = staticmethod(typing)

            def generic(self, arguments, keywords):
                if len(arguments) != len(argument_kinds):  # noqa: B023 (used before the loop goes on)
                    return None
                result = self._typing(arguments)
                return None if result is None else signature(result, *arguments)

        infer_global(function)(Template)
    _lower(function, variants)


def _lower(function, variants):
    """One implementation per operator and position of the Lanes; it picks the variant by kind."""

    def implementation(context, builder, sig, arguments):
        for result_kind, argument_kinds, per_register in variants:
            typing, generate = _elementwise(result_kind, argument_kinds, per_register)
            if typing(sig.args) is not None:
                return generate(context, builder, sig, arguments)
        raise NotImplementedError(f"{function} for {sig.args}")

    if len(variants[0][1]) == 1:
        lower_builtin(function, Lanes)(implementation)
        return
    for arguments in ((Lanes, Lanes), (Lanes, types.Number), (types.Number, Lanes)):
        lower_builtin(function, *arguments)(implementation)


def _compare(symbol):
    return [
        ("m", "ff", lambda b, x, y: b.fcmp_ordered(symbol, x, y)),
        ("m", "ii", lambda b, x, y: b.icmp_signed(symbol, x, y)),
    ]


_operator(operator.add, [("f", "ff", lambda b, x, y: b.fadd(x, y, flags=_FAST))])
_operator(operator.sub, [("f", "ff", lambda b, x, y: b.fsub(x, y, flags=_FAST))])
_operator(operator.mul, [("f", "ff", lambda b, x, y: b.fmul(x, y, flags=_FAST))])
_operator(operator.truediv, [("f", "ff", lambda b, x, y: b.fdiv(x, y))])
_operator(operator.neg, [("f", "f", lambda b, x: b.fneg(x))])
_operator(operator.and_, [("m", "mm", lambda b, x, y: b.and_(x, y))])
for _symbol, _comparison in (("<", operator.lt), ("<=", operator.le), (">", operator.gt), (">=", operator.ge)):
    _operator(_comparison, _compare(_symbol))

minimum = _function(
    "f", "ff", lambda b, x, y: b.select(b.fcmp_ordered("<", x, y), x, y), "x where x < y, else y (also for NaN x)."
)
maximum = _function(
    "f", "ff", lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), x, y), "x where x > y, else y (also for NaN x)."
)
multiply_add = _function("f", "fff", _fma, "x * y + z, rounded once where the processor can.")
negative_multiply_add = _function("f", "fff", lambda b, x, y, z: _fma(b, b.fneg(x), y, z), "z - x * y, likewise.")
where = _function("f", "mff", lambda b, m, x, y: b.select(m, x, y), "numpy.where for floats.")
where_int = _function("i", "mii", lambda b, m, x, y: b.select(m, x, y), "numpy.where for ints.")
absolute = _function("f", "f", lambda b, x: _call(b, "llvm.fabs.v16f32", _floats, [x]), "numpy.abs.")
sqrt = _function("f", "f", lambda b, x: _call(b, "llvm.sqrt.v16f32", _floats, [x]), "numpy.sqrt.")
ceil = _function("f", "f", lambda b, x: _call(b, "llvm.ceil.v16f32", _floats, [x]), "numpy.ceil.")
to_int = _function("i", "f", lambda b, x: b.fptosi(x, _ints), "x.astype(int32) for values that fit.")


# ------------------------------------------------------------------------------------------------- exp2, log2, 1/x
# Written out because LLVM would call a scalar library function per lane. Each step is done for all registers before
# the next step begins, which interleaves their chains.
def _by_steps(steps, doc):
    def operation(typingctx, x):
        if not (isinstance(x, Lanes) and x.kind == "f"):
            return None

        def generate(context, builder, sig, arguments):
            return _join(builder, steps(builder, _split(builder, sig.args[0], arguments[0])))

        return x(x), generate

    operation.__doc__ = doc
    return intrinsic(operation)


# Minimax polynomial of 2**f on [-1/2, 1/2], lowest power first; relative error 2.6e-6.
_EXP2 = (0.9999992614316375, 0.6931218147643916, 0.24024744874617865, 0.05591786017084447, 0.009570100017885837)


def _exp2_steps(b, xs):
    magic = _constant(12582912.0)  # 1.5 * 2**23: adding it rounds to an integer and leaves that in the low bits
    shifted = [b.fadd(x, magic) for x in xs]  # no fast-math flags: reordering would undo the rounding
    fractions = [b.fsub(x, b.fsub(y, magic)) for x, y in zip(xs, shifted, strict=True)]
    powers = [_constant(_EXP2[-1])] * len(xs)
    for coefficient in _EXP2[-2::-1]:
        powers = [_fma(b, p, f, _constant(coefficient)) for p, f in zip(powers, fractions, strict=True)]
    exponents = [b.shl(b.bitcast(y, _ints), _constant(23, _ints)) for y in shifted]
    return [
        b.bitcast(b.add(e, b.bitcast(p, _ints)), _floats) for e, p in zip(exponents, powers, strict=True)
    ]


def _reciprocal_steps(b, xs):
    # The bit pattern of a float is roughly its logarithm, so subtracting it negates the exponent: a first guess
    # within 12 %, which each Newton step y += y * (1 - x * y) squares: 1.4e-2, 2e-4, 4e-8.
    ys = [b.bitcast(b.sub(_constant(0x7EF311C3, _ints), b.bitcast(x, _ints)), _floats) for x in xs]
    for _ in range(3):
        errors = [_fma(b, b.fneg(x), y, _constant(1.0)) for x, y in zip(xs, ys, strict=True)]
        ys = [_fma(b, y, e, y) for y, e in zip(ys, errors, strict=True)]
    return ys


def _log2_steps(b, xs):
    out = []
    for x in xs:
        bits = b.bitcast(x, _ints)
        exponent = b.ashr(b.sub(bits, _constant(0x3F3504F3, _ints)), _constant(23, _ints))
        mantissa = b.bitcast(b.sub(bits, b.shl(exponent, _constant(23, _ints))), _floats)  # in [sqrt(.5), sqrt(2))
        s = b.fdiv(b.fsub(mantissa, _constant(1.0)), b.fadd(mantissa, _constant(1.0)))
        square = b.fmul(s, s)  # log2(m) = 2/ln(2) * artanh(s) = 2/ln(2) * (s + s^3/3 + s^5/5 + ...)
        series = _constant(2.8853900817779268 / 9)
        for k in (7, 5, 3, 1):
            series = _fma(b, series, square, _constant(2.8853900817779268 / k))
        out.append(_fma(b, series, s, b.sitofp(exponent, _floats)))
    return out


exp2 = _by_steps(_exp2_steps, "2 ** x for |x| < 126; relative error 3e-6.")
reciprocal = _by_steps(_reciprocal_steps, "1 / x for positive x in [1e-37, 1e37]; cheaper than a division.")
log2 = _by_steps(_log2_steps, "log2(x) for positive x that is not denormal; absolute error 1e-6.")


# ------------------------------------------------------------------------------------------------------------ making
def _maker(kind, doc):
    def operation(typingctx, number):
        def generate(context, builder, sig, arguments):
            return _operand(context, builder, sig.args[0], arguments[0], kind, 1)[0]

        return Lanes(kind)(number), generate

    operation.__doc__ = doc
    return intrinsic(operation)


broadcast = _maker("f", "A number in all lanes, as float32.")
broadcast_int = _maker("i", "A number in all lanes, as int32.")


@intrinsic
def lane_numbers(typingctx, start):
    """start, start + 1, ..., start + 15 as int32."""

    def generate(context, builder, sig, arguments):
        start = context.cast(builder, arguments[0], sig.args[0], types.int32)
        return builder.add(_splat(builder, start, _ints), ir.Constant(_ints, list(range(LANES))))

    return Lanes("i")(start), generate


@intrinsic
def lane_columns(typingctx):
    """0 1 2 3 0 1 2 3 0 1 2 3 0 1 2 3 as float32."""
    return Lanes("f")(), lambda context, builder, sig, arguments: ir.Constant(
        _floats, [float(lane % 4) for lane in range(LANES)]
    )


@intrinsic
def lane_rows(typingctx):
    """0 0 0 0 1 1 1 1 2 2 2 2 3 3 3 3 as float32."""
    return Lanes("f")(), lambda context, builder, sig, arguments: ir.Constant(
        _floats, [float(lane // 4) for lane in range(LANES)]
    )


@intrinsic(prefer_literal=True)
def zeros(typingctx, registers):
    """``registers`` (a number written in the source) registers of float zeros."""
    n = registers.literal_value

    def generate(context, builder, sig, arguments):
        return _join(builder, [_constant(0.0)] * n)

    return Lanes("f", n)(registers), generate


@intrinsic
def join(typingctx, parts):
    """A tuple of single registers -> one value of several registers."""

    def generate(context, builder, sig, arguments):
        return _join(builder, [builder.extract_value(arguments[0], k) for k in range(len(parts))])

    return Lanes(parts[0].kind, len(parts))(parts), generate


@intrinsic
def split(typingctx, x):
    """One value of several registers -> a tuple of single registers."""
    result = types.UniTuple(Lanes(x.kind), x.registers)

    def generate(context, builder, sig, arguments):
        return context.make_tuple(builder, result, _split(builder, x, arguments[0]))

    return result(x), generate


# ------------------------------------------------------------------------------------------------------------ memory
@intrinsic
def load(typingctx, array, offsets):
    """array[offset : offset + 16] of a float32 or int32 array; one register per offset if given a tuple."""
    kind = _kind_of(array)
    n = _offset_count(offsets)

    def generate(context, builder, sig, arguments):
        registers = []
        for k in range(n):
            offset = _offset(builder, offsets, arguments[1], k)
            address = _pointer(context, builder, array, arguments[0], offset, _REGISTER[kind])
            registers.append(builder.load(address, align=4))
        return _join(builder, registers)

    return Lanes(kind, n)(array, offsets), generate


@intrinsic
def store(typingctx, array, offset, x):
    """array[offset : offset + 16] = x; further registers of x go to the 16 numbers after, and so on."""

    def generate(context, builder, sig, arguments):
        for k, register in enumerate(_split(builder, x, arguments[2])):
            offset = builder.add(arguments[1], _i64(LANES * k))
            address = _pointer(context, builder, array, arguments[0], offset, _REGISTER[x.kind])
            builder.store(register, address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, x), generate


@intrinsic
def store_at(typingctx, array, offsets, x):
    """array[offsets[k] : offsets[k] + 16] = register k of x."""

    def generate(context, builder, sig, arguments):
        for k, register in enumerate(_split(builder, x, arguments[2])):
            offset = builder.extract_value(arguments[1], k)
            address = _pointer(context, builder, array, arguments[0], offset, _REGISTER[x.kind])
            builder.store(register, address, align=4)
        return context.get_dummy_value()

    return types.void(array, offsets, x), generate


@intrinsic
def load_broadcast(typingctx, array, offsets, shift):
    """The float32 array[offset + shift] in all lanes; one register per offset if given a tuple."""
    n = _offset_count(offsets)

    def generate(context, builder, sig, arguments):
        registers = []
        for k in range(n):
            offset = builder.add(_offset(builder, offsets, arguments[1], k), arguments[2])
            scalar = builder.load(_pointer(context, builder, array, arguments[0], offset), align=4)
            registers.append(_splat(builder, scalar, _floats))
        return _join(builder, registers)

    return Lanes("f", n)(array, offsets, types.int64), generate


def _grid_addresses(context, builder, array_type, array, offset, row_step, column_step, vector=None):
    """Addresses of array[offset + row * row_step + column * column_step], rows outside."""
    for _ in range(4):
        at = offset
        for _ in range(4):
            yield _pointer(context, builder, array_type, array, at, vector)
            at = builder.add(at, column_step)
        offset = builder.add(offset, row_step)


def _load_lanes(context, builder, array_type, array, offset, row_step, column_step):
    value = ir.Constant(_REGISTER[_kind_of(array_type)], ir.Undefined)
    addresses = _grid_addresses(context, builder, array_type, array, offset, row_step, column_step)
    for lane, address in enumerate(addresses):
        value = builder.insert_element(value, builder.load(address, align=4), _i32(lane))
    return value


def _store_lanes(context, builder, array_type, array, offset, row_step, column_step, value):
    addresses = _grid_addresses(context, builder, array_type, array, offset, row_step, column_step)
    for lane, address in enumerate(addresses):
        builder.store(builder.extract_element(value, _i32(lane)), address, align=4)


@intrinsic
def gather(typingctx, array, offset, stride):
    """array[offset + stride * lane], float32 or int32."""

    def generate(context, builder, sig, arguments):
        data, offset, stride = arguments
        return _load_lanes(context, builder, array, data, offset, builder.mul(stride, _i64(4)), stride)

    return Lanes(_kind_of(array))(array, types.int64, types.int64), generate


@intrinsic
def scatter(typingctx, array, offset, stride, x):
    """array[offset + stride * lane] = x."""

    def generate(context, builder, sig, arguments):
        data, offset, stride, value = arguments
        _store_lanes(context, builder, array, data, offset, builder.mul(stride, _i64(4)), stride, value)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, x), generate


@intrinsic
def load_grid(typingctx, array, offset, row_step, column_step):
    """array[offset + row * row_step + column * column_step] for the 4 x 4 rows and columns of the lanes."""

    def generate(context, builder, sig, arguments):
        return _load_lanes(context, builder, array, *arguments)

    return Lanes(_kind_of(array))(array, types.int64, types.int64, types.int64), generate


@intrinsic
def store_grid(typingctx, array, offset, row_step, column_step, x):
    """array[offset + row * row_step + column * column_step] = x."""

    def generate(context, builder, sig, arguments):
        _store_lanes(context, builder, array, *arguments)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, types.int64, x), generate


def _transpose4(builder, rows):
    """Four registers seen as four 4 x 4 matrices side by side (quarter j of register k is row k of matrix j):
    swaps "which register" and "which lane of the quarter"."""

    def shuffle(x, y, lanes):
        return builder.shuffle_vector(x, y, _lane_constants(lanes))

    quarters = range(0, LANES, 4)
    low = [i for q in quarters for i in (q, 16 + q, q + 1, 17 + q)]
    high = [i for q in quarters for i in (q + 2, 18 + q, q + 3, 19 + q)]
    a, b = shuffle(rows[0], rows[2], low), shuffle(rows[1], rows[3], low)
    c, d = shuffle(rows[0], rows[2], high), shuffle(rows[1], rows[3], high)
    return [shuffle(a, b, low), shuffle(a, b, high), shuffle(c, d, low), shuffle(c, d, high)]


@intrinsic
def load_grid4(typingctx, array, offset, row_step, column_step):
    """Four registers: load_grid at offset, offset + 1, offset + 2 and offset + 3."""
    four = ir.VectorType(_f32, 4)

    def generate(context, builder, sig, arguments):
        pieces = [
            builder.load(address, align=4)
            for address in _grid_addresses(context, builder, array, *arguments, vector=four)
        ]
        # Register k takes the pixels k, k + 4, k + 8, k + 12, so that its quarters are the four rows of the block.
        registers = []
        for column in range(4):
            a, b, c, d = (pieces[4 * row + column] for row in range(4))
            ab = builder.shuffle_vector(a, b, _lane_constants(range(8)))
            cd = builder.shuffle_vector(c, d, _lane_constants(range(8)))
            registers.append(builder.shuffle_vector(ab, cd, _lane_constants(range(16))))
        return _join(builder, _transpose4(builder, registers))

    return Lanes("f", 4)(array, types.int64, types.int64, types.int64), generate


@intrinsic
def store_grid4(typingctx, array, offset, row_step, column_step, x):
    """store_grid at offset + k of register k, for four registers."""
    four = ir.VectorType(_f32, 4)

    def generate(context, builder, sig, arguments):
        data, offset, row_step, column_step, value = arguments
        registers = _transpose4(builder, _split(builder, x, value))
        addresses = list(_grid_addresses(context, builder, array, data, offset, row_step, column_step, four))
        for row in range(4):
            for column in range(4):
                lanes = _lane_constants(range(4 * row, 4 * row + 4))
                piece = builder.shuffle_vector(registers[column], registers[column], lanes)
                builder.store(piece, addresses[4 * row + column], align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, types.int64, x), generate


# ------------------------------------------------------------------------------------------ masks and selected lanes
@intrinsic
def mask_bits(typingctx, mask):
    """The mask as an integer, lane 0 the lowest bit."""

    def generate(context, builder, sig, arguments):
        return builder.zext(builder.bitcast(arguments[0], _i16), _i64)

    return types.int64(mask), generate


@intrinsic
def mask_from_bits(typingctx, bits):
    """The mask whose lane k is bit k."""

    def generate(context, builder, sig, arguments):
        return builder.bitcast(builder.trunc(arguments[0], _i16), _mask)

    return Lanes("m")(types.int64), generate


@intrinsic
def has_bit(typingctx, x, k):
    """(x >> k) & 1 of int lanes, as a mask."""

    def generate(context, builder, sig, arguments):
        bit = _splat(builder, builder.shl(_i32(1), builder.trunc(arguments[1], _i32)), _ints)
        return builder.icmp_signed("!=", builder.and_(arguments[0], bit), _constant(0, _ints))

    return Lanes("m")(x, types.int64), generate


def _compress_by_intrinsic(builder, value, mask, address):
    undefined = ir.Constant(_ints, ir.Undefined)
    packed = _call(builder, "llvm.experimental.vector.compress.v16i32", _ints, [value, mask, undefined])
    builder.store(packed, builder.bitcast(address, _ints.as_pointer()), align=4)


def _compress_by_stores(builder, value, mask, address):
    """Writes every lane at the next free place, which advances only past selected ones."""
    place = _i32(0)
    for lane in range(LANES):
        builder.store(builder.extract_element(value, _i32(lane)), builder.gep(address, [place]), align=4)
        place = builder.add(place, builder.zext(builder.extract_element(mask, _i32(lane)), _i32))


def _compress_store(compress, doc):
    def operation(typingctx, array, offset, x, mask):
        def generate(context, builder, sig, arguments):
            data, offset, value, mask_value = arguments
            compress(builder, value, mask_value, _pointer(context, builder, array, data, offset))
            return builder.zext(builder.ctpop(builder.bitcast(mask_value, _i16)), _i64)

        return types.int64(array, types.int64, x, mask), generate

    operation.__doc__ = doc
    return intrinsic(operation)


_COMPRESS = """array[offset : offset + count] = x[mask] for int lanes; returns count.

It may overwrite up to 16 elements from offset on, whatever the count."""
compress_store_portable = _compress_store(_compress_by_stores, _COMPRESS)
# LLVM has an operation for it since version 19 (one instruction with AVX-512).
compress_store = (
    _compress_store(_compress_by_intrinsic, _COMPRESS)
    if binding.llvm_version_info[0] >= 19
    else compress_store_portable
)


# ------------------------------------------------------------------------------------- sums over lanes and channels
@intrinsic
def sum_registers(typingctx, x):
    """x.sum(0): the registers of x added up into one."""

    def generate(context, builder, sig, arguments):
        first, *others = _split(builder, x, arguments[0])
        for other in others:
            first = builder.fadd(first, other, flags=_FAST)
        return first

    return Lanes("f")(x), generate


@intrinsic
def add_products(typingctx, total, x, y):
    """total + (x * y).sum(0), for total of one register."""

    def generate(context, builder, sig, arguments):
        result, xs, ys = arguments
        for a, b in zip(_split(builder, x, xs), _split(builder, y, ys), strict=True):
            result = _fma(builder, a, b, result)
        return result

    return total(total, x, y), generate


def _sums_over_lanes(builder, registers):
    """Up to 16 registers -> one register whose lane j is the sum over the lanes of register j.

    Works like a transposition that adds on the way: each round takes the registers in pairs, puts the first halves of
    all groups of lanes into one register and the second halves into another, and adds those two. After four rounds
    one register is left; ``owner[lane]`` follows which sum ended up where.
    """
    undefined = ir.Constant(_floats, ir.Undefined)
    owners = [[j] * LANES for j in range(len(registers))]
    half = LANES // 2
    while half >= 1:
        first_halves, second_halves = [], []
        for group in range(0, LANES, 2 * half):
            for base in (group, LANES + group):
                first_halves += range(base, base + half)
                second_halves += range(base + half, base + 2 * half)
        added, added_owners = [], []
        for j in range(0, len(registers), 2):
            paired = j + 1 < len(registers)
            other, other_owner = (registers[j + 1], owners[j + 1]) if paired else (undefined, [-1] * LANES)
            one = builder.shuffle_vector(registers[j], other, _lane_constants(first_halves))
            two = builder.shuffle_vector(registers[j], other, _lane_constants(second_halves))
            added.append(builder.fadd(one, two, flags=_FAST))
            added_owners.append([(owners[j] + other_owner)[lane] for lane in first_halves])
        registers, owners, half = added, added_owners, half // 2
    order = [owners[0].index(j) if j in owners[0] else 0 for j in range(LANES)]
    return builder.shuffle_vector(registers[0], undefined, _lane_constants(order))


@intrinsic
def store_lane_sums(typingctx, array, offset, x):
    """array[offset : offset + n] = x.sum(1) for x of n = 4, 8, 12 or 16 registers."""
    n = x.registers
    vector = ir.VectorType(_f32, n)

    def generate(context, builder, sig, arguments):
        data, offset, value = arguments
        sums = _sums_over_lanes(builder, _split(builder, x, value))
        piece = builder.shuffle_vector(sums, sums, _lane_constants(range(n)))
        builder.store(piece, _pointer(context, builder, array, data, offset, vector), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, x), generate


@intrinsic
def add_weighted_numbers(typingctx, total, weight, array, offset):
    """total[k] += weight * array[offset + k], for every register k of total."""

    def generate(context, builder, sig, arguments):
        value, weight, data, offset = arguments
        registers = []
        for k, register in enumerate(_split(builder, total, value)):
            address = _pointer(context, builder, array, data, builder.add(offset, _i64(k)))
            number = _splat(builder, builder.load(address, align=4), _floats)
            registers.append(_fma(builder, weight, number, register))
        return _join(builder, registers)

    return total(total, weight, array, types.int64), generate


@intrinsic
def add_weighted_rows(typingctx, total, weight, array, offset, stride):
    """total[k] += weight * load(array, offset + k * stride), for every register k of total."""

    def generate(context, builder, sig, arguments):
        value, weight, data, offset, stride = arguments
        registers = []
        for register in _split(builder, total, value):
            row = builder.load(_pointer(context, builder, array, data, offset, _floats), align=4)
            registers.append(_fma(builder, weight, row, register))
            offset = builder.add(offset, stride)
        return _join(builder, registers)

    return total(total, weight, array, types.int64, types.int64), generate


@intrinsic
def four_products(typingctx, rows, offsets, stride, numbers, offset):
    """Register u: the sum over k < 4 of load(rows, offsets[u] + k * stride) * numbers[offset + k]."""

    def generate(context, builder, sig, arguments):
        row_data, row_offsets, stride, number_data, offset = arguments
        products = [[] for _ in offsets]
        for k in range(4):
            address = _pointer(context, builder, numbers, number_data, builder.add(offset, _i64(k)))
            number = _splat(builder, builder.load(address, align=4), _floats)
            for u in range(len(offsets)):
                at = builder.add(_offset(builder, offsets, row_offsets, u), builder.mul(stride, _i64(k)))
                row = builder.load(_pointer(context, builder, rows, row_data, at, _floats), align=4)
                if k < 2:
                    products[u].append(builder.fmul(row, number, flags=_FAST))
                else:
                    products[u][k - 2] = _fma(builder, row, number, products[u][k - 2])
        return _join(builder, [builder.fadd(first, second, flags=_FAST) for first, second in products])

    return Lanes("f", len(offsets))(rows, offsets, types.int64, numbers, types.int64), generate


# ------------------------------------------------------------------------------------- scalars and small pieces
@intrinsic
def get(typingctx, array, index):
    """array[index] for index >= 0, without the test for negative indices; small ints come as int64."""
    is_int = isinstance(array.dtype, types.Integer)
    widen = is_int and array.dtype.bitwidth < 64

    def generate(context, builder, sig, arguments):
        address = _pointer(context, builder, array, *arguments)
        value = builder.load(address, align=array.dtype.bitwidth // 8)
        if not widen:
            return value
        return builder.sext(value, _i64) if array.dtype.signed else builder.zext(value, _i64)

    return (types.int64 if widen else array.dtype)(array, types.int64), generate


@intrinsic
def put(typingctx, array, index, value):
    """array[index] = value for index >= 0, without the test for negative indices."""

    def generate(context, builder, sig, arguments):
        data, index, number = arguments
        number = context.cast(builder, number, sig.args[2], array.dtype)
        builder.store(number, _pointer(context, builder, array, data, index), align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, value), generate


def _four(change):
    """Operation on four float32 of two arrays: target[i : i + 4] = change(target[i : i + 4], source[j : j + 4])."""
    vector = ir.VectorType(_f32, 4)

    def operation(typingctx, target, i, source, j):
        def generate(context, builder, sig, arguments):
            to = _pointer(context, builder, target, arguments[0], arguments[1], vector)
            piece = builder.load(_pointer(context, builder, source, arguments[2], arguments[3], vector), align=4)
            builder.store(change(builder, to, piece), to, align=4)
            return context.get_dummy_value()

        return types.void(target, types.int64, source, types.int64), generate

    return operation


copy4 = intrinsic(_four(lambda builder, to, piece: piece))
add4 = intrinsic(_four(lambda builder, to, piece: builder.fadd(builder.load(to, align=4), piece)))


@intrinsic
def zero4(typingctx, array, offset):
    """array[offset : offset + 4] = 0."""
    vector = ir.VectorType(_f32, 4)

    def generate(context, builder, sig, arguments):
        address = _pointer(context, builder, array, *arguments, vector)
        builder.store(ir.Constant(vector, [0.0] * 4), address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@intrinsic
def prefetch(typingctx, array, offset):
    """Asks for the cache line of array[offset], which need not exist, ahead of its use."""

    def generate(context, builder, sig, arguments):
        address = builder.bitcast(_pointer(context, builder, array, *arguments), _i8.as_pointer())
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [address, _i32(0), _i32(3), _i32(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@intrinsic
def trailing_zeros(typingctx, bits):
    """Position of the lowest set bit of a number that is not 0."""

    def generate(context, builder, sig, arguments):
        return builder.cttz(arguments[0], ir.Constant(_i1, 1))

    return types.int64(types.int64), generate


@intrinsic
def atomic_add(typingctx, array, index, increment):
    """Adds to array[index] (int64) as one indivisible step; returns the value before."""

    def generate(context, builder, sig, arguments):
        address = _pointer(context, builder, array, arguments[0], arguments[1])
        return builder.atomic_rmw("add", address, arguments[2], "acq_rel")

    return types.int64(array, types.int64, types.int64), generate


@intrinsic
def atomic_get(typingctx, array, index):
    """array[index] (int64) as last written by any thread, and everything that thread had written before."""

    def generate(context, builder, sig, arguments):
        return builder.load_atomic(_pointer(context, builder, array, *arguments), "acquire", 8)

    return types.int64(array, types.int64), generate
