"""Names of files, folders and classes: one Unicode form, and nothing that a terminal acts on."""

from __future__ import annotations

import os
import struct
import sys
import unicodedata
import zipfile

from artifacts.terminal import printable

_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075  # Info-ZIP's extra field with the UTF-8 form of a name


def class_name(folder: str) -> str:
    """Return the class that a folder's name means, in the composed Unicode form (NFC).

    macOS writes `é` as two code points on some file systems and Linux as one: both are one class.
    """
    return folder if folder.isascii() and folder.isprintable() else printable(unicodedata.normalize("NFC", folder))


def file_name(name: str) -> str:
    """Return a name of the file system read as UTF-8, whatever the locale's encoding is.

    Under another locale Python reads `é` as two characters, so that classes and the hold-out would depend on it.
    """
    if name.isascii() or sys.getfilesystemencoding() == "utf-8":
        return name
    return os.fsencode(name).decode("utf-8", "surrogateescape")


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
