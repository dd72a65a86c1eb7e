"""The training tables of docs/performance.md, from the results: `python -m benchmarks.train_tables`."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.train_step import ROOT

RESULTS = ROOT / "benchmarks" / "results"
SCORES = {"fd_classifier": "Fréchet distance", "precision": "precision", "recall": "recall", "coverage": "coverage"}


def speed(results: list[dict[str, Any]]) -> str:
    lines = [
        "| case | plain loop | trainer | trainer / plain | peer's own script | plain / peer | trainer / peer |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        rates = result["images_per_second"]
        peer = f"{rates['peer']:.0f} (`{result['peer'].split(',')[0]}`)" if "peer" in rates else "not run"
        ratios = [told(result[key]) if key in result else "" for key in ("plain_to_peer", "ratio_to_peer")]
        lines.append(
            f"| `{result['case']}`, batch {result['batch_size']} | {rates['plain']:.0f} | {rates['trainer']:.0f} "
            f"| **{told(result['ratio_to_plain'])}** | {peer} | {ratios[0]} | {ratios[1]} |"
        )
    return "\n".join(lines)


def told(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})"


def quality(document: dict[str, Any]) -> str:
    lines = ["| path | seed | " + " | ".join(SCORES.values()) + " |", "|---|---|" + "---|" * len(SCORES)]
    for run in sorted(document["runs"], key=lambda run: (run["path"], run["seed"])):
        values = [next(value for name, value in run.items() if name.startswith(score)) for score in SCORES]
        lines.append(f"| {run['path']} | {run['seed']} | " + " | ".join(f"{value:.3g}" for value in values) + " |")
    return "\n".join(lines)


def memory(results: list[dict[str, Any]]) -> str:
    steps = list(results[0]["resident_mib_at_step"])
    lines = [
        "| case | image set | networks and optimizers | "
        + " | ".join(f"step {step}" for step in steps)
        + " | growth |",
        "|---|---|---|" + "---|" * (len(steps) + 1),
    ]
    for result in results:
        held = " | ".join(f"{mib:.1f}" for mib in result["resident_mib_at_step"].values())
        lines.append(
            f"| `{result['case']}` | {result['image_set_mib']} | {result['networks_and_optimizers_mib']} | {held} "
            f"| {result['growth_mib']:+.1f} MiB ({result['growth_percent']:+.2f} %) |"
        )
    return "\n".join(lines)


def main() -> None:
    for name, key, table in (
        ("train_step", "results", speed),
        ("train_quality", None, quality),
        ("train_memory", "results", memory),
    ):
        path = RESULTS / f"{name}.json"
        if path.is_file():
            document = json.loads(path.read_text())
            print(f"{name}:\n\n{table(document[key] if key else document)}\n")


if __name__ == "__main__":
    main()
