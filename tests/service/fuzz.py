"""`python -m tests.service.fuzz --cases 5000`: schemathesis over /openapi.json, against a real service.

Every check but `positive_data_acceptance`, since a latent's width and a label's range are the model's, which the
schema cannot know. Exit code 1: a check failed, or fewer cases than asked for were run.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.service.real import ROOT, served
from tests.tiny_generator import write_tiny_generator

OPERATIONS = 12  # fewer than there are; the number of cases that came is checked


def fuzz(cases: int, seed: int = 1, workers: int = 2) -> tuple[int, int, str]:
    """(exit code, cases that were run, what schemathesis said)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_generator(folder / "models" / "tiny.onnx")
        write_tiny_generator(folder / "models" / "coloured.onnx", name="coloured", channels=3, num_classes=3)
        with served(folder / "models", folder / "log", ATELIER_ACCESS_LOG="off", ATELIER_DRAIN_S=0) as server:
            command = [
                *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/openapi.json"),
                *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
                *("--max-examples", str(max(1, cases // OPERATIONS)), "--seed", str(seed)),
                *("--workers", str(workers), "--generation-database", "none", "--no-color"),
            ]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            told = done.stdout + done.stderr
            if "Traceback" in server.log:
                return 1, 0, told + server.log
    found = re.search(r"(\d[\d,]*) generated", told)
    return done.returncode, int(found[1].replace(",", "")) if found else 0, told


def main() -> int:
    parser = argparse.ArgumentParser(description="schemathesis over /openapi.json, against a real service")
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    code, ran, told = fuzz(arguments.cases, arguments.seed)
    print(told)
    print(f"{ran} cases, {arguments.cases} asked for")
    return int(code != 0 or ran < arguments.cases)


if __name__ == "__main__":
    sys.exit(main())
