"""The tables of docs/performance.md, from the results of the serving benchmarks: python -m benchmarks.serving_tables"""

import json
from typing import Any

from benchmarks.serving_tools import ROOT

RESULTS = ROOT / "benchmarks" / "results"
NAMES = {
    "gan_atelier_npy": "GAN Atelier, npy",
    "gan_atelier_json_png": "GAN Atelier, PNG in JSON",
    "fastapi_torch_npy": "FastAPI + torch, npy",
    "bentoml_batchable_json": "BentoML's batchable endpoint, JSON",
}


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def speed(result: dict[str, Any]) -> list[str]:
    heads = [
        "generator",
        "bare loop",
        "npy",
        "PNG in JSON",
        "npy: p50 / p99",
        "alone, n=1: p50 / p99",
        "bare single run",
    ]
    lines = [row(*heads), "|---" * len(heads) + "|"]
    for name, g in result["generators"].items():
        bare, npy, document, alone = g["bare"], g["npy"], g["json"], g["alone"]
        lines.append(
            row(
                f"`{name}`",
                f"{bare['images_per_s']:.0f} images/s (batch {bare['batch']})",
                f"{npy['images_per_s']:.0f}, **{npy['ratio']:.2f}** of it",
                f"{document['images_per_s']:.0f}, **{document['ratio']:.2f}** of it",
                f"{npy['p50_ms']:.0f} / {npy['p99_ms']:.0f} ms",
                f"{alone['p50_ms']:.1f} / {alone['p99_ms']:.1f} ms",
                f"{alone['bare_ms']:.1f} ms",
            )
        )
    return lines


def peers(result: dict[str, Any]) -> list[str]:
    presets = result["peers"]
    lines = [row("", *(f"`{p}`: images/s, p50 / p99" for p in presets)), "|---" * (1 + len(presets)) + "|"]
    for key, name in NAMES.items():
        cells = (g[key] for g in presets.values())
        lines.append(row(name, *(f"{c['images_per_s']:.0f}, {c['p50_ms']:.0f} / {c['p99_ms']:.0f} ms" for c in cells)))
    return lines


def overload(result: dict[str, Any]) -> list[str]:
    heads = [
        "images a request",
        "200",
        "503",
        "others",
        "goodput of the best",
        "memory",
        "idle p50",
        "first after",
        "back to idle",
    ]
    lines = [row(*heads), "|---" * len(heads) + "|"]
    for load in result["loads"]:
        counts = (load[key] for key in ("images_per_request", "status_200", "status_503", "others"))
        times = f"{load['idle_p50_ms']:.1f} ms", f"{load['first_after_ms']:.0f} ms", f"{load['back_to_idle_s']:.1f} s"
        lines.append(row(*map(str, counts), f"{load['goodput']:.2f}", f"{100 * load['growth']:+.2f} %", *times))
    return lines


def soak(result: dict[str, Any]) -> list[str]:
    early, late, growth = (x := result["early_mb"]), (y := result["late_mb"]), 100 * (y / x - 1)
    total = sum(result["answers"].values())
    return [
        f"{total} requests in {result['minutes']:.0f} minutes; {early:.1f} MB, then {late:.1f} MB: {growth:+.2f} %."
    ]


def main() -> None:
    parts = {"serving": (speed,), "serving_peers": (peers,), "serving_overload": (overload,), "serving_soak": (soak,)}
    for name, tables in parts.items():
        if (path := RESULTS / f"{name}.json").is_file():
            result = json.loads(path.read_text())
            for table in tables:
                print("\n".join(table(result)), end="\n\n")


if __name__ == "__main__":
    main()
