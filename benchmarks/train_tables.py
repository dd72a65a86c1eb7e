"""The training tables of docs/results/performance.md, from the results: `python -m benchmarks.train_tables`."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import Tables, conditions, show, table
from benchmarks.rounds import told

SCORES = {"fd_classifier": "Fréchet distance", "precision": "precision", "recall": "recall", "coverage": "coverage"}


def speed(document: dict[str, Any]) -> str:
    rows = []
    for result in document["results"]:
        rates = result["images_per_second"]
        peer = f"{rates['peer']:.0f} (`{result['peer'].split(',')[0]}`)" if "peer" in rates else "not run"
        rows.append([
            f"`{result['case']}`, batch {result['batch_size']}", f"{rates['trainer']:.0f}", f"{rates['plain']:.0f}",
            f"**{told(result['ratio_to_plain'])}**", peer,
            told(result["ratio_to_peer"]) if "ratio_to_peer" in result else "",
        ])  # fmt: skip
    loads = [result["load_average"][0] for result in document["results"]]
    heads = ["case", "trainer, images/s", "plain loop", "ratio", "original script", "ratio"]
    where = (
        f"{conditions(document).removesuffix('.')}; load average {min(loads):.1f} to {max(loads):.1f} before a case."
    )
    return f"{table(heads, rows)}\n\n{where}"


def quality(document: dict[str, Any]) -> str:
    rows = []
    for run in sorted(document["runs"], key=lambda run: (run["path"], run["seed"])):
        values = [next(value for name, value in run.items() if name.startswith(score)) for score in SCORES]
        rows.append([run["path"], str(run["seed"]), *(f"{value:.3g}" for value in values)])
    where = (
        f"{document['machine']['cpu']}, {document['threads']} thread; fast: {document['fast_precision']}, plain: fp32."
    )
    return f"{table(['path', 'seed', *SCORES.values()], rows)}\n\n{where}"


def memory(document: dict[str, Any]) -> str:
    results = document["results"]
    first, *_, last = results[0]["resident_mib_at_step"]
    rows = [
        [
            *(f"`{result['case']}`", f"{result['image_set_mib']}", f"{result['networks_and_optimizers_mib']}"),
            *(f"{result['resident_mib_at_step'][step]:.1f}" for step in (first, last)),
            f"{result['growth_mib']:+.1f} MiB ({result['growth_percent']:+.2f} %)",
        ]
        for result in results
    ]
    return table(["case", "image set", "networks and optimizers", f"step {first}", f"step {last}", "growth"], rows)


def gpu(document: dict[str, Any]) -> str:
    """The parts of train_gpu.py that there are, each with its card."""
    rows = []
    if beside := document.get("beside"):
        rates = beside["images_per_second"]
        for kind in ("peer", "plain"):
            if kind in rates:
                name = f"`{beside['peer'].split(',')[0]}`, unmodified" if kind == "peer" else "plain loop in its style"
                rows.append([
                    f"`{beside['preset']}`, 64 px, batch {beside['batch_size']}", beside["machine"]["gpu"],
                    f"{rates['trainer']:,.0f} images/s", f"{name}: {rates[kind]:,.0f}",
                    f"**{told(beside[f'ratio_to_{kind}'])}**",
                ])  # fmt: skip
    if found := document.get("rates"):
        rates = found["images_per_second"]
        rows.append([
            f"`{found['preset']}`, batch {found['batch_size']}, steps alone", found["machine"]["gpu"],
            f"{rates['fast']:,.0f} images/s", f"float32, no graph, unfused: {rates['plain']:,.0f}",
            f"**{rates['fast'] / rates['plain']:.1f}**",
        ])  # fmt: skip
    if whole := document.get("whole"):
        rows.append([
            f"`{whole['preset']}`, all {whole['images'] / 1e6:.1f} M images", whole["machine"]["gpu"],
            f"{whole['images_per_second']:,.0f} images/s, **{whole['minutes_of_training']:.2f} min** "
            f"({whole['minutes_of_the_command']:.2f} for the command)", "", "",
        ])  # fmt: skip
    text = table(["what", "GPU", "trainer", "compared with", "ratio"], rows)
    if ends := document.get("lengths", {}).get("runs"):
        rows = [
            [
                *(f"`{run['preset']}`", run["gpu"], f"{run['kimg']:,.0f}", f"{run['seconds']:.0f} s"),
                *(f"{run['quality'][-1]['frechet']:.3g}", f"{run['quality'][-1]['recall']:.2f}"),
            ]
            for run in ends
        ]
        text += "\n\n" + table(["full length", "GPU", "kimg", "time", "cheap distance", "recall"], rows)
    return text


TABLES: Tables = {
    "train_step": speed,
    "train_step_bf16": speed,
    "train_quality": quality,
    "train_memory": memory,
    "train_gpu": gpu,
}

if __name__ == "__main__":
    show(TABLES)
