"""Encodings: how a matrix is stored is not how it is computed with.

A weight that the graph gives an encoding (``nm:2:4``, ``bitmap``, ``tiled-csl``, ``int4:g128``)
lies in main memory as *tiles*, each coded by itself into one run of bytes, as the mapper that reads
them cut it. The contract:

    encoding    ``encodings.encoding(name)`` gives an ``Encoding``: bytes of a tile as exact
                integers, ``encode`` to bytes, ``decode`` back to stored elements, every bit of a
                malformed run refused
    form        a coded operand descriptor has one row of ``row_bytes`` coded bytes, and its format
                column is ``CODED`` + i, where ``Program.forms[i]`` is the ``CodedForm``: encoding,
                number format, [rows, cols] of what it decodes to, and along which axis groups run.
                Wherever shapes and formats are looked at, a coded operand counts as that dense
                window. It may lie in any memory
    tiles       ``StorageInfo.encoding`` and ``tiles`` say where each tile of a coded tensor lies;
                only whole tiles are operands. ``mapping.coded.CodedLayouts`` lays them out
    copies      LOAD, STORE and multicasts of a coded operand move its bytes as they are
    reading     whoever else reads a coded operand gets what it decodes to, by one function
                (``functional.memory.Memory.values``): DECODE, or a MATMUL whose unit says
                ``decodes(encoding)``

Elements are seen as ``[lines, k]``: groups, indices and scales run along the reduction.
"""
