"""Names of files, folders and classes: one Unicode form, and nothing that a terminal acts on."""

from __future__ import annotations

import struct
import unicodedata
import zipfile

# Control characters, line and paragraph separators, direction marks, and bytes that are not UTF-8
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Joiners are part of words in several scripts and of emoji
_HARMLESS = {"\u200c", "\u200d", "\u00ad"}
_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075  # Info-ZIP's extra field with the UTF-8 form of a name


def printable(value: object) -> str:
    r"""Return text as one line without anything that a terminal acts on.

    A control character becomes an escape such as `\n` or `\x1b`. A byte of a name that is not UTF-8 becomes `\xe9`.
    """
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def class_name(folder: str) -> str:
    """Return the class that a folder's name means, in the composed Unicode form (NFC).

    macOS writes `é` as two code points on some file systems and Linux as one: both are one class.
    """
    return folder if folder.isascii() and folder.isprintable() else printable(unicodedata.normalize("NFC", folder))


def is_utf8(name: str) -> bool:
    """Return whether a file name was UTF-8 on its file system."""
    return not any("\udc80" <= character <= "\udcff" for character in name)


def zip_name(entry: zipfile.ZipInfo) -> tuple[str, bool]:
    """Return a zip member's name with `/` between folders, and whether its encoding is known.

    A name without the UTF-8 flag is CP437 by the format, but macOS and many libraries write UTF-8 without the flag.
    Old Windows tools separate folders by a backslash.
    """
    name = entry.filename
    if entry.flag_bits & _UTF8_FLAG or name.isascii():
        return name.replace("\\", "/"), True
    known = True
    if (found := _unicode_path(entry.extra)) is not None:
        name = found
    else:
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeEncodeError:  # zipfile has read the Unicode path field itself
            pass
        except UnicodeDecodeError:
            known = False
    return name.replace("\\", "/"), known


def _unicode_path(extra: bytes) -> str | None:
    """Return the name in Info-ZIP's Unicode path field (version 1, a CRC, then UTF-8), or None without one."""
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        if kind == _UNICODE_PATH and size > 5:
            return extra[9 : 4 + size].decode("utf-8", "replace")
        extra = extra[4 + size :]
    return None


def _shown(character: str) -> str:
    if character in _HARMLESS or unicodedata.category(character) not in _HIDDEN:
        return character
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
