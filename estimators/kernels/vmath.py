"""exp, log, inverse root, and sine with cosine, as polynomials that a compiler vectorises; float64.

Reductions after Cody & Waite; the polynomials of log, sine and cosine are those of fdlibm (Sun Microsystems 1993), that of exp is
Taylor's to degree 13, which is below rounding on |r| <= log(2) / 2.
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
    """e^x; at most 2 ulp. Below -708 it stays at 3e-308; above 709, and where x is not a number, it is 8e307."""
    bits, unbits = be.bits, be.unbits
    C = [1 / math.factorial(n) for n in range(14)]
    c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13 = C[2:]

    @be.jit
    def exp(x):  # type: ignore[no-untyped-def]
        x = x if x < 709.0 else 709.0
        x = x if x > -708.0 else -708.0
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


def log(be: Backend) -> Function:
    """log x of a normal positive number; at most 1.5 ulp."""
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


def inverse_root(be: Backend) -> Function:
    """1 / sqrt x of a normal positive number, by Newton from the halved exponent; at most 3 ulp, without division or root."""
    bits, unbits = be.bits, be.unbits
    START, ONE = np.uint64(0x5FE6EB50C7B537A9), np.uint64(1)

    @be.jit
    def inverse_root(x):  # type: ignore[no-untyped-def]
        half = 0.5 * x
        y = unbits(START - (bits(x) >> ONE))
        y = y * (1.5 - half * y * y)
        y = y * (1.5 - half * y * y)
        y = y * (1.5 - half * y * y)
        y = y * (1.5 - half * y * y)
        return y + y * (0.5 - half * y * y)

    return inverse_root


def sincos_turns(be: Backend) -> Function:
    """(sin, cos)(2 pi u) for u in [0, 1); at most 4e-16."""
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
