"""Measure training, serving and evaluation, each against its counterparts: `make bench`.

    python -m benchmarks [training] [serving] [evaluation] [--data-root data] [--peer …/dcgan/main.py] [--quick]

Write bench.json (every ratio with its counterpart, spread, load and machine) and bench.md (the same as a table) into
benchmarks/results, next to each part's own results. What cannot be measured (no wrk, a peer that is not installed) is
one line, and the rest continues. After an interruption both files hold what was finished. Exit 1: something could not
be measured, or a target was missed.
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
from typing import Any

from benchmarks import harness, report

QUICK = harness.ROOT / "build" / "bench"
STOP_TIMEOUT = 60.0  # seconds for a part to end its servers and loops


@dataclass(frozen=True)
class Part:
    """A script, its options (`quick` ones for --quick), and the names of its result files."""

    module: str
    options: tuple[str, ...]
    quick: tuple[str, ...]
    results: tuple[str, ...]


ROUNDS, ONE_ROUND = ("--rounds", "3", "--seconds", "3"), ("--rounds", "1", "--seconds", "1")
PARTS = {
    "training": Part("benchmarks.training", ROUNDS, ONE_ROUND, ("train_step",)),
    "serving": Part("benchmarks.serving", ROUNDS, ONE_ROUND, ("serving", "serving_peers")),
    "evaluation": Part("benchmarks.evaluation", ("--rounds", "2"), ("--rounds", "1"), ("evaluation",)),
}


def main() -> None:
    """Measure the requested parts."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder of the downloaded datasets")
    peer = "a training script to compare with: see benchmarks.training"
    parser.add_argument("--peer", action="append", type=harness.existing_file, default=[], help=peer)
    parser.add_argument("--quick", action="store_true", help=f"one short round, into {QUICK.relative_to(harness.ROOT)}")
    parser.add_argument("--output", type=harness.folder_to_write, help="folder of the results")
    args = parser.parse_args()
    chosen = list(dict.fromkeys(args.parts or PARTS))
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise SystemExit(run(chosen, args, args.output or (QUICK if args.quick else harness.RESULTS)))


def run(chosen: list[str], args: argparse.Namespace, output: Path) -> int:
    """Measure the parts, write after each, and return the exit code."""
    began, before, machine = time.monotonic(), harness.load_average(), harness.describe_machine()
    documents: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    not_measured: dict[str, str] = {}

    def summarize() -> dict[str, Any]:
        """Return the results so far, and write them once there are any."""
        document = {
            "measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "quick": args.quick,
            "minutes": round((time.monotonic() - began) / 60, 1),
            "seconds_a_part": seconds,
            "machine": machine,
            "load_average": [before, harness.load_average()],
            "not_measured": not_measured,
            "rows": report.rows(documents),
        }
        if document["rows"]:
            harness.write(output / "bench.json", document)
            (output / "bench.md").write_text(report.page(document), encoding="utf-8")
        return document

    try:
        for index, name in enumerate(chosen, 1):
            print(f"[{index}/{len(chosen)}] {name}", flush=True)
            started = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    fault = measure(PARTS[name], args, Path(folder))
                finally:
                    collect(name, Path(folder), documents, not_measured)
                keep(PARTS[name], Path(folder), output)
            seconds[name] = round(time.monotonic() - started, 1)
            if fault:
                not_measured[name] = fault
                print(f"{name}: not measured: {fault}", file=sys.stderr, flush=True)
            document = summarize()
    except KeyboardInterrupt:
        kept = f"what was finished is in {output / 'bench.json'}" if summarize()["rows"] else "nothing was finished"
        print(f"\ninterrupted; {kept}", file=sys.stderr)
        return 130
    if document["rows"]:
        print(f"\n{report.page(document)}\n→ {output / 'bench.json'}, {output / 'bench.md'}")
    return int(bool(not_measured) or any(each["met"] is False for each in document["rows"]))


def measure(part: Part, args: argparse.Namespace, folder: Path) -> str | None:
    """Run a part in its own process, with its results in `folder`; return why there are none, or None."""
    command = [sys.executable, "-m", part.module, *(part.quick if args.quick else part.options)]
    command += ["--output", str(folder / f"{part.results[0]}.json")]
    if part.module == "benchmarks.training":
        command += ["--data-root", str(args.data_root.resolve())]
        command += [word for script in args.peer for word in ("--peer", str(script.resolve()))]
    with (folder / "errors.txt").open("w+b") as errors:
        # In its own process group, so that an interruption of the terminal is passed on once.
        process = subprocess.Popen(command, cwd=harness.ROOT, stderr=errors, process_group=0)
        try:
            process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
        errors.seek(0)
        lines = [line.strip() for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    if (folder / f"{part.results[0]}.json").is_file() and process.returncode in (0, 1):
        return None  # Its results list what could not be measured.
    if process.returncode < 0:
        return f"it was ended by {signal.Signals(-process.returncode).name}"
    return lines[-1] if lines else f"it ended with exit code {process.returncode}"


def collect(name: str, folder: Path, documents: dict[str, Any], not_measured: dict[str, str]) -> None:
    """Read a part's results, finished or not."""
    for result in PARTS[name].results:
        path = folder / f"{result}.json"
        if path.is_file():
            documents[result] = json.loads(path.read_text(encoding="utf-8"))
            for case, why in documents[result].get("failed", {}).items():
                not_measured[f"{name}, {case}"] = why


def keep(part: Part, folder: Path, output: Path) -> None:
    """Put a part's own results where its script writes them; earlier results that it did not measure again stay."""
    for name in part.results:
        path, kept = folder / f"{name}.json", output / f"{name}.json"
        measured = harness.read(path)
        if measured and report.rows({name: measured}):
            harness.write(kept, harness.read(kept) | measured)


if __name__ == "__main__":
    main()
