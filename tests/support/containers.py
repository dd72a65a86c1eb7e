"""Run an image's containers as `docker run --read-only` does, with docker, podman or buildah."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
from images import Engine

from tests.support.paths import ROOT
from tests.support.polling import wait_until
from tests.support.process_cleanup import end_with_parent

# What `--read-only --cap-drop ALL --user` is to a container of buildah's, which starts it as root
SEALED = (
    "mount -o remount,bind,ro / && "
    'exec setpriv --reuid={uid} --regid={gid} --clear-groups --no-new-privs --bounding-set=-all "$@"'
)


CONTROL_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Volume:
    here: Path
    there: str
    writable: bool = False

    def __str__(self) -> str:
        return f"{self.here}:{self.there}" + ("" if self.writable else ":ro")


@dataclass
class Running:
    """A container in the foreground: `process` is the engine's, whose exit code is the container's."""

    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace", encoding="utf-8")

    def main(self) -> psutil.Process:
        """The container's first process, where that is this engine's descendant (buildah)."""
        ours = psutil.Process(self.process.pid).children(recursive=True)
        return next(p for p in ours if not p.name().startswith(("buildah", "memfd:", "exe")))

    def send(self, number: signal.Signals) -> None:
        """As `docker kill --signal`."""
        target = self.main() if "buildah" in str(self.process.args) else psutil.Process(self.process.pid)
        target.send_signal(number)

    def stopped(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60) -> tuple[int, float]:
        """The exit code after this signal, and the seconds that it took."""
        began = time.monotonic()
        self.send(number)
        return self.process.wait(seconds), time.monotonic() - began

    def wait_until(self, true: Callable[[], object], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.05)


class Image:
    """An image of `engine` by its tag."""

    def __init__(self, engine: Engine, tag: str):
        self.engine, self.tag = engine, tag
        self.config = self._read_config()

    def run(self, *words: str, timeout: float = 300, **how: object) -> subprocess.CompletedProcess[str]:
        """A container that ends by itself; stdout and stderr in one. `how`: as `start`."""
        with self.start(*words, **how) as container:  # type: ignore[arg-type]
            code = container.process.wait(timeout)
            return subprocess.CompletedProcess(words, code, container.log)

    def _read_config(self) -> dict[str, Any]:
        """Entrypoint, Cmd, Env, User, Labels, Healthcheck, …, and Architecture."""
        if self.engine.name == "buildah":
            docker = json.loads(self.engine.output("inspect", "--type", "image", self.tag))["Docker"]
            return {**docker["config"], "Architecture": docker["architecture"]}
        (image,) = json.loads(self.engine.output("image", "inspect", self.tag))
        return {**image["Config"], "Architecture": image["Architecture"]}

    @contextmanager
    def start(
        self,
        *words: str,
        volumes: tuple[Volume, ...] = (),
        environment: dict[str, str] | None = None,
        entrypoint: tuple[str, ...] | None = None,
        temporary: bool = True,
        user: str = "",
        memory: int | None = None,
    ) -> Iterator[Running]:
        """A container with these words after its entry point, on the host's network; killed in the end.

        Its root file system is read-only; without `temporary`, so is /tmp. memory: the limit in bytes, at which the
        kernel kills.
        """
        with ExitStack() as stack:
            log = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".log"))
            command = self._buildah if self.engine.name == "buildah" else self._docker
            full = command(stack, words, volumes, environment or {}, entrypoint, temporary, user)
            if memory is not None and self.engine.name == "buildah":  # its containers are children of this process
                full = [*stack.enter_context(limited(memory)), *full]
            elif memory is not None:
                full[2:2] = ["--memory", str(memory), "--memory-swap", str(memory)]
            process = subprocess.Popen(
                full, env=self.engine.environment, stdout=log, stderr=log, preexec_fn=end_with_parent
            )
            container = Running(process, Path(log.name))
            try:
                yield container
            finally:
                if process.poll() is None:
                    for child in psutil.Process(process.pid).children(recursive=True):
                        child.kill()
                    process.kill()
                    process.wait()

    def _docker(self, stack, words, volumes, environment, entrypoint, temporary, user) -> list[str]:
        full = [self.engine.name, "run", "--rm", "--network", "host", "--read-only", "--cap-drop", "ALL"]
        full += ["--security-opt", "no-new-privileges", *(["--tmpfs", "/tmp"] if temporary else [])]
        full += [w for volume in volumes for w in ("--volume", str(volume))]
        full += [w for item in environment.items() for w in ("--env", "=".join(item))]
        full += [*(["--user", user] if user else [])]
        if entrypoint:
            full += ["--entrypoint", entrypoint[0]]
        return [*full, self.tag, *(entrypoint or ())[1:], *words]

    def _buildah(self, stack, words, volumes, environment, entrypoint, temporary, user) -> list[str]:
        container = self.engine.output("from", self.tag)
        stack.callback(subprocess.run, ["buildah", "rm", container], env=self.engine.environment, capture_output=True)
        if temporary:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            folder.chmod(0o1777)
            volumes = (*volumes, Volume(folder, "/tmp", writable=True))
        full = ["buildah", "run", "--user", "0:0", "--cap-add", "CAP_SYS_ADMIN"]
        full += [w for volume in volumes for w in ("--volume", str(volume))]
        full += [w for item in environment.items() for w in ("--env", "=".join(item))]
        uid, gid = (user or str(self.config["User"])).split(":")
        entry = entrypoint or tuple(self.config["Entrypoint"] or ())
        command = (*entry, *(words or (() if entrypoint else self.config["Cmd"] or ())))
        return [*full, container, "--", "sh", "-c", SEALED.format(uid=uid, gid=gid), "-", *command]


@contextmanager
def limited(memory: int) -> Iterator[tuple[str, ...]]:
    """A command that runs another in a control group of so many bytes of memory, of version 1 or 2."""
    for root, limit in ((CONTROL_GROUPS / "memory", "memory.limit_in_bytes"), (CONTROL_GROUPS, "memory.max")):
        group = root / f"atelier-{os.getpid()}"
        if not (root / "cgroup.procs").exists():
            continue
        group.mkdir()
        try:
            assert (group / limit).exists(), f"the control groups in {root} do not limit memory"
            (group / limit).write_text(str(memory), encoding="utf-8")
            yield "sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "-"
        finally:
            wait_until(partial(is_empty, group))  # what was killed takes a moment
            group.rmdir()
        return
    raise AssertionError(f"there are no control groups in {CONTROL_GROUPS}")


def is_empty(group: Path) -> bool:
    """Whether no process is in a control group."""
    return not (group / "cgroup.procs").read_text(encoding="utf-8")


def writable(folder: Path) -> Path:
    """Made for anybody to write to, as a volume is that belongs to the image's user."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)
    return folder


