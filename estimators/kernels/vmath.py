"""exp, log, inverse root, sine with cosine, and what follows from them, as polynomials that a compiler vectorises.

Reductions after Cody & Waite; in float64 the polynomials of log, sine and cosine are those of fdlibm (Sun Microsystems 1993), that
of exp is Taylor's to degree 13, which is below rounding on |r| <= log(2) / 2; in float32 those of Cephes (Moshier 1989).
"""

from __future__ import annotations

import math

import numpy as np

from estimators.kernels.backend import Backend, Function

LOG2_E = 1 / math.log(2)
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
ROUND = 1.5 * 2.0**52  # adding it leaves the nearest integer in the low bits
ROOT_HALF = np.uint64(0x3FE6A09E667F3BCD)
FRACTION = np.uint64(52)


def exp(be: Backend) -> Function:
    """e^x; at most 2 ulp. Below -708 it stays at 3e-308, above 709 at 8e307. In float32: -87, 88."""
    return _exp_single(be) if be.single else _exp_double(be)


def log(be: Backend) -> Function:
    """log x of a normal positive number; at most 1.5 ulp (float32: 2)."""
    return _log_single(be) if be.single else _log_double(be)


def inverse_root(be: Backend) -> Function:
    """1 / sqrt x of a normal positive number, from the halved exponent, without division or root; at most 3 ulp."""
    return _inverse_root_single(be) if be.single else _inverse_root_double(be)


def sincos_turns(be: Backend) -> Function:
    """(sin, cos)(2 pi u) for u in [0, 1); at most 4e-16 (float32: 3e-7)."""
    return _sincos_single(be) if be.single else _sincos_double(be)


def log1p(be: Backend) -> Function:
    """log(1 + y) for y >= 0: the logarithm of the rounded sum, and what the rounding lost."""
    R, log_ = be.real, log(be)
    ONE = R(1)

    @be.jit
    def log1p(y):  # type: ignore[no-untyped-def]
        u = ONE + y
        return log_(u) - ((u - ONE) - y) / u

    return log1p


def sigmoid(be: Backend) -> Function:
    """1 / (1 + e^-x)."""
    R, exp_ = be.real, exp(be)
    ONE = R(1)

    @be.jit
    def sigmoid(x):  # type: ignore[no-untyped-def]
        return ONE / (ONE + exp_(-x))

    return sigmoid


def softplus(be: Backend) -> Function:
    """log(1 + e^x)."""
    R, exp_, log1p_ = be.real, exp(be), log1p(be)
    ZERO = R(0)

    @be.jit
    def softplus(x):  # type: ignore[no-untyped-def]
        return (x if x > ZERO else ZERO) + log1p_(exp_(-abs(x)))

    return softplus


def _exp_double(be: Backend) -> Function:
    bits, unbits = be.bits, be.unbits
    C = [1 / math.factorial(n) for n in range(14)]
    c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13 = C[2:]

    @be.jit
    def exp(x):  # type: ignore[no-untyped-def]
        x = 709.0 if x > 709.0 else x
        x = -708.0 if x < -708.0 else x
        z = x * LOG2_E + ROUND
        n = z - ROUND
        r = (x - n * LN2_HIGH) - n * LN2_LOW
        r2 = r * r
        r4 = r2 * r2
        low = (c2 + r * c3) + r2 * (c4 + r * c5)
        high = (c6 + r * c7) + r2 * (c8 + r * c9) + r4 * ((c10 + r * c11) + r2 * (c12 + r * c13))
        p = 1.0 + (r + r2 * (low + r4 * high))
        return unbits(bits(p) + (bits(z) << FRACTION))

    return exp


def _log_double(be: Backend) -> Function:
    bits, unbits = be.bits, be.unbits

    @be.jit
    def log(x):  # type: ignore[no-untyped-def]
        ix = bits(x)
        k = np.int64(ix - ROOT_HALF) >> np.int64(52)
        f = unbits(ix - (np.uint64(k) << FRACTION)) - 1.0
        n = np.float64(k)
        s = f / (2.0 + f)
        z = s * s
        w = z * z
        even = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01))
        odd = z * (
            6.666666666666735130e-01
            + w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01))
        )
        half = 0.5 * f * f
        return n * LN2_HIGH - ((half - (s * (half + (even + odd)) + n * LN2_LOW)) - f)

    return log


def _inverse_root_double(be: Backend) -> Function:
    bits, unbits = be.bits, be.unbits
    START, ONE = np.uint64(0x5FE6EB50C7B537A9), np.uint64(1)

    @be.jit
    def inverse_root(x):  # type: ignore[no-untyped-def]
        half = 0.5 * x
        y = unbits(START - (bits(x) >> ONE))
        h = x * y * y
        y = y * (1.875 - h * (1.25 - 0.375 * h))
        h = x * y * y
        y = y * (1.875 - h * (1.25 - 0.375 * h))
        return y + y * (0.5 - half * y * y)

    return inverse_root


