"""How long `trainer train FOLDER` looks at photos before it trains, and how much memory that takes.

    python -m benchmarks.look [--photos 5000] [--different 200] [--folder DIR] [--output FILE.json]

It makes a folder of synthetic JPEGs of 12 megapixels, `--different` files of which the others are hard links, and runs
`trainer train FOLDER --dry-run` on two cores with an empty cache of images and extractors, then again with the cache.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import harness

SIZE = (4032, 3024)
OCTAVES = ((4, 60.0), (16, 40.0), (63, 18.0), (252, 12.0), (1008, 9.0))  # rows of noise, and its strength
CORES = 2


def write_photo(path: Path, seed: int) -> None:
    """Write a JPEG of 12 megapixels: noise of several scales, about 3 MB as a photo has."""
    rng = np.random.default_rng(seed)
    pixels = np.full((SIZE[1], SIZE[0], 3), 128.0, np.float32)
    for rows, strength in OCTAVES:
        channels = 3 if rows < 63 else 1
        for channel in range(channels):
            noise = rng.normal(0, strength, (rows * 3 // 4, rows)).astype(np.float32)
            layer = np.asarray(Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC))
            if channels == 3:
                pixels[..., channel] += layer
            else:
                pixels += layer[..., None]
    pixels += rng.normal(0, 4, pixels.shape[:2])[..., None]
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def write_photos(folder: Path, count: int, different: int) -> None:
    """Write `different` photos, and link them until there are `count` files; existing files are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:05}.jpg"
        if path.exists():
            continue
        if number < different:
            write_photo(path, number)
        else:
            os.link(folder / f"{number % different:05}.jpg", path)


def look(folder: Path, cache: Path) -> dict[str, Any]:
    """Run the command on two cores; return its seconds, CPU seconds and peak memory."""
    command = [sys.executable, "-m", "trainer", "train", str(folder), "--dry-run"]
    environment = os.environ | {"ATELIER_CACHE": str(cache)}
    cores = set(sorted(os.sched_getaffinity(0))[:CORES])
    began = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        errors.seek(0)
        text = errors.read()
    if status:
        raise SystemExit(text)
    print(text, flush=True)
    cpu = usage.ru_utime + usage.ru_stime
    return {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "peak_mb": round(usage.ru_maxrss / 1024)}


def main() -> None:
    """Measure with an empty cache and with a full one."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.look", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=5000, help="number of files")
    parser.add_argument("--different", type=int, default=200, help="number of different photos")
    parser.add_argument("--folder", type=Path, help="folder of the photos, which is kept; default: a temporary one")
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "look.json", help="the file of the results")
    args = parser.parse_args()
    before = harness.load_average()
    with tempfile.TemporaryDirectory() as temporary:
        folder, cache = args.folder or Path(temporary) / "photos", Path(temporary) / "cache"
        write_photos(folder, args.photos, min(args.different, args.photos))
        first = look(folder, cache)
        again = look(folder, cache)
        shutil.rmtree(cache, ignore_errors=True)
    document = {
        "measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "photos": args.photos,
        "different": args.different,
        "pixels": SIZE[0] * SIZE[1],
        "cores": CORES,
        "empty_cache": first,
        "full_cache": again,
        "machine": harness.describe_machine(),
        "load_average": [before, harness.load_average()],
    }
    harness.write(args.output, document)
    print(f"empty cache: {first}\nfull cache:  {again}\n→ {args.output}")


if __name__ == "__main__":
    main()
