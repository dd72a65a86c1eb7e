"""The evaluation beside its peers, pytorch-fid and torch-fidelity, on the same inputs and machine, in one run.

    python benchmarks/evaluation.py frechet inception metrics command score memory [--rounds 3] [--images 50000]

`frechet`: the distance at 2048 features, at full rank and at singular covariances (1,000 images, and 2,000, which is
the slowest case). There the right answer comes from the features themselves, and identical inputs should give 0.
`inception`: features with the same seeded random weights, 32 px images in memory: pytorch-fid's network beside an
extractor file with the `torch` resize, torch-fidelity's beside one with `tf1`; how far apart the features are; and, in
the same turns, a plain float32 matrix product: what share of the machine's arithmetic each reaches, which is what
bounds the ratio.
`metrics`: FID, KID, IS, precision and recall of the same 3,000 images' features, beside torch-fidelity's.
`command`: `evaluation score` as a whole beside torch-fidelity's `fidelity`, on the same two folders of PNGs with the
same random weights: five metrics, start-up and all.
`score`: scoring 10,000 images of a service with a classifier, beside generating and extracting each alone.
`memory`: the peak of a job's memory, with the Fréchet distance alone and with every metric (--images of 64 px).

All take turns, so that a machine whose speed drifts changes all alike; ratios are the rounds' own. Each sub-benchmark
replaces its own part of benchmarks/results/evaluation.json when it is done; one that cannot be run is told in a line,
and the others go on. Exit 1: one could not be run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

# A script's folder comes first among Python's paths, and there `evaluation` is this file.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

RESULTS = Path(__file__).with_name("results") / "evaluation.json"
MODULES = {
    "frechet": "evaluation_frechet",
    "inception": "evaluation_inception",
    "metrics": "evaluation_metrics",
    "command": "evaluation_command",
    "score": "evaluation_job",
    "memory": "evaluation_job",
}


def benchmark(name: str) -> Callable[[int], dict[str, Any]]:
    """Takes the rounds (`memory`: the images). What it needs is imported now, so that a lack of it is its own."""
    return getattr(import_module(f"benchmarks.{MODULES[name]}"), name)


def main() -> None:
    from benchmarks.arguments import at_least_one, file_to_write
    from benchmarks.attempts import attempt
    from benchmarks.machine import describe, load_average

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", metavar="NAME", help=f"{', '.join(MODULES)}; default: all")
    parser.add_argument("--rounds", type=at_least_one, default=3)
    parser.add_argument("--images", type=int, default=10_000, help="of `memory`")
    parser.add_argument("--output", type=file_to_write, default=RESULTS)
    arguments = parser.parse_args()
    chosen = arguments.benchmarks or list(MODULES)
    if strange := set(chosen) - set(MODULES):
        parser.error(f"there is no benchmark {', '.join(sorted(strange))}; there are {', '.join(MODULES)}")
    document: dict[str, Any] = (
        json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.is_file() else {}
    )
    document["failed"] = failed = {}
    for name in chosen:
        with attempt(name, failed):
            about = describe()
            found = benchmark(name)(arguments.images if name == "memory" else arguments.rounds)
            document[name] = {"machine": about, **found, "load_average": [about["load_average_before"], load_average()]}
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"→ {arguments.output}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