BUNDLED = ROOT / "service" / "bundled" / "digits.onnx"


class Served:
    """A service container and its address."""

    def __init__(self, container: Running, port: int):
        self.container, self.url = container, f"http://127.0.0.1:{port}"

    def answers(self, path: str = "/livez") -> bool:
        try:
            return httpx.get(self.url + path).status_code == 200
        except httpx.TransportError:
            return False

    def why_not_ready(self) -> str:
        """What /readyz says once the models were looked for."""
        result = ""

        def looked() -> bool:
            nonlocal result
            if self.answers():
                answer = httpx.get(f"{self.url}/readyz")
                result = "" if answer.status_code == 200 else answer.json()["error"]["message"]
                return result != "models are still being loaded"
            return False

        self.container.wait_until(looked)
        return result


def same(one: str, other: str) -> None:
    """What the services at these addresses answer is the same, byte for byte."""
    schemas = [httpx.get(f"{url}/openapi.json").json() for url in (one, other)]
    assert schemas[0] == schemas[1]
    assert schemas[0]["info"]["version"] not in ("", "0")
    requests = (
        ("/v1/generate", {"seed": 3, "n": 5}, "application/x-npy"),
        ("/v1/generate", {"seed": 3, "n": 2, "truncation": 0.7}, "image/png"),
        ("/v1/interpolate", {"keyframes": [1, 2], "steps": 4}, "application/x-npy"),
        ("/v1/mix", {"terms": [{"seed": 1, "weight": 1.0}, {"seed": 2, "weight": -0.5}]}, "application/x-npy"),
    )
    for path, body, accept in requests:
        answers = [httpx.post(url + path, json=body, headers={"Accept": accept}) for url in (one, other)]
        assert answers[0].status_code == 200, answers[0].text
        assert answers[0].content == answers[1].content
    models = [httpx.get(f"{url}/v1/models").json()["data"][0] for url in (one, other)]
    assert models[0]["digest"] == models[1]["digest"]
    tags = [httpx.get(f"{url}/v1/models/bundled-digits/images/9.png").headers["ETag"] for url in (one, other)]
    assert tags[0] == tags[1]


@dataclass(frozen=True)
class Given:
    """What the job is given: made once, elsewhere, where torch is."""

    extractors: Path
    reference: Path
    digest: str

    def volumes(self, reports: Path) -> tuple[Volume, ...]:
        reading = Volume(self.extractors, "/extractors"), Volume(self.reference, "/reference")
        return *reading, Volume(reports, "/reports", writable=True)


SCORE = ("--reference", "/reference/digits.npz", "--extractor", "/extractors/digits.onnx", "--no-baseline")


def refused(image: Image, *words: str, volumes: tuple[Volume, ...] = (), temporary: bool = True) -> str:
    """The one line of a job that its user can mend; exit code 2."""
    done = image.run(*words, volumes=volumes, temporary=temporary)
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("subprocess exited", "Error: exit"))]
    assert done.returncode == 2, done.stdout
    assert len(lines) == 1, done.stdout
    assert lines[0].startswith("error: ")
    return lines[0]
