"""The jobs' very commands, run as processes: shards side by side and their merging, a trainer that is interrupted."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.support.evaluation.commands import run as evaluation
from tests.support.evaluation.tiny_extractor import write_tiny_extractor
from tests.support.image_files import write_pictures
from tests.support.kubernetes_manifests import SUFFIX, command, environment, one, rendered
from tests.support.paths import ROOT
from tests.support.process_cleanup import end_with_parent
from tests.support.service.service_process import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """`evaluation` and `trainer`, as the images have them on their path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("evaluation", "trainer"):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {name} "$@"\n', encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


def start(container: dict[str, Any], variables: dict[str, str], programs: Path, mounts: dict[str, Path]) -> Any:
    """The container's command, its volumes' paths replaced, with none of our environment but what Python needs."""
    words = command(container, variables)
    assert words[0] in ("sh", "evaluation"), "a program that the image has"

    def moved(text: str) -> str:
        for there, here in mounts.items():
            text = text.replace(there, str(here))
        return text

    env = {name: moved(value) for name, value in variables.items()}
    env |= {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [moved(word) for word in words],
        env=env,
        stdout=-1,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=end_with_parent,
    )


def done(process: Any, code: int = 0) -> str:
    result = process.communicate(timeout=120)[0]
    assert process.returncode == code, result
    return result


def test_job_shards_and_merge_equal_the_whole_job(
    tmp_path: Path, programs: Path, service: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = rendered("evaluation")
    shards, merge, prepare = (
        one(documents, "Job", f"evaluation-{n}{SUFFIX}")["spec"] for n in ("shards", "merge", "prepare")
    )
    volume = tmp_path / "volume"
    volume.mkdir()
    write_pictures(tmp_path / "pictures")
    write_tiny_extractor(volume / "folder:pictures-classifier.onnx")  # what torch would train in `prepare`

    def run(job: dict[str, Any], kind: str, **given: str) -> Any:
        (container,) = job["template"]["spec"][kind]
        variables = environment(container, documents) | here | given
        return start(container, variables, programs, {"/evaluation": volume})

    images = "folder:pictures"
    (volume / "pictures").symlink_to(tmp_path / "pictures")
    here = {"SERVICE_URL": service.url, "IMAGES": images, "NUM_IMAGES": "61", "METRICS": "fid,precision"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    waiting = [run(shards, "initContainers"), run(merge, "initContainers")]
    done(run(prepare, "initContainers"))  # there is an extractor: it is left as it is
    done(run(prepare, "containers"))
    completions = shards["completions"]
    assert shards["completionMode"] == "Indexed"
    (container,) = shards["template"]["spec"]["containers"]
    assert environment(container, documents)["SHARDS"] == str(completions)
    running = [run(shards, "containers", JOB_COMPLETION_INDEX=str(index)) for index in range(completions)]
    for process in running:
        done(process)
    for process in waiting:
        done(process)
    done(run(merge, "containers"))
    words = ("--reference", f"{images}@test", "--extractor", volume / f"{images}-classifier.onnx")
    whole = evaluation(
        "score", service.url, *words, "--metrics", "fid,precision", "--num-images", 61, "--output", "whole"
    )
    assert whole.exit_code == 0, whole.output
    (report,) = volume.glob("*/report/report.json")
    merged, alone = (
        json.loads(report.read_text(encoding="utf-8")),
        json.loads((tmp_path / "whole" / "report.json").read_text(encoding="utf-8")),
    )
    assert merged["n"] == alone["n"] == 61
    assert merged["scores"] == pytest.approx(alone["scores"], rel=1e-6)
    assert len(merged["timing"]["shards"]) == completions


def test_job_trainer_on_a_lost_node_resumes(tmp_path: Path, programs: Path) -> None:
    """The job's script with a trainer that only says what it was asked; the trainer's own tests interrupt real runs."""
    import trainer.cli

    documents = rendered("trainer")
    job = one(documents, "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    name = job["metadata"]["name"]
    variables = environment(container, documents, JOB_NAME=name)
    mounts = {"/training": tmp_path / "training", "/models": tmp_path / "models"}
    (programs / "trainer").write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n', encoding="utf-8")
    runs = tmp_path / "training" / "runs"

    def asked() -> list[str]:
        words = done(start(container, variables, programs, mounts)).splitlines()
        group = typer.main.get_command(trainer.cli.app)
        group.commands[words[0]].make_context(words[0], words[1:])  # type: ignore[attr-defined]
        return words

    common = ["--data-root", str(tmp_path / "training/data"), "--export", str(tmp_path / "models")]
    new = ["train", "--preset", "digits-dcgan", "--runs", str(runs / name), *common]
    assert asked() == new
    ours, other = (runs / folder / "0001-digits-dcgan" for folder in (name, "another"))
    for run in (ours, other):
        run.mkdir(parents=True)
        (run / "config.json").write_text("{}", encoding="utf-8")
    (other / "checkpoint-00000100.pt").touch()
    assert asked() == new, "a run without a checkpoint has nothing to go on from, and another job's is not ours"
    (ours / "checkpoint-00000100.pt").touch()
    assert asked() == ["resume", f"{ours}/", *common]
