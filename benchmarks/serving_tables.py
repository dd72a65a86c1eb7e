"""The tables of docs/results/performance.md from the results of serving: python -m benchmarks.serving_tables"""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import Tables, conditions, show, table

NAMES = {
    "gan_atelier_npy": "GAN Atelier, npy",
    "gan_atelier_json_png": "GAN Atelier, PNG in JSON",
    "fastapi_torch_npy": "FastAPI + torch, npy",
    "bentoml_batchable_json": "BentoML's batchable endpoint, JSON",
}


def speed(result: dict[str, Any]) -> str:
    rows = []
    for name, g in result["generators"].items():
        bare, npy, document, alone = g["bare"], g["npy"], g["json"], g["alone"]
        rows.append([
            f"`{name}`",
            f"{bare['images_per_s']:.0f} images/s (batch {bare['batch']})",
            f"{npy['images_per_s']:.0f}, **{npy['ratio']:.2f}** of it",
            f"{document['images_per_s']:.0f}, **{document['ratio']:.2f}** of it",
            f"{npy['p50_ms']:.0f} / {npy['p99_ms']:.0f} ms",
            f"{alone['p50_ms']:.1f} / {alone['p99_ms']:.1f} ms",
            f"{alone['bare_ms']:.1f} ms",
        ])  # fmt: skip
    heads = ["generator", "bare loop", "npy", "PNG in JSON", "npy: p50 / p99", "alone, n=1: p50 / p99"]
    return table([*heads, "bare single run"], rows) + f"\n\n{conditions(result)}"


def peers(result: dict[str, Any]) -> str:
    presets = result["peers"]
    rows = []
    for key, name in NAMES.items():
        cells = (g[key] for g in presets.values())
        rows.append([name, *(f"{c['images_per_s']:.0f}, {c['p50_ms']:.0f} / {c['p99_ms']:.0f} ms" for c in cells)])
    return table(["", *(f"`{p}`: images/s, p50 / p99" for p in presets)], rows) + f"\n\n{conditions(result)}"


def overload(result: dict[str, Any]) -> str:
    rows = []
    for load in result["loads"]:
        counts = (load[key] for key in ("images_per_request", "status_200", "status_503", "others"))
        times = f"{load['idle_p50_ms']:.1f} ms", f"{load['first_after_ms']:.0f} ms", f"{load['back_to_idle_s']:.1f} s"
        rows.append([*map(str, counts), f"{load['goodput']:.2f}", f"{100 * load['growth']:+.2f} %", *times])
    heads = ["images a request", "200", "503", "others", "goodput of the best", "memory", "idle p50", "first after"]
    return table([*heads, "back to idle"], rows)


def soak(result: dict[str, Any]) -> str:
    early, late, growth = (x := result["early_mb"]), (y := result["late_mb"]), 100 * (y / x - 1)
    total = sum(result["answers"].values())
    return f"{total} requests in {result['minutes']:.0f} minutes; {early:.1f} MB, then {late:.1f} MB: {growth:+.2f} %."


TABLES: Tables = {"serving": speed, "serving_peers": peers, "serving_overload": overload, "serving_soak": soak}

if __name__ == "__main__":
    show(TABLES)
