"""Change sound files at random: bytes, tokens of text, values of JSON, parts of PNG and JPEG files."""

from __future__ import annotations

import json
import re
import struct
import zlib
from random import Random
from typing import Any

OUTSIDE = "../outside/secret"
"""Path that leaves the data folder; the folder beside it exists and has files of every kind with this name."""

NUMBERS = (
    "0", "-1", "1e308", "-1e400", "nan", "Infinity", "2147483648", "4294967296", "9223372036854775808", "1e-320",
    "46340", "100000000", "0.5", "9" * 5000, "1_0", "\u0663", "0x10", "00", "-0", "true", "null",
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "\x1b[2J", "a" * 5000, "\u202e", "\n", "é", "日本", "\ud800", "x/y", "\\", "..", OUTSIDE + ".png",
    "/etc/passwd", "C:\\a.png", "bolt", "%s", "{}", "NaN", "\\UFFFFFFFF", "&a", "*a", "<a>", "]]>", "&#0;", "&lol;",
)  # fmt: skip
TOKEN = re.compile(r'"[^"\n]*"|-?\d+\.?\d*|[A-Za-z_]+|[^\s\w]')
SIZES = (0, 1, 127, 255, 256, 32767, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def change_bytes(data: bytes, rng: Random) -> bytes:
    """One to four changes anywhere."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        position = rng.randrange(len(content) + 1)
        stop = min(position + rng.randint(1, 16), len(content))
        kind = rng.randrange(7)
        if kind == 0 and position < len(content):
            content[position] ^= 1 << rng.randrange(8)
        elif kind == 1 and position < len(content):
            content[position] = rng.randrange(256)
        elif kind == 2:
            del content[position:stop]
        elif kind == 3:
            content[position:position] = content[position:stop] * rng.choice((1, 2, 50))
        elif kind == 4:
            content[position:position] = rng.randbytes(rng.randint(1, 8))
        elif kind == 5:
            size, order = rng.choice((2, 4)), rng.choice(("little", "big"))
            number = rng.choice(SIZES) % 2 ** (8 * size)
            content[position : position + size] = number.to_bytes(size, order)  # type: ignore[arg-type]
        elif rng.random() < 0.3:
            del content[position:]
    return bytes(content)


def change_text(text: str, rng: Random) -> bytes:
    """Replace, double or remove one to three tokens; sometimes bytes after that."""
    for _ in range(rng.randint(1, 3)):
        tokens = list(TOKEN.finditer(text))
        if not tokens:
            break
        token = rng.choice(tokens)
        old, kind = token[0], rng.randrange(6)
        new = rng.choice(NUMBERS)
        if kind == 1:
            value = rng.choice(TEXTS)
            new = json.dumps(value, ensure_ascii=rng.random() < 0.5) if old.startswith('"') else value
        elif kind == 2:
            new = ""
        elif kind == 3:
            new = old + rng.choice((" ", ", ", "\n", "")) + old
        elif kind == 4:
            new = rng.choice(tokens)[0]
        elif kind == 5:
            depth = rng.choice((3, 30, 1200, 20_000))
            new = rng.choice(("[" * depth, "[" * depth + "]" * depth, "<a>" * depth, "{a: " * depth))
        text = text[: token.start()] + new + text[token.end() :]
    return damaged(text, rng)


def damaged(text: str, rng: Random) -> bytes:
    """The bytes of a text, in one of ten cases in another encoding or with changed bytes."""
    content = text.encode("utf-8", "surrogatepass")
    case = rng.randrange(40)
    if case == 0:
        return change_bytes(content, rng)
    if case == 1:
        return text.encode("utf-16", "surrogatepass")
    if case == 2:
        return b"\xef\xbb\xbf" + content
    if case == 3:
        position = rng.randrange(len(content) + 1)
        return content[:position] + rng.choice((b"\xff", b"\xe9", b"\0", b"\x82\xa0")) + content[position:]
    return content


def change_json(text: str, rng: Random) -> bytes:
    """Change one or two values or keys of a JSON text, and sometimes its bytes."""
    if rng.random() < 0.3:
        return change_text(text, rng)
    value = json.loads(text)
    holder = [value]
    for _ in range(rng.randint(1, 2)):
        places = list(_places(holder, 0))
        parent, key = rng.choice(places)
        kind = rng.randrange(5)
        if kind == 0 and isinstance(parent, dict):
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[rng.choice(("id", "bbox", "size", "", "x" * 500, "segments_info", "shapes"))] = parent.pop(key)
        elif kind == 2 and isinstance(parent[key], list):
            parent[key] = parent[key] * rng.choice((0, 2, 30))
        else:
            parent[key] = _odd_value(rng)
    result = json.dumps(holder[0], ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.05:  # a key of the whole text again
        key = rng.choice(list(re.finditer(r'"(\w+)": ', result)) or [None])  # type: ignore[list-item]
        if key is not None:
            result = result[: key.start()] + key[0] + "0, " + result[key.start() :]
    return damaged(result.replace('"@digits@"', "9" * 5000), rng)


def _places(value: Any, depth: int) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        if depth < 8:
            yield from _places(inner, depth + 1)


def _odd_value(rng: Random) -> Any:
    odd: list[Any] = [None, True, -1, 0, 2**31, 2**63, 1e308, -0.5, float("nan"), [], {}, "@digits@", 46340, 99999]
    odd += [[rng.choice((0, 1, -1, 1e9, "a", None)) for _ in range(rng.choice((1, 2, 4, 5)))]]
    if rng.random() < 0.1:
        deep: Any = 0
        for _ in range(rng.choice((5, 50, 600))):
            deep = [deep]
        return deep
    return rng.choice((rng.choice(odd), rng.choice(TEXTS)))


def change_image(data: bytes, rng: Random) -> bytes:
    """Change bytes, or parts of a PNG or JPEG, so that the rest stays valid."""
    case = rng.random()
    if data.startswith(b"\x89PNG") and case < 0.5:
        return _change_chunks(data, rng)
    if data.startswith(b"\xff\xd8") and case < 0.3:
        scan = data.rfind(b"\xff\xda")
        return data[:scan] + data[scan:-2] * rng.choice((2, 30, 400)) + data[-2:]
    if data[:1] == b"P" and case < 0.5:
        return change_text(data.decode("latin-1"), rng)
    return change_bytes(data, rng)


def _change_chunks(data: bytes, rng: Random) -> bytes:
    """One chunk of a PNG: doubled, removed, with another size in its header, or with other content; checksums match."""
    chunks, position = [], 8
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        chunks.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length
    index, kind = rng.randrange(len(chunks)), rng.randrange(6)
    name, content = chunks[index]
    if kind == 0:
        chunks[index:index] = [chunks[index]] * rng.choice((1, 3, 200))
    elif kind == 1:
        del chunks[index]
    elif kind == 2 and content:
        chunks[index] = name, change_bytes(content, rng)
    elif kind == 3:
        text = rng.choice((b"a\0\0", b"a\0\0\0\0\0\0")) + zlib.compress(bytes(rng.choice((10, 10**6, 7 * 10**6))))
        chunks.insert(
            rng.randrange(len(chunks)) or 1, (rng.choice((b"zTXt", b"iCCP", b"iTXt", b"eXIf", b"tEXt")), text)
        )
    elif kind == 4:
        name, content = chunks[0]
        sizes = struct.pack(">II", rng.choice((0, 1, 8, 30_000, 30_001, 2**31 - 1)), rng.choice((1, 3333, 10_000)))
        chunks[0] = name, sizes + content[8:]
    result = data[:8]
    for number, (name, content) in enumerate(chunks):
        length = rng.choice(SIZES) if kind == 5 and number == index else len(content)
        result += struct.pack(">I", length) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return result


def change_header(data: bytes, rng: Random) -> bytes:
    """A safetensors file with another JSON header of the right length."""
    if rng.random() < 0.3:
        return change_bytes(data, rng)
    stop = 8 + int.from_bytes(data[:8], "little")
    header = change_json(data[8:stop].decode(), rng)
    return len(header).to_bytes(8, "little") + header + data[stop:]
