"""What strangers write, made harmless for terminals and for people who read logs."""

from typing import Final

_ODD: Final = (
    *range(0x7F, 0xA0),
    # They break lines, or turn the order of what is around them.
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
    # Half characters, which no file takes.
    *range(0xD800, 0xE000),
)

IN_JSON: Final = {code: f"\\u{code:04x}" for code in _ODD}
"""For ``str.translate``: what a JSON text may hold as it is, and a terminal should not."""

IN_TEXT: Final = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in (*range(32), *_ODD)
}
"""For ``str.translate``: what must not look like a line of its own, nor command a terminal."""
