"""Build the images of docker/bake.json with docker, podman or buildah, and print their sizes.

python .ci/images.py                                     trainer, service, evaluation
python .ci/images.py service service-gpu --base python:3.12-slim-bookworm
python .ci/images.py trainer --torch torch==2.13.0+cpu --base debootstrap
python .ci/images.py --make-base                         only make that base of Debian's packages; print its tag

With docker alone: VERSION=… docker buildx bake --file docker/bake.json
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import string
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BAKE: dict[str, Any] = json.loads((ROOT / "docker/bake.json").read_text(encoding="utf-8"))
ROLES = [role for role in BAKE["target"] if role != "common"]
DEBIAN = "bookworm"  # its Python is 3.11
DEBIAN_TAG = f"localhost/gan-atelier/base:{DEBIAN}"
DEBIAN_PACKAGES = "ca-certificates,python3,python3-venv"
# Folders that no program needs.
DEBIAN_UNUSED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man")
DEBIAN_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
CERTIFICATES = Path("/etc/ssl/certs")
PIP_CONF = ".config/pip/pip.conf"
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


class ImageError(Exception):
    """One line: why no image can be built here, and what to do."""


class Engine:
    """docker, podman or buildah."""

    def __init__(self, name: str) -> None:
        """Choose settings with which the engine works here; `name` is docker, podman or buildah."""
        self.name = name
        self.environment = dict(os.environ)
        if name == "buildah":
            # chroot needs neither an OCI runtime nor further privileges than root's. Only docker's format has health
            # checks.
            self.environment.setdefault("BUILDAH_ISOLATION", "chroot")
            self.environment.setdefault("BUILDAH_FORMAT", "docker")
            if "STORAGE_DRIVER" not in self.environment and not self._can_mount():
                self.environment["STORAGE_DRIVER"] = "vfs"

    def build(self, dockerfile: Path, tag: str, arguments: dict[str, str], context: Path) -> None:
        """Build and tag an image; CalledProcessError if the build fails."""
        command = ["build"]
        if self.name != "docker":
            # Kept layers only help a second build. With vfs each is a copy of all files.
            once = self.environment.get("CI") == "true" or self.environment.get("STORAGE_DRIVER") == "vfs"
            command += ["--format", "docker", "--layers=false" if once else "--layers"]
            # docker's builder cannot mount folders of the host.
            command += [word for volume in pip_volumes() for word in ("--volume", volume)]
        command += ["--file", str(dockerfile), "--tag", tag]
        command += [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        self.run(*command, str(context))

    def has(self, tag: str) -> bool:
        """Return whether there is an image of this tag."""
        command = ["inspect", "--type", "image"] if self.name == "buildah" else ["image", "inspect"]
        return self._succeeds(*command, tag)

    def size(self, tag: str) -> int:
        """Return the size of an image in bytes, unpacked."""
        if self.name != "buildah":
            return int(self.output("image", "inspect", "--format", "{{.Size}}", tag))
        number, unit = self.output("images", "--format", "{{.Size}}", tag).split()[:2]
        return int(float(number) * UNITS[unit.upper()])

    def load(self, archive: Path, tag: str, environment: dict[str, str]) -> None:
        """Make an image of a tar archive of a file system."""
        if self.name != "buildah":
            changes = [word for key, value in environment.items() for word in ("--change", f"ENV {key}={value}")]
            self.run("import", *changes, str(archive), tag)
            return
        container = self.output("from", "scratch")
        try:
            self.run("add", "--quiet", container, str(archive), "/")
            self.run(
                "config", *(w for key, value in environment.items() for w in ("--env", f"{key}={value}")), container
            )
            self.run("commit", "--quiet", container, tag)
        finally:
            self.run("rm", container)

    def run(self, *words: str) -> None:
        """Run a command of the engine; CalledProcessError if it fails."""
        subprocess.run([self.name, *words], env=self.environment, check=True)

    def output(self, *words: str) -> str:
        """Return what a command of the engine prints."""
        done = subprocess.run([self.name, *words], env=self.environment, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    def _succeeds(self, *words: str) -> bool:
        return not subprocess.run([self.name, *words], env=self.environment, capture_output=True).returncode

    def _can_mount(self) -> bool:
        """Return whether overlay file systems can be mounted; inside another container they often cannot."""
        try:
            container = self.output("from", "scratch")
        except subprocess.CalledProcessError:
            return False
        works = self._succeeds("mount", container)
        self._succeeds("rm", container)
        return works


def pip_volumes() -> list[str]:
    """Return the folders of the host that pip uses during a build, as HOST:CONTAINER[:ro]; none is in the image.

    They are the certificates, pip's settings, the folders of packages that those name, and pip's cache.
    """
    cache = Path.home() / ".cache/pip"
    cache.mkdir(parents=True, exist_ok=True)
    volumes = [f"{cache}:/root/.cache/pip"]
    if CERTIFICATES.is_dir():
        volumes.append(f"{CERTIFICATES}:{CERTIFICATES}:ro")
    for host, container in ((Path("/etc/pip.conf"), "/etc/pip.conf"), (Path.home() / PIP_CONF, f"/root/{PIP_CONF}")):
        if host.is_file():
            volumes.append(f"{host}:{container}:ro")
            settings = host.read_text(encoding="utf-8")
            folders = {Path(path) for path in re.findall(r"(?<=\s)/[^\s:]+", settings)}
            # The files of an index may be next to it.
            folders |= {Path(path).parent for path in re.findall(r"(?<=file://)/[^\s:]+", settings)}
            volumes += [f"{path}:{path}:ro" for path in sorted(folders) if path.is_dir()]
    return volumes


def find_engine() -> Engine:
    """Return the engine that $ENGINE names, else the first that works; ImageError if none does."""
    given = os.environ.get("ENGINE", "")
    for name in [given] if given else ["docker", "podman", "buildah"]:
        if not re.fullmatch("docker|podman|buildah", name):
            raise ImageError(f"ENGINE is {name!r}; it may be docker, podman or buildah")
        # A client without its engine does not work.
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True).returncode == 0:
            return Engine(name)
    missing = f"{given} does not work here" if given else "neither docker nor podman nor buildah works here"
    raise ImageError(f"{missing} (`info` fails); on Debian: apt-get install buildah")


def make_base(engine: Engine) -> str:
    """Return the tag of a base image of Debian's own packages, which needs no registry; it is made once."""
    if not engine.has(DEBIAN_TAG):
        engine.load(_debian_archive(), DEBIAN_TAG, DEBIAN_ENVIRONMENT)
    return DEBIAN_TAG