def _sincos_double(be: Backend) -> Function:
    bits, unbits = be.bits, be.unbits
    ONE, TWO, SIGN = np.uint64(1), np.uint64(2), np.uint64(62)

    @be.jit
    def sincos(u):  # type: ignore[no-untyped-def]
        q = 4.0 * u + ROUND
        quarter = bits(q)
        r = (4.0 * u - (q - ROUND)) * 1.5707963267948966
        z = r * r
        sine = r + r * z * (
            -1.66666666666666324348e-01
            + z
            * (
                8.33333333332248946124e-03
                + z
                * (
                    -1.98412698298579493134e-04
                    + z
                    * (2.75573137070700676789e-06 + z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10))
                )
            )
        )
        cosine = (
            1.0
            - 0.5 * z
            + z
            * z
            * (
                4.16666666666666019037e-02
                + z
                * (
                    -1.38888888888741095749e-03
                    + z
                    * (
                        2.48015872894767294178e-05
                        + z
                        * (
                            -2.75573143513906633035e-07
                            + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11)
                        )
                    )
                )
            )
        )
        swap = (quarter & ONE) != np.uint64(0)
        s, c = (cosine, sine) if swap else (sine, cosine)
        s_sign = (quarter & TWO) << SIGN
        c_sign = ((quarter + ONE) & TWO) << SIGN
        return unbits(bits(s) ^ s_sign), unbits(bits(c) ^ c_sign)

    return sincos


def _exp_single(be: Backend) -> Function:
    R, bits, unbits = be.real, be.bits, be.unbits
    HIGH, LOW, TURN, LOG2E = R(88.0), R(-87.0), R(1.5 * 2.0**23), R(LOG2_E)
    LN2_1, LN2_2 = R(0.693359375), R(-2.12194440e-4)
    A, B, C, D, E, F = (
        R(c)
        for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
    )
    ONE, SHIFT = R(1), np.uint32(23)

    @be.jit
    def exp(x):  # type: ignore[no-untyped-def]
        x = HIGH if x > HIGH else x
        x = LOW if x < LOW else x
        z = x * LOG2E + TURN
        n = z - TURN
        r = (x - n * LN2_1) - n * LN2_2
        p = ((((A * r + B) * r + C) * r + D) * r + E) * r + F
        y = p * (r * r) + r + ONE
        return unbits(np.uint32(bits(y) + np.uint32(bits(z) << SHIFT)))

    return exp


def _log_single(be: Backend) -> Function:
    R, bits, unbits = be.real, be.bits, be.unbits
    ROOT, SHIFT = np.uint32(0x3F3504F3), np.uint32(23)
    A, B, C, D, E, F, G, H, I_ = (
        R(c)
        for c in (
            7.0376836292e-2,
            -1.1514610310e-1,
            1.1676998740e-1,
            -1.2420140846e-1,
            1.4249322787e-1,
            -1.6668057665e-1,
            2.0000714765e-1,
            -2.4999993993e-1,
            3.3333331174e-1,
        )
    )
    LN2_1, LN2_2, HALF, ONE = R(0.693359375), R(-2.12194440e-4), R(0.5), R(1)

    @be.jit
    def log(x):  # type: ignore[no-untyped-def]
        ix = bits(x)
        k = np.int32(np.uint32(ix - ROOT)) >> np.int32(23)
        f = unbits(np.uint32(ix - np.uint32(np.uint32(k) << SHIFT))) - ONE
        n = R(k)
        z = f * f
        p = (((((((A * f + B) * f + C) * f + D) * f + E) * f + F) * f + G) * f + H) * f + I_
        y = p * f * z + n * LN2_2 - HALF * z
        return f + y + n * LN2_1

    return log


def _inverse_root_single(be: Backend) -> Function:
    R, bits, unbits = be.real, be.bits, be.unbits
    START, SHIFT, HALF, MOST = np.uint32(0x5F3759DF), np.uint32(1), R(0.5), R(1.5)

    @be.jit
    def inverse_root(x):  # type: ignore[no-untyped-def]
        half = HALF * x
        y = unbits(np.uint32(START - np.uint32(bits(x) >> SHIFT)))
        y = y * (MOST - half * y * y)
        y = y * (MOST - half * y * y)
        return y * (MOST - half * y * y)

    return inverse_root


def _sincos_single(be: Backend) -> Function:
    R, bits, unbits = be.real, be.bits, be.unbits
    TURN, FOUR, QUARTER, ONE, HALF = R(1.5 * 2.0**23), R(4), R(1.5707963267948966), R(1), R(0.5)
    S1, S2, S3 = R(-1.6666654611e-1), R(8.3321608736e-3), R(-1.9515295891e-4)
    C1, C2, C3 = R(4.166664568298827e-2), R(-1.388731625493765e-3), R(2.443315711809948e-5)
    UNIT, TWO, SIGN, NONE = np.uint32(1), np.uint32(2), np.uint32(30), np.uint32(0)

    @be.jit
    def sincos(u):  # type: ignore[no-untyped-def]
        q = FOUR * u + TURN
        quarter = bits(q)
        r = (FOUR * u - (q - TURN)) * QUARTER
        z = r * r
        sine = r + r * z * (S1 + z * (S2 + z * S3))
        cosine = ONE - HALF * z + z * z * (C1 + z * (C2 + z * C3))
        swap = np.uint32(quarter & UNIT) != NONE
        s, c = (cosine, sine) if swap else (sine, cosine)
        s_sign = np.uint32(np.uint32(quarter & TWO) << SIGN)
        c_sign = np.uint32(np.uint32(np.uint32(quarter + UNIT) & TWO) << SIGN)
        return unbits(np.uint32(bits(s) ^ s_sign)), unbits(np.uint32(bits(c) ^ c_sign))

    return sincos
