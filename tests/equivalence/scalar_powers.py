"""Functions made of fp32 additions and multiplications, one number at a time, by powers of two.

Written from what numerics.taylor states of ``powers-fp32``, without its code.
"""

import math

import scalar_numbers as num

from accelsim.program.opcodes import Function

LEAST, LN2 = 2.0**-126, math.log(2.0)


def fp32(value):
    return num.cast("fp32", value)


def functions_of(unit):
    """By Function code: what a unit of an architecture file computes."""
    terms = {"exp": 7, "reciprocal": 3, "rsqrt": 3} | unit.get("terms", {})
    steps = terms["reciprocal"]

    def power(t):
        n = round(t)  # to the nearest, ties to even
        f = num.add(t, -float(n))
        p = fp32(LN2 ** terms["exp"] / math.factorial(terms["exp"]))
        for k in range(terms["exp"] - 1, -1, -1):
            p = num.add(fp32(LN2**k / math.factorial(k)), num.mul(p, f))
        wide = math.ldexp(p, n)
        return 0.0 if wide < LEAST else fp32(wide)

    def exp(x):
        if x != x:
            return x
        return power(num.mul(min(max(x, -104.0), 104.0), fp32(1.0 / LN2)))

    def reciprocal(x):
        if x != x:
            return x
        size = abs(x)
        if size >= 2.0**126 or size < LEAST:
            return math.copysign(0.0 if size > 1 else math.inf, x)
        y = num.decode("fp32", 0x7EF311C3 - num.encode("fp32", size))
        for _ in range(steps):
            y = num.mul(y, num.add(2.0, -num.mul(size, y)))
        return math.copysign(y, x)

    def rsqrt(x):
        if x != x or x <= -LEAST:
            return num.NAN
        if x < LEAST:
            return math.inf
        if x == math.inf:
            return 0.0
        y = num.decode("fp32", 0x5F3759DF - (num.encode("fp32", x) >> 1))
        half = num.mul(x, 0.5)
        for _ in range(terms["rsqrt"]):
            y = num.mul(y, num.add(1.5, -num.mul(half, num.mul(y, y))))
        return y

    def gelu_tanh(x):
        if x != x:
            return x
        a = -2.0 * math.sqrt(2.0 / math.pi) / LN2
        inner = num.add(fp32(a), num.mul(fp32(0.044715 * a), num.mul(x, x)))
        most = fp32(104.0 / LN2)
        t = min(max(num.mul(x, inner), -most), most)
        return num.mul(x, reciprocal(num.add(1.0, power(t))))

    return {
        Function.EXP: exp, Function.RECIPROCAL: reciprocal, Function.RSQRT: rsqrt,
        Function.GELU_TANH: gelu_tanh,
    }  # fmt: skip
