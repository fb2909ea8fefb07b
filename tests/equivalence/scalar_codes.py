"""Encodings of matrices, one element at a time and from their descriptions: a second opinion on
accelsim.encoding, with which it shares no code.

A matrix is a list of lines of bit patterns; groups and indices run along a line.
"""

import scalar_numbers as num

CSL_LINES, CSL_DEPTH, NOWHERE = 128, 64, 0xFFFF


def encoded(name, fmt, lines, kept):
    """The bytes of a matrix; ``kept`` says which elements are stored where groups do not."""
    family, *numbers = name.split(":")
    if family == "nm":
        return _nm(int(numbers[0]), int(numbers[1]), fmt, lines)
    if family == "bitmap":
        flags = [flag for line in kept for flag in line]
        pairs = zip((c for line in lines for c in line), flags, strict=True)
        stored = [code for code, flag in pairs if flag]
        return _bits(flags, 1) + _elements(fmt, stored)
    if family == "tiled-csl":
        return _csl(lines, kept)
    return _codes(int(family[3:]), int(numbers[0][1:]), fmt, lines)


def decoded(name, fmt, raw, count, k):
    """Rows of values of the bytes of ``count`` lines of ``k`` elements."""
    family, *numbers = name.split(":")
    if family == "nm":
        return _of_nm(int(numbers[0]), int(numbers[1]), fmt, raw, count, k)
    if family == "bitmap":
        head, size = -(-count * k // 8), num.size_of(fmt)
        flags, at = int.from_bytes(raw[:head], "little"), head
        lines = [[0.0 if fmt not in num.INTEGERS else 0] * k for _ in range(count)]
        for i in range(count * k):
            if flags >> i & 1:
                lines[i // k][i % k] = _value(fmt, raw[at : at + size])
                at += size
        assert at == len(raw)
        return lines
    if family == "tiled-csl":
        return _of_csl(fmt, raw, count, k)
    return _of_codes(int(family[3:]), int(numbers[0][1:]), fmt, raw, count, k)


def _value(fmt, raw):
    return num.decode(fmt, int.from_bytes(raw, "little"))


def _bits(numbers, width):
    """Numbers one behind the other from the lowest bit on, filled up to a byte."""
    total = sum(int(number) << (i * width) for i, number in enumerate(numbers))
    return total.to_bytes(-(-len(numbers) * width // 8), "little")


def _elements(fmt, codes):
    return b"".join(int(code).to_bytes(num.size_of(fmt), "little") for code in codes)


def _nm(n, m, fmt, lines):
    stored, places = [], []
    for line in lines:
        for first in range(0, len(line), m):
            group = line[first : first + m]
            order = sorted(range(m), key=lambda i: (-abs(num.decode(fmt, group[i])), i))
            for place in sorted(order[:n]):
                stored.append(group[place])
                places.append(place)
    return _elements(fmt, stored) + _bits(places, (m - 1).bit_length())


def _of_nm(n, m, fmt, raw, count, k):
    size, width = num.size_of(fmt), (m - 1).bit_length()
    stored = count * k // m * n
    places = int.from_bytes(raw[stored * size :], "little")
    zero = 0 if fmt in num.INTEGERS else 0.0
    lines = [[zero] * k for _ in range(count)]
    for i in range(stored):
        line, within = divmod(i, k // m * n)
        place = places >> (i * width) & ((1 << width) - 1)
        lines[line][within // n * m + place] = _value(fmt, raw[i * size : (i + 1) * size])
    return lines


def _corners(count, k):
    return [(a, b) for a in range(0, count, CSL_LINES) for b in range(0, k, CSL_DEPTH)]


def _csl(lines, kept):
    offsets, words = [0], []
    for top, left in _corners(len(lines), len(lines[0])):
        for i in range(top, min(top + CSL_LINES, len(lines))):
            for j in range(left, min(left + CSL_DEPTH, len(lines[0]))):
                if kept[i][j]:
                    row, column = i - top, j - left
                    place = row * CSL_DEPTH + (column ^ (row % 8 * 8))
                    words.append(place << 16 | int(lines[i][j]))
        while len(words) % 4:
            words.append(NOWHERE << 16)
        offsets.append(len(words))
    return b"".join(int(word).to_bytes(4, "little") for word in (*offsets, *words))


def _of_csl(fmt, raw, count, k):
    words = [int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), 4)]
    corners = _corners(count, k)
    head, zero = len(corners) + 1, 0 if fmt in num.INTEGERS else 0.0
    lines = [[zero] * k for _ in range(count)]
    for t, (top, left) in enumerate(corners):
        for word in words[head + words[t] : head + words[t + 1]]:
            place = word >> 16
            if place != NOWHERE:
                row, column = divmod(place, CSL_DEPTH)
                lines[top + row][left + (column ^ (row % 8 * 8))] = num.decode(fmt, word & 0xFFFF)
    return lines


def _codes(bits, group, fmt, lines):
    half, codes, scales = 1 << (bits - 1), [], []
    for line in lines:
        for first in range(0, len(line), group):
            values = [num.decode(fmt, code) for code in line[first : first + group]]
            n, d = max(abs(v) for v in values).as_integer_ratio()
            scale = num.nearest("fp16", 2 * n, d * (2**bits - 1)) if n else 0.0
            scales.append(num.encode("fp16", scale))
            p, q = scale.as_integer_ratio()
            for v in values:
                a, b = v.as_integer_ratio()
                codes.append(min(max(_nearest_integer(a * q, b * p), -half), half - 1) if p else 0)
    return _bits([code + half for code in codes], bits) + _elements("fp16", scales)


def _nearest_integer(n, d):
    """n / d, ties to even."""
    whole, rest = divmod(abs(n), d)
    whole += 2 * rest > d or (2 * rest == d and whole % 2 == 1)
    return -whole if n < 0 else whole


def _of_codes(bits, group, fmt, raw, count, k):
    head, groups, half = -(-count * k * bits // 8), -(-k // group), 1 << (bits - 1)
    codes = int.from_bytes(raw[:head], "little")
    lines = []
    for i in range(count):
        lines.append([])
        for j in range(k):
            at = head + 2 * (i * groups + j // group)
            scale = _value("fp16", raw[at : at + 2])
            code = (codes >> ((i * k + j) * bits) & ((1 << bits) - 1)) - half
            lines[-1].append(num.cast(fmt, code * scale))  # 8 and 11 bits: exact in a double
    return lines
