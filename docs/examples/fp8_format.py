"""A new number format in one entry: fp8 e3m4, stored by ml_dtypes, computed in fp32."""

from accelsim.numerics.formats import floating, register_format

register_format(floating("fp8_e3m4", 3, 4, "float8_e3m4", result_format="bf16"))
