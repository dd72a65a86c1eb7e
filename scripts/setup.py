"""Install the project into .venv with one line of progress; `make setup` calls it.

PyTorch's default wheel for Linux contains CUDA and is several GB larger than the CPU build. Without an NVIDIA driver
the CPU build is installed, where PyTorch's index offers it; otherwise the default build.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
LOG = Path(sys.prefix) / "setup.log"


def has_nvidia_driver() -> bool:
    """Return whether this machine has an NVIDIA driver."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def is_reachable(index: str, timeout_s: float = 8.0) -> bool:
    """Return whether a package index answers."""
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=timeout_s):
            return True
    except (OSError, ValueError):
        return False


def cpu_requirements(constraints: str) -> list[str]:
    """Return torch and torchvision pinned to the CPU builds of the versions in constraints.txt."""
    pins = re.findall(r"^(torch|torchvision)==([\w.]+)", constraints, re.MULTILINE)
    return [f"{name}=={version}+cpu" for name, version in pins]


def pip(arguments: Sequence[str], what: str) -> bool:
    """Run `pip install`; show the package in progress, write everything to the log, return whether it succeeded."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile", *arguments]
    started, shown, packages = time.monotonic(), 0.0, 0
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, errors="replace")
        assert process.stdout
        for line in process.stdout:
            log.write(line)
            packages += line.startswith("Collecting ")
            # A terminal shows each package; elsewhere a line every 20 seconds is enough.
            if line.startswith(("Collecting ", "Installing collected")) and (_CLEAR or time.monotonic() - shown > 20):
                shown = time.monotonic()
                state = "unpacking" if line.startswith("Inst") else f"{packages} packages, {line.split()[1]}"
                text = f"{_CLEAR}{what}: {shown - started:.0f} s, {state}"
                print(text[:100] if _CLEAR else text, end="" if _CLEAR else "\n", flush=True)
    succeeded = process.wait() == 0
    print(f"{_CLEAR}{what}: {'done' if succeeded else 'failed'} after {time.monotonic() - started:.0f} s", flush=True)
    return succeeded


_CLEAR = "\r\033[K" if sys.stdout.isatty() else ""


def main() -> int:
    """Install PyTorch, then the project with its extras."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", help="extras of pyproject.toml, separated by commas")
    parser.add_argument("--torch-index", default=os.environ.get("TORCH_INDEX", CPU_INDEX), help="index of CPU builds")
    arguments = parser.parse_args()
    LOG.unlink(missing_ok=True)
    constraints = ["--constraint", "constraints.txt"]
    if platform.system() != "Darwin" and not has_nvidia_driver():
        wanted = cpu_requirements(Path("constraints.txt").read_text(encoding="utf-8"))
        if is_reachable(arguments.torch_index):
            options = ["--extra-index-url", arguments.torch_index, "--retries", "1"]
            if not pip([*wanted, *options], "PyTorch for CPUs (no NVIDIA driver found)"):
                print("the index has no such build; installing PyTorch's default build instead", flush=True)
        else:
            print(f"{arguments.torch_index} does not answer; installing PyTorch's default build", flush=True)
    if pip(["--editable", f".[{arguments.extras}]", *constraints], "GAN Atelier and what it needs"):
        used = sum(path.lstat().st_size for path in Path(sys.prefix).rglob("*"))
        print(f"{Path(sys.prefix).name} takes {used / 1e9:.1f} GB of disk")
        return 0
    tail = [line for line in LOG.read_text(encoding="utf-8").splitlines() if "WARNING" not in line][-15:]
    print("\n".join(tail), file=sys.stderr)
    print(f"error: the installation failed; all of pip's output is in {LOG}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
