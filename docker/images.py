"""Build the images of the roles, and say how large they are.

python docker/images.py                                     trainer, service, evaluation
python docker/images.py service service-gpu --base python:3.12-slim-bookworm
python docker/images.py trainer --build-arg TORCH=torch==2.13.0+cpu --base debootstrap
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

from debian import base
from engine import Engine, NoEngine, find

ROOT = Path(__file__).resolve().parents[1]
BASE = "docker.io/library/python:3.11-slim-bookworm"
GPU = {"ONNXRUNTIME": "onnxruntime-gpu[cuda,cudnn]"}
ROLES = {  # role: (Dockerfile, suffix of the tag, build arguments)
    "trainer": ("trainer", "", {}),
    "service": ("service", "", {}),
    "service-gpu": ("service", "-gpu", GPU),
    "evaluation": ("evaluation", "", {}),
}


def version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def revision() -> str:
    """The commit that is built, `-dirty` where the files are others; unknown without git."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def build(engine: Engine, role: str, base: str, arguments: dict[str, str]) -> str:
    """Build one role's image; its tag."""
    name, suffix, own = ROLES[role]
    tag = f"gan-atelier/{name}:{version()}{suffix}"
    told = {"BASE": base, "VERSION": version(), "REVISION": revision(), **own, **arguments}
    engine.build(ROOT / "docker" / f"{name}.Dockerfile", tag, told, ROOT)
    return tag


def sizes(engine: Engine, tags: list[str], base: str) -> str:
    ground = engine.size(base)
    lines = [f"{base}: {ground / 1e6:.0f} MB"]
    for tag in tags:
        size = engine.size(tag)
        lines.append(f"{tag}: {size / 1e6:.0f} MB, {(size - ground) / 1e6:.0f} MB beyond its base")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roles", nargs="*", metavar="ROLE", help=f"of {', '.join(ROLES)}; all but service-gpu")
    parser.add_argument("--base", default=BASE, help="base image, best with its digest; `debootstrap` makes one here")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="as of `docker build`")
    given = parser.parse_args()
    roles = given.roles or ["trainer", "service", "evaluation"]
    if unknown := set(roles) - set(ROLES):
        parser.error(f"no role is named {', '.join(sorted(unknown))}; there are: {', '.join(ROLES)}")
    if wrong := [word for word in given.build_arg if "=" not in word]:
        parser.error(f"--build-arg {wrong[0]} is not NAME=VALUE")
    arguments = dict(word.split("=", 1) for word in given.build_arg)
    try:
        engine = find()
        ground = base(engine) if given.base == "debootstrap" else given.base
        tags = [build(engine, role, ground, arguments) for role in roles]
        print(sizes(engine, tags, ground))
    except NoEngine as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"error: {' '.join(error.cmd[:2])} failed with {error.returncode}; see above", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
