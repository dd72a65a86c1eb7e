"""Whether a long run grows: a training process's memory from step 500 to step 10,000.

    python -m benchmarks.train_memory --data-root data

Each case trains in a process of its own, with `trainer train`'s settings and its once-a-tick readings; what it holds
(resident set; on a GPU also what PyTorch has allocated there) is told beside what it must hold: the image set, the
networks, their averages and the optimizers' state.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.arguments import file_to_write
from benchmarks.machine import describe
from benchmarks.train_step import load_images
from trainer.config import loading
from trainer.data import Batches
from trainer.training import devices
from trainer.training import loop as trainers
from trainer.training.state import TrainState

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "train_memory.json"
CASES = {
    "mnist-gan": ("mnist-gan", ()),
    # conditional, with R1 (a gradient of a gradient), a convolution wherever the preset has one
    "digits-dcgan, narrow": ("digits-dcgan", ("model.g_widths=[16,8,8]", "model.d_widths=[8,8,16]")),
}
MIB = 2**20


def resident() -> float:
    """MiB of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def trained(case: str, steps: int, data_root: Path) -> dict[str, object]:
    """Trains in this process."""
    preset, sets = CASES[case]
    config = devices.resolve_auto(loading.resolve(preset, sets))
    devices.configure_process(config)
    images, source = load_images(config, data_root)
    before = resident()
    labels = None
    if config.model.conditional:
        labels = torch.arange(len(images)).remainder(len(config.data.class_names)).numpy()
    state = TrainState.create(config)
    batches = Batches(images, config.optim.batch_size, seed=0, device=state.device, labels=labels)
    marks = sorted({500, 1000, 2000, 5000, steps} & set(range(steps + 1)))
    found, allocated = {}, {}
    while state.steps < steps:
        trainers.train_iteration(state, batches)
        if state.steps % 500 == 0:
            trainers.check_finite(state)
            trainers.pop_means(state)
        if state.steps in marks:
            found[state.steps] = round(resident(), 2)
            if state.device.type == "cuda":
                allocated[state.steps] = round(torch.cuda.memory_allocated() / MIB, 2)
    tensors = [*state.G.state_dict().values(), *state.D.state_dict().values(), *state.G_ema.state_dict().values()]
    for optimizer in (state.g_optimizer, state.d_optimizer):
        tensors += [slot for slots in optimizer.state.values() for slot in slots.values() if torch.is_tensor(slot)]
    first, last = found[marks[0]], found[marks[-1]]
    return {
        "case": case,
        "set": list(sets),
        "images": source,
        "batch_size": config.optim.batch_size,
        "precision": config.run.precision,
        "threads": config.run.threads,
        "before_training_mib": round(before, 1),
        "image_set_mib": round(images.nbytes / MIB, 1),
        "networks_and_optimizers_mib": round(sum(tensor.nbytes for tensor in tensors) / MIB, 1),
        "resident_mib_at_step": found,
        **({"allocated_on_gpu_mib_at_step": allocated} if allocated else {}),
        "growth_mib": round(last - first, 2),
        "growth_percent": round(100 * (last / first - 1), 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--output", type=file_to_write, default=RESULTS)
    parser.add_argument("--only", choices=CASES, help=argparse.SUPPRESS)  # one case, here, as JSON on stdout
    arguments = parser.parse_args()
    if arguments.steps < 500:
        parser.error("--steps: 500 at least, where the first reading is")
    if arguments.only:
        print(json.dumps(trained(arguments.only, arguments.steps, arguments.data_root)))
        return
    results = []
    for case in CASES:
        command = [sys.executable, "-m", "benchmarks.train_memory", "--only", case]
        command += ["--steps", str(arguments.steps), "--data-root", str(arguments.data_root.resolve())]
        answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        result = json.loads(answer.splitlines()[-1])
        results.append(result)
        at = ", ".join(f"{step}: {mib}" for step, mib in result["resident_mib_at_step"].items())
        print(f"{case}: MiB at step {at}; growth {result['growth_mib']} MiB ({result['growth_percent']}%)", flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(
        json.dumps({"machine": describe(), "results": results}, indent=2) + "\n", encoding="utf-8"
    )
    print(f"→ {arguments.output}")


if __name__ == "__main__":
    main()
