"""docker, podman or buildah: whichever is there and works, behind the few words that building needs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

CERTIFICATES = Path("/etc/ssl/certs")
PIP_CONF = ".config/pip/pip.conf"
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


class NoEngine(Exception):
    """One line that says that no engine works here, and what to install."""


class Engine:
    """`name` is docker, podman or buildah."""

    def __init__(self, name: str):
        self.name = name
        self.environment = dict(os.environ)
        if name == "buildah":
            # chroot needs neither an OCI runtime nor any privilege beyond root's
            self.environment.setdefault("BUILDAH_ISOLATION", "chroot")
            self.environment.setdefault("BUILDAH_FORMAT", "docker")
            self._choose_storage()

    def build(self, dockerfile: Path, tag: str, arguments: dict[str, str], context: Path) -> None:
        """Build and tag an image. CalledProcessError: the build failed; its output says why."""
        words = [*self._build, "--file", str(dockerfile), "--tag", tag]
        for key, value in arguments.items():
            words += ["--build-arg", f"{key}={value}"]
        if self.name != "docker":  # whose builder mounts nothing of the host
            words += [w for volume in pip_volumes() for w in ("--volume", volume)]
        self.run(*words, str(context))

    def has(self, tag: str) -> bool:
        kind = ["inspect", "--type", "image"] if self.name == "buildah" else ["image", "inspect"]
        return subprocess.run([self.name, *kind, tag], env=self.environment, capture_output=True).returncode == 0

    def config(self, tag: str) -> dict[str, object]:
        """The image's configuration: Entrypoint, Cmd, Env, User, Labels, Healthcheck, …"""
        if self.name == "buildah":
            told = json.loads(self.output("inspect", "--type", "image", tag))
            return dict(told["Docker"]["config"], Architecture=told["Docker"]["architecture"])
        (told,) = json.loads(self.output("image", "inspect", tag))
        return dict(told["Config"], Architecture=told["Architecture"])

    def size(self, tag: str) -> int:
        """Bytes of an image, unpacked."""
        if self.name != "buildah":
            return int(self.output("image", "inspect", "--format", "{{.Size}}", tag))
        number, unit = self.output("images", "--format", "{{.Size}}", tag).split()[:2]
        return int(float(number) * UNITS[unit.upper()])

    def load(self, archive: Path, tag: str, environment: dict[str, str]) -> None:
        """Make an image of a file system's tar archive."""
        if self.name != "buildah":
            changes = [w for key, value in environment.items() for w in ("--change", f"ENV {key}={value}")]
            self.run("import", *changes, str(archive), tag)
            return
        container = self.output("from", "scratch")
        try:
            self.run("add", "--quiet", container, str(archive), "/")
            settings = [w for key, value in environment.items() for w in ("--env", f"{key}={value}")]
            self.run("config", *settings, container)
            self.run("commit", "--quiet", container, tag)
        finally:
            self.run("rm", container)

    def run(self, *words: str) -> None:
        subprocess.run([self.name, *words], env=self.environment, check=True)

    def output(self, *words: str) -> str:
        done = subprocess.run([self.name, *words], env=self.environment, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    @property
    def _build(self) -> Sequence[str]:
        if self.name == "docker":
            return ("build",)
        # OCI's own format has no health checks. buildah keeps steps for the next build only when told: a waste where
        # there is none, and where each would be a whole copy of all files
        once = self.environment.get("CI") == "true" or self.environment.get("STORAGE_DRIVER") == "vfs"
        steps = "--layers=false" if once else "--layers"
        return "build", "--format", "docker", steps

    def _choose_storage(self) -> None:
        """Where the kernel mounts no overlay here (inside another container), layers are whole copies."""
        if "STORAGE_DRIVER" in self.environment:
            return
        tried = subprocess.run([self.name, "from", "scratch"], env=self.environment, capture_output=True, text=True)
        container = tried.stdout.strip()
        works = (
            tried.returncode == 0
            and not subprocess.run(
                [self.name, "mount", container], env=self.environment, capture_output=True
            ).returncode
        )
        if tried.returncode == 0:
            subprocess.run([self.name, "rm", container], env=self.environment, capture_output=True, check=False)
        if not works:
            self.environment["STORAGE_DRIVER"] = "vfs"


def pip_volumes() -> list[str]:
    """What has pip in a build find packages as it does here, and download none twice, as HERE:THERE[:ro].

    This machine's certificates and pip's settings, where it has any, the folders of packages that those name, and
    pip's cache. They are there while an image is built, and nothing of them is in it.
    """
    cache = Path.home() / ".cache" / "pip"
    cache.mkdir(parents=True, exist_ok=True)
    volumes = [f"{cache}:/root/.cache/pip"]
    if CERTIFICATES.is_dir():
        volumes.append(f"{CERTIFICATES}:{CERTIFICATES}:ro")
    for here, there in ((Path("/etc/pip.conf"), "/etc/pip.conf"), (Path.home() / PIP_CONF, f"/root/{PIP_CONF}")):
        if here.is_file():
            volumes.append(f"{here}:{there}:ro")
            settings = here.read_text(encoding="utf-8")
            named = {Path(path) for path in re.findall(r"(?<=\s)/[^\s:]+", settings)}
            # an index's files may lie beside it
            named |= {Path(path).parent for path in re.findall(r"(?<=file://)/[^\s:]+", settings)}
            volumes += [f"{path}:{path}:ro" for path in sorted(named) if path.is_dir()]
    return volumes


def find() -> Engine:
    """The engine that $ENGINE names, else the first that works; a client without its engine does not.

    NoEngine: there is none.
    """
    wanted = os.environ.get("ENGINE", "")
    for name in [wanted] if wanted else ["docker", "podman", "buildah"]:
        if not re.fullmatch("docker|podman|buildah", name):
            raise NoEngine(f"ENGINE is {name!r}; it may be docker, podman or buildah")
        works = [name, "info"]
        if shutil.which(name) and subprocess.run(works, capture_output=True).returncode == 0:
            return Engine(name)
    missing = f"{wanted} does not work here" if wanted else "neither docker nor podman nor buildah works here"
    raise NoEngine(f"{missing} (`info` fails); on Debian: apt-get install buildah")
