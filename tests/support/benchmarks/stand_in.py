"""A part of `python -m benchmarks` that measures nothing: it copies the results it is given."""

import argparse
import shutil
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--results", type=Path, required=True)
parser.add_argument("--then", choices=["end", "fail", "give up", "wait"], default="end")
parser.add_argument("--output", type=Path, required=True)
args = parser.parse_args()
if args.then == "fail":
    print("a warning\nthe load generator is missing", file=sys.stderr)
    raise SystemExit(2)
shutil.copy(args.results, args.output)
if args.then == "wait":
    print("waiting", flush=True)
    time.sleep(60)
if args.then == "give up":
    raise SystemExit(1)
