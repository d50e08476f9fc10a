"""Escaping of characters that a terminal obeys instead of showing them: names of others must not move the cursor."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

#: Control characters (C0, DEL, C1), line and paragraph separators, bidi marks, embeddings, overrides and isolates,
#: and lone surrogates, which no encoding can write.
_UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_ANY = re.compile(f"[{_UNSAFE}]")


def visible(text: str) -> str:
    r"""Escape the characters of a name or line that a terminal would obey: `\x1b`, `\n`, `\u202e`."""
    return _ANY.sub(lambda match: _SHORT.get(match[0]) or _escape(match[0]), text)


def visible_lines(text: str) -> str:
    """Escape like `visible`, but keep the newlines of a text of several lines.

    A name in such a text is escaped before its line is composed, or its newlines would break the line.
    """
    return "\n".join(map(visible, text.split("\n")))


def visible_fields(value: Any) -> Any:
    """Escape every text in a value: in dataclasses, dicts with their keys, lists and tuples, however nested."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible_fields(key): visible_fields(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(visible_fields(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: visible_fields(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def visible_json(text: str) -> str:
    r"""Escape like `visible` in JSON, as `\u009b`; its value stays the same, and so do newlines between its tokens."""
    return _ANY.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)


_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # stands for a byte of a file name that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
