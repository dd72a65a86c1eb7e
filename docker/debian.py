"""A base image without a registry: Debian's own packages, by debootstrap, made once and kept.

python docker/debian.py       prints the image's name, for `make images BASE=…`
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from engine import Engine, NoEngine, find

RELEASE = "bookworm"  # its Python is 3.11
TAG = f"localhost/gan-atelier/base:{RELEASE}"
PACKAGES = "ca-certificates,python3,python3-venv"
# nothing of these is needed to run anything
LEFT_OUT = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man")
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def base(engine: Engine) -> str:
    """The image's name; it is made if the engine has none. CalledProcessError: debootstrap failed."""
    if not engine.has(TAG):
        engine.load(archive(), TAG, ENVIRONMENT)
    return TAG


def archive() -> Path:
    """The file system as a tar archive, made if there is none: a minute, and 120 MB from Debian's mirror."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gan-atelier" / "base"
    machine = subprocess.run(["dpkg", "--print-architecture"], check=True, stdout=subprocess.PIPE, text=True).stdout
    kept = cache / f"{RELEASE}-{machine.strip()}.tar"
    if kept.is_file():
        return kept
    if os.geteuid() != 0:
        raise NoEngine("a base of Debian's packages is made by debootstrap, which needs root; or name one: BASE=…")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        words = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(root)]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            print(done.stdout[-3000:], file=sys.stderr)
            done.check_returncode()
        for left_out in LEFT_OUT:
            shutil.rmtree(root / left_out, ignore_errors=True)
        made = kept.with_suffix(f".{os.getpid()}")
        excluded = ("--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*")
        subprocess.run(["tar", "--create", f"--file={made}", f"--directory={root}", *excluded, "."], check=True)
        made.replace(kept)
    return kept


if __name__ == "__main__":
    try:
        print(base(find()))
    except NoEngine as error:
        sys.exit(f"error: {error}")
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}; debootstrap needs root and Debian's mirror")
