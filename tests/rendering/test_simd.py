"""Every operation of the vector layer against NumPy."""

import numpy as np
import pytest
from numba import njit

from som.rendering.cpu import simd
from som.rendering.cpu.simd import load, store

LANES = np.arange(16)
RANDOM = np.random.default_rng(0)


def floats(n=16, low=-3.0, high=3.0):
    return RANDOM.uniform(low, high, n).astype(np.float32)


def run1(operation, x):
    @njit
    def apply(x, out):
        store(out, 0, operation(load(x, 0)))

    out = np.zeros(16, np.float32)
    apply(x, out)
    return out


def run2(operation, x, y, out_type=np.float32):
    @njit
    def apply(x, y, out):
        store(out, 0, operation(load(x, 0), load(y, 0)))

    out = np.zeros(16, out_type)
    apply(x, y, out)
    return out


@pytest.mark.parametrize(
    "operation, expected",
    [
        (njit(lambda x: -x), lambda x: -x),
        (simd.absolute, np.abs),
        (simd.ceil, np.ceil),
        (njit(lambda x: simd.sqrt(simd.absolute(x))), lambda x: np.sqrt(np.abs(x))),
        (njit(lambda x: x * 2.0 + 1.0), lambda x: x * 2 + 1),
        (njit(lambda x: 1.0 - x), lambda x: 1 - x),
        (njit(lambda x: simd.where(x > 0.0, x, 5.0)), lambda x: np.where(x > 0, x, 5)),
        (njit(lambda x: simd.where((x > -1.0) & (x <= 1.0), x, 0.0)), lambda x: np.where((x > -1) & (x <= 1), x, 0)),
    ],
)
def test_elementwise_of_one(operation, expected):
    x = floats()
    np.testing.assert_allclose(run1(operation, x), expected(x), rtol=1e-6)


@pytest.mark.parametrize(
    "operation, expected",
    [
        (njit(lambda x, y: x + y), np.add),
        (njit(lambda x, y: x - y), np.subtract),
        (njit(lambda x, y: x * y), np.multiply),
        (njit(lambda x, y: x / y), np.divide),
        (simd.minimum, np.minimum),
        (simd.maximum, np.maximum),
        (njit(lambda x, y: simd.multiply_add(x, y, y)), lambda x, y: x * y + y),
        (njit(lambda x, y: simd.negative_multiply_add(x, y, y)), lambda x, y: y - x * y),
        (njit(lambda x, y: simd.where(x < y, x, y)), np.minimum),
        (njit(lambda x, y: simd.where(x >= y, x, y)), np.maximum),
    ],
)
def test_elementwise_of_two(operation, expected):
    x, y = floats(), floats()
    np.testing.assert_allclose(run2(operation, x, y), expected(x, y), rtol=1e-5, atol=1e-6)


def test_comparisons_with_nan_are_false():
    x = np.full(16, np.nan, np.float32)
    assert (run1(njit(lambda x: simd.where(x > 0.0, 1.0, 2.0)), x) == 2).all()
    assert (run1(njit(lambda x: simd.where(x <= 0.0, 1.0, 2.0)), x) == 2).all()
    assert (run1(njit(lambda x: simd.minimum(x, 4.0)), x) == 4).all()
    assert (run1(njit(lambda x: simd.maximum(x, 4.0)), x) == 4).all()


@pytest.mark.parametrize(
    "operation, expected, low, high, tolerance",
    [
        (simd.exp2, np.exp2, -125, 125, 4e-6),
        (simd.exp2, np.exp2, -8, 0, 4e-6),
        (simd.reciprocal, np.reciprocal, 1e-3, 1, 2e-7),
        (simd.reciprocal, np.reciprocal, 1e-30, 1e30, 2e-7),
        (njit(lambda x: simd.log2(x) + 200.0), lambda x: np.log2(x) + 200, 1e-30, 1e30, 1e-6),
        (njit(lambda x: simd.log2(x) + 10.0), lambda x: np.log2(x) + 10, 0.004, 1, 1e-6),
    ],
)
def test_transcendental(operation, expected, low, high, tolerance):
    for _ in range(20):
        x = floats(16, low, high)
        np.testing.assert_allclose(run1(operation, x), expected(x.astype(np.float64)), rtol=tolerance)


