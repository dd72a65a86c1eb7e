"""Images a second of a generator's float32 and int8 (or fp16) form, by batch size, threads and spinning, in one run.

    python -m benchmarks.export_speed models/mnist-dcgan.onnx [another.onnx …] [--optimize int8]

Of each generator file the faster form is made as `trainer export --optimize` makes it. The two take turns, round by
round, so that a machine whose speed drifts changes both alike; the ratio is the rounds' median. Beside the wall clock
stands the processor time of an image, which the machine's other work cannot flatter. With --preset the networks of a
preset are measured, never trained: speed does not depend on the weights. Results go to
benchmarks/results/export_speed.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from artifacts.resources import available_cpus
from trainer import networks
from trainer.config import loading
from trainer.onnx_export import exporter, optimize, quantize, throughput

RESULTS = Path(__file__).with_name("results") / "export_speed.json"


def untrained(preset: str) -> onnx.ModelProto:
    """The generator file of a preset's networks as they are initialised."""
    torch.manual_seed(0)
    config = loading.resolve(preset)
    model = exporter.to_onnx(networks.build(config)[0].eval())
    payload = {"counters": {"images_seen": 0}, "created": "2026-01-01T00:00:00+00:00"}
    exporter.describe(model, exporter.metadata(config, payload, f"{preset}-untrained"))
    return model


def turn(session: Any, feed: dict[str, np.ndarray], seconds: float) -> tuple[float, float]:
    """Images a second, and processor milliseconds an image."""
    runs, used, began = 0, time.process_time(), time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds or not runs:
        session.run(["images"], feed)
        runs += 1
    images = runs * len(feed["latents"])
    return images / elapsed, 1e3 * (time.process_time() - used) / images


def measure(sessions: dict[str, Any], feed: dict[str, np.ndarray], rounds: int, seconds: float) -> dict[str, Any]:
    plain, optimized = sessions
    for session in sessions.values():
        session.run(["images"], feed)
    taken: dict[str, list[tuple[float, float]]] = {kind: [] for kind in sessions}
    for index in range(rounds):
        for kind in sessions if index % 2 else reversed(list(sessions)):
            taken[kind].append(turn(sessions[kind], feed, seconds))
    told = {
        kind: {
            "images_per_s": statistics.median(rate for rate, _ in pairs),
            "cpu_ms_per_image": statistics.median(cpu for _, cpu in pairs),
        }
        for kind, pairs in taken.items()
    }
    both = list(zip(taken[plain], taken[optimized], strict=True))
    return {
        **told,
        "ratio": statistics.median(b[0] / a[0] for a, b in both),
        "cpu_ratio": statistics.median(a[1] / b[1] for a, b in both),
    }


def main() -> None:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # as a script its own folder is there
    from benchmarks.arguments import at_least_one, file_to_write, mistakes
    from benchmarks.machine import describe

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generators", type=Path, nargs="*", help="float32 generator files")
    parser.add_argument("--preset", action="append", default=[], help="measure a preset's untrained networks too")
    parser.add_argument("--optimize", choices=("int8", "fp16"), default="int8")
    parser.add_argument("--batches", type=at_least_one, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=at_least_one, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="a turn, at least")
    parser.add_argument("--output", type=file_to_write, default=RESULTS)
    args = parser.parse_args()

    with mistakes(parser):
        models = [optimize.read(path) for path in args.generators] + [untrained(preset) for preset in args.preset]
    if not models:
        parser.error("name a generator file, or a --preset")
    document: dict[str, Any] = {"optimize": args.optimize, "machine": describe(), "generators": {}}
    for plain in models:
        props = optimize.properties_of(plain)
        latent = (int(props["z_dim"]), props["z_distribution"], len(json.loads(props["class_names"])))
        if args.optimize == "int8":
            made = quantize.int8(plain, quantize.feeds(quantize.CALIBRATION_SEEDS, *latent))
        else:
            made = quantize.fp16(plain)
        found: dict[str, Any] = {"fp32_bytes": plain.ByteSize(), f"{args.optimize}_bytes": made.ByteSize()}
        settings = sorted({(1, False), (available_cpus(), False), (available_cpus(), True)})
        for threads, spinning in settings:
            sessions = {
                kind: throughput.session(model, threads=threads, spinning=spinning)
                for kind, model in (("fp32", plain), (args.optimize, made))
            }
            name = f"{threads} threads, {'spinning' if spinning else 'not spinning'}"
            found[name] = {}
            for batch in args.batches:
                (feed,) = quantize.feeds(range(batch), *latent, batch=batch)
                result = measure(sessions, feed, args.rounds, args.seconds)
                found[name][str(batch)] = result
                print(
                    f"{props['name']}, {name}, batch {batch}: {result['ratio']:.2f} times ({result['cpu_ratio']:.2f} "
                    f"by processor time), {result[args.optimize]['images_per_s']:,.0f} images/s",
                    flush=True,
                )
        document["generators"][props["name"]] = found
    document = json.loads(json.dumps(document), parse_float=lambda x: round(float(x), 3))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
