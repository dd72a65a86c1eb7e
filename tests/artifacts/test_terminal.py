"""Text on any terminal: old encodings, names with control characters, streams that fail or are closed."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys

import pytest

from artifacts.terminal import PrintableFormatter, SteadyFile, encodable, printable

PROGRAM = """
import sys
from artifacts.terminal import output_failure, prepare_streams, say
prepare_streams()
say("a \\u2192 b \\u2026 \\xe9 \\u6f22 \\x1b[31mred\\nnext \\udcff")
say("problem", error=True)
opened = open(sys.argv[1], "w")
print(opened.fileno() > 2, file=sys.stderr)
failure = output_failure()
print("lost" if failure else "written", file=sys.stderr)
"""


def run(tmp_path: object, redirect: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run PROGRAM with its streams redirected by a shell."""
    command = ["bash", "-c", f'"$@" {redirect}', "-", sys.executable, "-c", PROGRAM, f"{tmp_path}/file"]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, check=False)


def test_printable_plain_text_is_unchanged() -> None:
    assert printable("größe → 3 漢字 👩\u200d🔬 ±") == "größe → 3 漢字 👩\u200d🔬 ±"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("\u2028\u202egnp.exe", r"\u2028\u202egnp.exe"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("\ud800", r"\ud800"),
    ],
)
def test_printable_control_characters_become_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "iso-8859-1", "gbk", "utf-8"])
def test_encodable_any_encoding_never_raises(encoding: str) -> None:
    import codecs

    codecs.register_error("atelier-test", encodable)
    text = "".join(chr(number) for number in range(0x3000)) + "\ud800\udcff👩"
    text.encode(encoding, "atelier-test")


def test_encodable_ascii_keeps_the_meaning() -> None:
    import codecs

    codecs.register_error("atelier-test", encodable)
    assert "3 → 4 … ±2 é 漢".encode("ascii", "atelier-test") == b"3 -> 4 ... +-2 e ?"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "iso-8859-1"])
def test_prepare_streams_old_encoding_prints_all(tmp_path: object, encoding: str) -> None:
    done = run(tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert done.stdout.startswith(b"a -> b ")
    assert done.stdout.endswith(b"\\x1b[31mred\\nnext \\xff\n")
    assert done.stderr.split() == [b"problem", b"True", b"written"]


def test_prepare_streams_c_locale_without_utf8_prints_all(tmp_path: object) -> None:
    done = run(tmp_path, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0
    assert done.stdout.startswith(b"a -> b ...")


@pytest.mark.parametrize("redirect", [">&-", "<&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_prepare_streams_closed_keeps_numbers_free(tmp_path: object, redirect: str) -> None:
    done = run(tmp_path, redirect)
    assert done.returncode == 0
    if "2>" not in redirect:
        assert done.stderr.split() == [b"problem", b"True", b"written"]


def test_prepare_streams_full_disk_reports_lost_output(tmp_path: object) -> None:
    done = run(tmp_path, ">/dev/full")
    assert done.returncode == 0
    assert done.stderr.split() == [b"problem", b"True", b"lost"]


def test_prepare_streams_reader_gone_is_not_a_failure(tmp_path: object) -> None:
    done = run(tmp_path, "| true")
    assert done.stderr.split()[-1:] == [b"written"]


def test_steady_file_after_a_failure_discards_everything() -> None:
    readable, writable = os.pipe()
    os.close(readable)
    file = SteadyFile(writable)
    stream = io.TextIOWrapper(io.BufferedWriter(file), encoding="utf-8", write_through=True)
    for _ in range(3):
        stream.write("line\n" * 1000)
        stream.flush()
    os.close(writable)
    assert isinstance(file.failure, BrokenPipeError)


def test_steady_file_non_blocking_pipe_loses_nothing() -> None:
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    file = SteadyFile(writable)
    import threading

    taken: list[bytes] = []

    def read() -> None:
        while part := os.read(readable, 65536):
            taken.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    file.write(b"x" * 1_000_000)
    os.close(writable)
    reader.join(30)
    os.close(readable)
    assert len(b"".join(taken)) == 1_000_000


def test_log_lines_of_hostile_names_are_one_line() -> None:
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "%s is odd", ("a\n\x1b[2J",), None)
    assert PrintableFormatter("%(levelname)s: %(message)s").format(record) == r"WARNING: a\n\x1b[2J is odd"
