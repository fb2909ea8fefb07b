"""A new number format in one entry: fp8 e5m2, stored by ml_dtypes, computed in fp32."""

from accelsim.numerics.formats import Format, register_format

register_format(Format("fp8_e5m2", 8, "float8_e5m2", "<f4", significand_bits=3, min_exponent=-14))
