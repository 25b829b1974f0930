"""What strangers write, made harmless for terminals and for people who read logs.

What goes is decided by Unicode's general categories, as ``str.isprintable`` has them: control
characters, marks that are not seen or turn the order of what is around them, half characters (no
file takes them), private and unassigned ones, and every separator but the space.
"""


def in_text(text: str, keep: str = "") -> str:
    """Return text that neither looks like a line of its own nor commands a terminal.

    Args:
        text: from anywhere.
        keep: characters that stay although they cannot be printed, such as a line feed.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode()
        for char in text
    )


def in_json(text: str) -> str:
    """Return a JSON text that means the same, and is harmless on a terminal.

    Args:
        text: JSON, which holds characters that cannot be printed in strings alone, but for the
            line feeds that lay it out.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else _in_json(ord(char)) for char in text
    )


def _in_json(code: int) -> str:
    if code > 0xFFFF:
        # RFC 8259, section 7: as the two halves of UTF-16.
        high, low = divmod(code - 0x10000, 0x400)
        return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
    return f"\\u{code:04x}"