def test_several_registers_at_once():
    @njit
    def apply(x, out, number):
        both = load(x, (0, 20))
        both = simd.exp2(both * 2.0 + load(x, 4)) + simd.load_broadcast(number, (0, 1), 2)
        store(out, 0, both)
        store(out, 32, simd.sum_registers(both))
        a, b = simd.split(both)
        simd.store_at(out, (48, 80), simd.join((b, a)))

    x, number, out = floats(40), floats(4), np.zeros(100, np.float32)
    apply(x, out, number)
    want = np.stack([np.exp2(x[s : s + 16] * 2 + x[4:20]) + number[k + 2] for k, s in enumerate((0, 20))])
    np.testing.assert_allclose(out[:32].reshape(2, 16), want, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(out[32:48], want.sum(0), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(out[48:64], want[1], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(out[80:96], want[0], rtol=1e-5, atol=1e-4)


def test_constants():
    @njit
    def apply(out, ints):
        store(out, 0, simd.lane_columns())
        store(out, 16, simd.lane_rows())
        store(out, 32, simd.zeros(2))
        store(out, 64, simd.broadcast(2.5))
        store(ints, 0, simd.lane_numbers(7))
        store(ints, 16, simd.broadcast_int(-3))
        store(ints, 32, simd.to_int(simd.broadcast(9.9)))

    out, ints = np.ones(80, np.float32), np.zeros(48, np.int32)
    apply(out, ints)
    assert (out[:16] == LANES % 4).all() and (out[16:32] == LANES // 4).all()
    assert (out[32:64] == 0).all() and (out[64:] == 2.5).all()
    assert (ints[:16] == LANES + 7).all() and (ints[16:32] == -3).all() and (ints[32:] == 9).all()


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_strided_access(dtype):
    @njit
    def apply(a, out):
        simd.scatter(out, 1, 5, simd.gather(a, 2, 3))
        simd.store_grid(out, 100, 8, 2, simd.load_grid(a, 3, 17, 4))

    a, out = np.arange(100).astype(dtype), np.zeros(200, dtype)
    apply(a, out)
    np.testing.assert_array_equal(out[1 + 5 * LANES], a[2 + 3 * LANES])
    np.testing.assert_array_equal(out[100 + LANES // 4 * 8 + LANES % 4 * 2], a[3 + LANES // 4 * 17 + LANES % 4 * 4])


def test_four_channels_of_a_block_of_pixels():
    @njit
    def apply(a, out, copy):
        four = simd.load_grid4(a, 3, 50, 5)
        store(out, 0, four)
        simd.store_grid4(copy, 3, 50, 5, four)

    a, out, copy = floats(300), np.zeros(64, np.float32), np.zeros(300, np.float32)
    apply(a, out, copy)
    for k in range(4):
        places = 3 + k + LANES // 4 * 50 + LANES % 4 * 5
        np.testing.assert_array_equal(out[16 * k : 16 * k + 16], a[places])
        np.testing.assert_array_equal(copy[places], a[places])
    assert (copy != 0).sum() == 64


def test_masks():
    @njit
    def apply(x, bits, ints, out):
        bits[0] = simd.mask_bits(load(x, 0) > 0.0)
        store(out, 0, simd.where(simd.mask_from_bits(np.int64(0x1234)), 1.0, 0.0))
        store(out, 16, simd.where(simd.has_bit(load(ints, 0), np.int64(2)), 1.0, 0.0))
        store(ints, 16, simd.where_int(load(ints, 0) < 8, load(ints, 0), -1))

    x, bits, out = floats(), np.zeros(1, np.int64), np.zeros(32, np.float32)
    ints = np.concatenate([LANES, LANES]).astype(np.int32)
    apply(x, bits, ints, out)
    assert bits[0] == sum(1 << int(k) for k in LANES[x > 0])
    np.testing.assert_array_equal(out[:16], 0x1234 >> LANES & 1)
    np.testing.assert_array_equal(out[16:], LANES >> 2 & 1)
    np.testing.assert_array_equal(ints[16:], np.where(LANES < 8, LANES, -1))


@pytest.mark.parametrize("compress", [simd.compress_store, simd.compress_store_portable])
def test_compress(compress):
    @njit
    def apply(x, bits, out):
        return compress(out, 3, load(x, 0), simd.mask_from_bits(bits))

    x = RANDOM.integers(0, 1000, 16).astype(np.int32)
    for bits in (0, 1, 0x8000, 0xFFFF, 0x5A5A, *RANDOM.integers(0, 1 << 16, 50).tolist()):
        out = np.full(40, -1, np.int32)
        chosen = x[bits >> LANES & 1 == 1]
        assert apply(x, bits, out) == len(chosen)
        np.testing.assert_array_equal(out[3 : 3 + len(chosen)], chosen)
        assert (out[:3] == -1).all() and (out[19:] == -1).all()


def test_sums_over_lanes_and_channels():
    @njit
    def apply(x, numbers, out):
        four = load(x, (0, 16, 32, 48))
        simd.store_lane_sums(out, 0, four)
        twelve = load(x, (0, 16, 32, 48, 64, 80, 96, 112, 0, 16, 32, 48))
        simd.store_lane_sums(out, 8, twelve)
        eight = load(x, (0, 16, 32, 48, 64, 80, 96, 112))
        simd.store_lane_sums(out, 24, eight)
        store(out, 32, simd.add_weighted_numbers(simd.zeros(4), load(x, 0), numbers, 1))
        store(out, 96, simd.add_weighted_rows(simd.zeros(4), load(x, 0), x, 8, 20))
        store(out, 160, simd.four_products(x, (0, 5), 16, numbers, 2))
        store(out, 192, simd.add_products(load(x, 0), load(x, (16, 32)), load(x, (48, 64))))

    x, numbers, out = floats(128), floats(8), np.zeros(208, np.float32)
    rows = x.reshape(8, 16)
    apply(x, numbers, out)
    np.testing.assert_allclose(out[:4], rows[:4].sum(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out[8:20], np.concatenate([rows, rows[:4]]).sum(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out[24:32], rows.sum(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out[32:96].reshape(4, 16), numbers[1:5, None] * x[:16], rtol=1e-5)
    shifted = np.stack([x[8 + 20 * k : 24 + 20 * k] for k in range(4)])
    np.testing.assert_allclose(out[96:160].reshape(4, 16), shifted * x[:16], rtol=1e-5)
    np.testing.assert_allclose(out[192:], rows[0] + rows[1] * rows[3] + rows[2] * rows[4], rtol=1e-4, atol=1e-5)
    for u, start in enumerate((0, 5)):
        want = sum(x[start + 16 * k : start + 16 * k + 16] * numbers[2 + k] for k in range(4))
        np.testing.assert_allclose(out[160 + 16 * u : 176 + 16 * u], want, rtol=1e-4, atol=1e-5)


def test_scalars_and_pieces():
    @njit
    def apply(a, small, counter, out):
        simd.put(out, 0, simd.get(a, 3))
        simd.put(out, 1, simd.get(small, 2))
        simd.copy4(out, 4, a, 8)
        simd.copy4(out, 8, a, 8)
        simd.add4(out, 8, a, 12)
        simd.copy4(out, 12, a, 0)
        simd.zero4(out, 12)
        simd.prefetch(a, 1000)
        before = simd.atomic_add(counter, 1, 5)
        return before, simd.atomic_get(counter, 1), simd.trailing_zeros(np.int64(40))

    a, small, counter = floats(20), np.array([1, 2, 65535], np.uint16), np.array([0, 7], np.int64)
    out = np.ones(20, np.float32)
    assert apply(a, small, counter, out) == (7, 12, 3)
    assert out[0] == a[3] and out[1] == 65535
    np.testing.assert_array_equal(out[4:8], a[8:12])
    np.testing.assert_allclose(out[8:12], a[8:12] + a[12:16])
    assert (out[12:16] == 0).all()
