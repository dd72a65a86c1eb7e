"""Training step, service and evaluation, each beside its counterparts in turns, one after another: `make bench`.

    python -m benchmarks [training] [serving] [evaluation] [--data-root data] [--peer …/dcgan/main.py] [--quick]

Writes bench.json (every ratio with its counterpart, its lowest and highest, the load, the machine) and bench.md (the
same as a table, with the commands that fetch the peers) into benchmarks/results, and beside them what each part writes
by itself. What cannot be measured (no wrk, a peer that is not installed) is one line, and the rest goes on. When it is
interrupted, bench.json and bench.md hold what was finished. Exit 1: something could not be measured, or a target was
missed.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks import summary
from benchmarks.arguments import folder_to_write
from benchmarks.machine import describe, load_average
from benchmarks.markdown import RESULTS

ROOT = Path(__file__).resolve().parent.parent
QUICK = ROOT / "build" / "bench"
STOP_S = 60.0  # for a part to end its servers and loops


@dataclass(frozen=True)
class Part:
    """A script of its own, what it is told to keep within the time, and the results that it leaves."""

    module: str
    words: tuple[str, ...]
    quick: tuple[str, ...]
    results: tuple[str, ...]


PARTS = {
    "training": Part(
        "benchmarks.train_step",
        ("--rounds", "3", "--seconds", "3"),
        ("--rounds", "1", "--seconds", "1"),
        ("train_step",),
    ),
    "serving": Part(
        "benchmarks.serving",
        ("--rounds", "3", "--seconds", "3"),
        ("--rounds", "1", "--seconds", "1"),
        ("serving", "serving_peers"),
    ),
    "evaluation": Part(
        "benchmarks.evaluation",
        ("frechet", "inception", "metrics", "command", "score", "--rounds", "2"),
        ("frechet", "inception", "metrics", "command", "score", "--rounds", "1"),
        ("evaluation",),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="where the image sets are")
    parser.add_argument(
        "--peer",
        action="append",
        type=Path,
        default=[],
        help="a training script to run beside: see benchmarks.train_step",
    )
    parser.add_argument("--quick", action="store_true", help=f"one short round, into {QUICK.relative_to(ROOT)}")
    parser.add_argument("--output", type=folder_to_write, help="the folder of the results")
    args = parser.parse_args()
    chosen = list(dict.fromkeys(args.parts or PARTS))
    if strange := [name for name in chosen if name not in PARTS]:
        parser.error(f"there is no part {', '.join(strange)}; there are {', '.join(PARTS)}")
    for script in args.peer:
        if not script.is_file():
            parser.error(f"there is no script at {script}")
    signal.signal(signal.SIGTERM, interrupted)
    raise SystemExit(run(chosen, args, args.output or (QUICK if args.quick else RESULTS)))


def interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(chosen: list[str], args: argparse.Namespace, output: Path) -> int:
    """Measure the parts and write after each: the exit code."""
    began, before, machine = time.monotonic(), load_average(), describe()
    documents: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    not_measured: dict[str, str] = {}

    def write() -> dict[str, Any]:
        """What was found until now; into the files once there is anything."""
        told = {
            "measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "quick": args.quick,
            "minutes": round((time.monotonic() - began) / 60, 1),
            "seconds_a_part": seconds,
            "machine": machine,
            "load_average": [before, load_average()],
            "not_measured": not_measured,
            "rows": summary.rows(documents),
        }
        if told["rows"]:
            output.mkdir(parents=True, exist_ok=True)
            (output / "bench.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
            (output / "bench.md").write_text(summary.page(told), encoding="utf-8")
        return told

    for index, name in enumerate(chosen, 1):
        print(f"[{index}/{len(chosen)}] {name}", flush=True)
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                fault = measure(PARTS[name], args, Path(folder))
            except KeyboardInterrupt:
                collect(name, Path(folder), documents, not_measured)
                found = (
                    f"what was finished is in {output / 'bench.json'}" if write()["rows"] else "nothing was finished"
                )
                print(f"\ninterrupted; {found}", file=sys.stderr)
                return 130
            collect(name, Path(folder), documents, not_measured)
            keep(PARTS[name], Path(folder), output)
        seconds[name] = round(time.monotonic() - started, 1)
        if fault:
            not_measured[name] = fault
            print(f"{name}: not measured: {fault}", file=sys.stderr, flush=True)
        told = write()
    if told["rows"]:
        print(f"\n{summary.bench(told)}\n\n→ {output / 'bench.json'}, {output / 'bench.md'}")
    return int(bool(not_measured) or any(each["met"] is False for each in told["rows"]))


def measure(part: Part, args: argparse.Namespace, folder: Path) -> str | None:
    """Run a part in a process of its own, its results in `folder`; why there are none, in a line, or None."""
    words = [sys.executable, "-m", part.module, *(part.quick if args.quick else part.words)]
    words += ["--output", str(folder / f"{part.results[0]}.json")]
    if part.module.endswith(".train_step"):
        words += ["--data-root", str(args.data_root.resolve())]
        words += [word for script in args.peer for word in ("--peer", str(script.resolve()))]
    with (folder / "errors.txt").open("w+b") as errors:
        # a group of its own: an interruption of the terminal is ours to pass on, once
        process = subprocess.Popen(words, cwd=ROOT, stderr=errors, process_group=0)
        try:
            process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
        errors.seek(0)
        lines = [line.strip() for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    if (folder / f"{part.results[0]}.json").is_file() and process.returncode in (0, 1):
        return None  # what could not be measured of it is told in its results
    if process.returncode < 0:
        return f"it was ended by {signal.Signals(-process.returncode).name}"
    return lines[-1] if lines else f"it ended with exit code {process.returncode}"


def collect(name: str, folder: Path, documents: dict[str, Any], not_measured: dict[str, str]) -> None:
    """Read what a part left, finished or not."""
    for result in PARTS[name].results:
        path = folder / f"{result}.json"
        if path.is_file():
            documents[result] = json.loads(path.read_text(encoding="utf-8"))
            for case, why in documents[result].get("failed", {}).items():
                not_measured[f"{name}, {case}"] = why


def keep(part: Part, folder: Path, output: Path) -> None:
    """Put a part's own results where its script would have; what it did not measure anew stays."""
    for name in part.results:
        path, kept = folder / f"{name}.json", output / f"{name}.json"
        told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if told and summary.rows({name: told}):
            before = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
            output.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(before | told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