def _debian_archive() -> Path:
    """Return Debian's file system as a tar archive. Making it takes a minute, and 120 MB from Debian's mirror."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gan-atelier/base"
    machine = subprocess.run(["dpkg", "--print-architecture"], check=True, stdout=subprocess.PIPE, text=True).stdout
    archive = cache / f"{DEBIAN}-{machine.strip()}.tar"
    if archive.is_file():
        return archive
    if os.geteuid() != 0:
        raise ImageError("debootstrap makes a base of Debian's packages and needs root; or name a base: BASE=…")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={DEBIAN_PACKAGES}", DEBIAN, str(root)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            print(done.stdout[-3000:], file=sys.stderr)
            done.check_returncode()
        for unused in DEBIAN_UNUSED:
            shutil.rmtree(root / unused, ignore_errors=True)
        partial = archive.with_suffix(f".{os.getpid()}")
        exclude = ("--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*")
        subprocess.run(["tar", "--create", f"--file={partial}", f"--directory={root}", *exclude, "."], check=True)
        partial.replace(archive)
    return archive


def build(engine: Engine, role: str, base: str, torch: str = "") -> str:
    """Build the image of a role and return its tag."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=False)
    values = {"BASE": base, "TORCH": torch, "VERSION": project["version"], "REVISION": done.stdout.strip() or "unknown"}
    target = json.loads(string.Template(json.dumps(BAKE["target"])).substitute(values))
    arguments = target["common"]["args"] | target[role].get("args", {})
    (tag,) = target[role]["tags"]
    engine.build(ROOT / target[role]["dockerfile"], tag, arguments, ROOT)
    return str(tag)


def sizes(engine: Engine, tags: list[str], base: str) -> str:
    """Return a line for the base and one for each image, with their sizes."""
    base_size = engine.size(base)
    lines = [f"{base}: {base_size / 1e6:.0f} MB"]
    for tag in tags:
        size = engine.size(tag)
        lines.append(f"{tag}: {size / 1e6:.0f} MB, {(size - base_size) / 1e6:.0f} MB beyond its base")
    return "\n".join(lines)


def main() -> int:
    """Parse the command line, build, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roles", nargs="*", metavar="ROLE", help=f"of {', '.join(ROLES)}; default: all but service-gpu")
    default = BAKE["variable"]["BASE"]["default"]
    parser.add_argument("--base", default=default, help="base image, best with its digest; or `debootstrap`")
    parser.add_argument("--torch", default="", help="another torch for the trainer, such as torch==2.13.0+cpu")
    parser.add_argument("--make-base", action="store_true", help="only make the base of Debian's packages")
    options = parser.parse_args()
    roles = options.roles or BAKE["group"]["default"]["targets"]
    if unknown := set(roles) - set(ROLES):
        parser.error(f"no role is named {', '.join(sorted(unknown))}; there are: {', '.join(ROLES)}")
    try:
        engine = find_engine()
        base = make_base(engine) if options.make_base or options.base == "debootstrap" else options.base
        if options.make_base:
            print(base)
            return 0
        print(sizes(engine, [build(engine, role, base, options.torch) for role in roles], base))
    except ImageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"error: {' '.join(error.cmd[:2])} failed with {error.returncode}; see above", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
