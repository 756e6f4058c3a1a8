"""Makes new inputs of old ones: bytes of any format, JSON by its structure, text by its lines and words."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

# Sizes and counts at which readers go wrong: signs, powers of two, and their neighbours.
EDGES = [0, 1, 2, 3, 7, 8, 16, 31, 32, 33, 64, 127, 128, 255, 256, 1 << 15, 1 << 16, (1 << 31) - 1, 1 << 31]
EDGES += [(1 << 32) - 1, 1 << 32, 1 << 40, (1 << 53) + 1, 1 << 60, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
NUMBERS: list[Any] = [*EDGES, *(-each for each in EDGES[1:8]), -(1 << 63), 10**30, 0.0, -0.0, 0.5, 1e-320, 1e308]
NUMBERS += [float("nan"), float("inf"), float("-inf"), True, False, None]
WORDS = ["", " ", "0", "-1", "a", "..", "../x", "/etc/hostname", "a/b", "\0", "\n", "\x1b[31m", "\ud800", "가" * 40]
WORDS += ["x" * 300, "nan", "1e400", "-", "~", "~nobody/x", "%s{0}", "\u202e", "\ufeff", "9" * 40, "true", "null"]
CONTAINERS: list[Any] = [[], {}, [[]], [0], {"": 0}, [None, None], {"a": {"b": []}}, [[[[[[[[]]]]]]]]]
MOST_BYTES = 1 << 16  # of an input: larger ones take time and show nothing new


def mutate_bytes(draw: random.Random, data: bytes) -> bytes:
    """Changes a few places of any data: bits, bytes, numbers of 2 to 8 bytes, pieces that move, repeat or go."""
    new = bytearray(data)
    for _ in range(1 << draw.randrange(4)):
        draw.choice(BYTE_CHANGES)(draw, new)
    return bytes(new[:MOST_BYTES])


def _flip(draw: random.Random, data: bytearray) -> None:
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _byte(draw: random.Random, data: bytearray) -> None:
    if data:
        data[draw.randrange(len(data))] = draw.choice((0, 1, 0x20, 0x22, 0x2D, 0x7F, 0x80, 0xFF, draw.randrange(256)))


def _number(draw: random.Random, data: bytearray) -> None:
    code = draw.choice("BHIQ")
    size = struct.calcsize(code)
    if len(data) >= size:
        at = draw.randrange(len(data) - size + 1)
        if draw.randrange(2):
            at -= at % size
        value = draw.choice(
            (draw.choice(EDGES), -draw.choice(EDGES), len(data), len(data) - at, draw.randrange(1 << 16))
        )
        struct.pack_into("<" + code, data, at, value % (1 << 8 * size))


def _nudge(draw: random.Random, data: bytearray) -> None:
    """Adds a little to a number of 1 to 8 bytes."""
    size = draw.choice((1, 2, 4, 8))
    if len(data) >= size:
        at = draw.randrange(len(data) - size + 1)
        value = int.from_bytes(data[at : at + size], "little") + draw.choice((-8, -2, -1, 1, 2, 8))
        data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")


def _span(draw: random.Random, data: bytearray) -> slice:
    start = draw.randrange(len(data) + 1)
    return slice(start, min(len(data), start + (1 << draw.randrange(9))))


def _remove(draw: random.Random, data: bytearray) -> None:
    del data[_span(draw, data)]


def _repeat(draw: random.Random, data: bytearray) -> None:
    span = _span(draw, data)
    data[span.start : span.start] = bytes(data[span]) * draw.choice((1, 1, 2, 8))


def _move(draw: random.Random, data: bytearray) -> None:
    piece = bytes(data[_span(draw, data)])
    at = draw.randrange(len(data) + 1)
    data[at : at + len(piece)] = piece


def _insert(draw: random.Random, data: bytearray) -> None:
    at = draw.randrange(len(data) + 1)
    word = draw.choice(WORDS).encode("utf-8", "surrogatepass")
    data[at:at] = draw.choice((word, draw.randbytes(1 << draw.randrange(4)), bytes(1 << draw.randrange(5))))


def _cut(draw: random.Random, data: bytearray) -> None:
    del data[draw.randrange(len(data) + 1) :]


BYTE_CHANGES: Sequence[Callable[[random.Random, bytearray], None]]
BYTE_CHANGES = (_flip, _byte, _byte, _number, _number, _nudge, _remove, _repeat, _move, _insert, _cut)


def mutate_json(draw: random.Random, data: bytes) -> bytes:
    """Changes values, keys and the nesting of a JSON file; sometimes its bytes, as of any other file."""
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(draw, data)
    if draw.randrange(8) == 0:
        return mutate_bytes(draw, data)
    return dump(mutate_plain(draw, plain))[:MOST_BYTES]


def dump(plain: Any) -> bytes:
    return json.dumps(plain).encode()


def mutate_plain(draw: random.Random, plain: Any) -> Any:
    """Changes some places of plain data, of lists, mappings, texts and numbers, in place; returns what it became."""
    root = [plain]
    for _ in range(1 << draw.randrange(3)):
        holder, key = _place(draw, root)
        value = holder[key]
        change = draw.randrange(10)
        if change < 4:
            holder[key] = other_value(draw, value)
        elif change == 4 and holder is not root:
            del holder[key]
        elif change == 5 and isinstance(holder, dict):
            holder[draw.choice((*WORDS, *holder))] = holder.pop(key)
        elif change == 6:
            other, there = _place(draw, root)
            copied = json.loads(json.dumps(other[there]))
            holder[key] = copied
        elif change == 7 and isinstance(value, list) and value:
            value.append(draw.choice(value))
        elif change == 8 and isinstance(value, dict):
            value[draw.choice(WORDS)] = other_value(draw, None)
        else:
            holder[key] = draw.choice((value, [value], {"a": value}))
    return root[0]


def _place(draw: random.Random, root: list[Any]) -> tuple[Any, Any]:
    """Picks a place in nested data: a container, and the key or index in it."""
    holder: Any = root
    key: Any = 0
    while isinstance(holder[key], (list, dict)) and holder[key] and draw.randrange(6):
        holder = holder[key]
        key = draw.choice(list(holder)) if isinstance(holder, dict) else draw.randrange(len(holder))
    return holder, key


def other_value(draw: random.Random, value: Any) -> Any:
    """Returns something else than `value`: often of its type, sometimes of any."""
    if isinstance(value, (int, float)) and draw.randrange(3):
        near = [value + 1, value - 1, -value, value * 2, value // 2 if isinstance(value, int) else value / 3]
        return draw.choice((*near, draw.choice(NUMBERS)))
    if isinstance(value, str) and draw.randrange(3):
        at = draw.randrange(len(value) + 1)
        return draw.choice((value[:at], value[:at] + draw.choice(WORDS) + value[at:], draw.choice(WORDS), value * 3))
    picked = draw.choice((NUMBERS, WORDS, CONTAINERS))
    return json.loads(json.dumps(draw.choice(picked)))


def text_mutator(words: Sequence[str]) -> Callable[[random.Random, bytes], bytes]:
    """Returns a mutator for text: its lines move, repeat and go, and `words` of the format come in."""

    def mutate(draw: random.Random, data: bytes) -> bytes:
        if draw.randrange(5) == 0:
            return mutate_bytes(draw, data)
        lines = data.split(b"\n")
        for _ in range(1 << draw.randrange(3)):
            at = draw.randrange(len(lines))
            word = draw.choice((*words, *WORDS)).encode("utf-8", "surrogatepass")
            line, change = lines[at], draw.randrange(7)
            cut = draw.randrange(len(line) + 1)
            if change == 0 and len(lines) > 1:
                del lines[at]
            elif change == 1:
                lines.insert(draw.randrange(len(lines) + 1), line)
            elif change == 2:
                lines[at] = line[:cut] + word + line[cut:]
            elif change == 3:
                head, colon, _ = line.partition(b":")
                lines[at] = head + (colon or b": ") + b" " + word
            elif change == 4:
                lines[at] = draw.choice((b"  ", b"\t", b"- ", b"")) + line.lstrip()
            elif change == 5:
                lines.insert(at, word)
            else:
                lines[at] = line[:cut] + line[min(len(line), cut + draw.randrange(1, 9)) :]
        return b"\n".join(lines)[:MOST_BYTES]

    return mutate
