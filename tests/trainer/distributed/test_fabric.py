"""Two processes that train together (gloo, on the CPU) against one, and against what may befall them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes_validate
import numpy as np
import psutil
import pytest
import torch
import yaml

from tests.support.paths import ROOT
from tests.support.process_cleanup import end_with_parent
from trainer import distributed
from trainer.distributed import fabric
from trainer.errors import TrainerError
from trainer.training import checkpoint
from trainer.training.state import TrainState

pytestmark = pytest.mark.slow

ONE_MACHINE = ["--standalone", "--nproc-per-node", "2"]


def torchrun(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *arguments]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    cache = tmp_path_factory.mktemp("cache")
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ATELIER_CACHE": str(cache)}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> dict[str, Any]:
    """What tests/support/trainer/rank_program.py found."""
    output = tmp_path_factory.mktemp("ranks") / "found.json"
    command = torchrun(*ONE_MACHINE, str(ROOT / "tests/support/trainer/rank_program.py"), str(output))
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr
    left = [output.with_name(f"left-{rank}").read_text(encoding="utf-8") for rank in range(2)]
    return json.loads(output.read_text(encoding="utf-8")) | {"left": left}


def test_fabric_every_objective_ends_with_equal_ranks(found: dict[str, Any]) -> None:
    """G, D, G_ema with their buffers, both optimizers and the random numbers, to the last bit."""
    assert len(found["equal"]) == 20
    assert [name for name, equal in found["equal"].items() if not equal] == []


def test_fabric_at_exit_leaves_the_process_group(found: dict[str, Any]) -> None:
    assert found["left"] == ["True", "True"]


def test_fabric_mlp_losses_equal_one_process(found: dict[str, Any]) -> None:
    assert len(found["losses"]) == 10
    for name, (together, alone) in found["losses"].items():
        assert len(together) == len(alone) == 6
        for ours, theirs in zip(together, alone, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4), name
        assert abs(alone[0]["loss/D"] - alone[-1]["loss/D"]) > 1e-3, f"{name}: went nowhere"


def test_fabric_resumed_run_is_bit_identical(found: dict[str, Any]) -> None:
    for reported in found["resumed"].values():
        assert reported["to the last bit"]
        assert reported["processes"] == 2


def test_checkpoint_of_two_processes_resumes_in_one(found: dict[str, Any]) -> None:
    for reported in found["resumed"].values():
        assert reported["weights alone"]
        assert reported["sums alone"] == pytest.approx(reported["sums"])


def test_fabric_frozen_weights_never_change(found: dict[str, Any]) -> None:
    assert found["frozen"] == [True, True]


def test_fabric_nan_in_one_process_stops_all(found: dict[str, Any]) -> None:
    ours, theirs = found["diverges"]
    assert "loss/D became NaN" in ours
    assert ours == theirs


def test_fabric_stop_of_one_process_stops_all(found: dict[str, Any]) -> None:
    assert found["stops"] == [[False, False, False, True]] * 2


def test_fabric_std_is_of_the_whole_batch(found: dict[str, Any]) -> None:
    together, alone = found["std"]
    assert together == pytest.approx(alone, rel=1e-6)


# What follows runs the command line: on one machine, and as two that torchrun makes one of.

TINY_FIELDS = """
    name=tiny data.resolution=8 model.g_widths=[8] model.d_widths=[8] model.z_dim=4 optim.batch_size=64
    run.device=cpu run.threads=1 run.tick_kimg=0.64 run.quality_ticks=0 run.total_kimg=100000
"""
TINY = [word for field in TINY_FIELDS.split() for word in ("--set", field)]


class Launch:
    """A command that is running, and its output so far."""

    def __init__(self, command: list[str], cwd: Path, environment: dict[str, str]) -> None:
        self.output = cwd / f"output-{time.monotonic_ns()}.txt"
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                command, cwd=cwd, env=environment, stdout=file, stderr=subprocess.STDOUT, preexec_fn=end_with_parent
            )

    def said(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 240
        while text not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def of_rank(self, rank: int) -> psutil.Process:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(child for child in children if child.environ().get("RANK") == str(rank))

    def errors(self) -> list[str]:
        return [line for line in self.said().splitlines() if line.startswith("error:")]

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            for process in psutil.Process(self.process.pid).children(recursive=True):
                process.kill()
            self.process.kill()
        self.process.wait(30)


def free_port() -> int:
    """One that nothing listens on, among those that SLURM's recipe makes of a job's number."""
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        if 20000 <= port < 40000:
            return port


def recipe(name: str) -> str:
    """Return a file that docs/guides/distributed.md links to."""
    return (ROOT / "docs" / "guides" / name).read_text(encoding="utf-8")


def two_machines() -> list[str]:
    """torchrun's options for each of two machines, of one process."""
    endpoint = f"127.0.0.1:{free_port()}"
    return ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint]


def mnist(folder: Path) -> None:
    """200 images of noise as MNIST's files."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (200, 28, 28), dtype=np.uint8)
    for name, values in (("images-idx3", pixels), ("labels-idx1", (np.arange(200) % 10).astype(np.uint8))):
        header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
        (folder / f"train-{name}-ubyte").write_bytes(header + values.tobytes())


def steps(run_dir: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_slurm_recipe_trains_stops_and_resumes(tmp_path: Path, environment: dict[str, str]) -> None:
    """docs/guides/train.sbatch as it is; `srun` and `scontrol` make two machines of this one."""
    programs = {
        "scontrol": "echo 127.0.0.1; echo 127.0.0.2",
        "srun": 'for node in 1 2; do "$@" & done; wait -n; first=$?; wait -n; exit $((first | $?))',
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "1", "SLURM_JOB_NAME": "tiny", "SLURM_JOB_NODELIST": "here"}
    path = f"{tmp_path}:{environment['PATH']}"
    # The images are not in the default folder.
    script = recipe("train.sbatch").replace("--data-root data", "--data-root images")
    assert "--data-root images" in script
    mnist(tmp_path / "images" / "mnist")
    small = "data.source=mnist data.resolution=28 model.g_widths=[8,8] model.d_widths=[8,8] run.total_kimg=19.2"
    arguments = [*TINY, *(word for field in small.split() for word in ("--set", field))]

    def submit() -> Launch:
        number = {"SLURM_JOB_ID": str(free_port() - 20000)}
        return Launch(
            ["bash", "-c", script, "train.sbatch", *arguments], tmp_path, environment | slurm | number | {"PATH": path}
        )

    run_dir = tmp_path / "runs" / "tiny" / "0001-tiny"
    with submit() as launch:
        launch.wait_for("loss/D")
        launch.of_rank(1).send_signal(signal.SIGTERM)
        assert launch.process.wait(240) == 1
        assert (
            launch.said().count("stopped and saved; continue with: torchrun … -m trainer resume runs/tiny/0001-tiny")
            == 1
        )
        assert launch.said().count("exitcode  : 130") == 2  # of each machine's torchrun
    payload = checkpoint.load_latest(run_dir)[1]
    assert payload["processes"] == 2
    assert payload["counters"]["images_seen"] < 19_200

    with submit() as launch:
        assert launch.process.wait(240) == 0, launch.said()
        assert f"from checkpoint-{payload['counters']['steps']:08d}.pt" in launch.said()
        assert "not bit-exact" not in launch.said()
    assert (tmp_path / "models" / "tiny.onnx").is_file()
    assert [path.name for path in (tmp_path / "runs" / "tiny").iterdir()] == ["0001-tiny"]
    assert steps(run_dir) == [*range(10, 301, 10)]
    made_by = json.loads((run_dir / "made_by.json").read_text(encoding="utf-8"))
    assert (made_by["machine"]["processes"], made_by["machine"]["machines"]) == (2, 2)

    alone = subprocess.run(
        [sys.executable, "-m", "trainer", "resume", str(run_dir), "--kimg", "19.84", "--data-root", "images"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert alone.returncode == 0, alone.stderr
    assert "note: 2 processes before, 1 now: not bit-exact" in alone.stdout
    assert checkpoint.load_latest(run_dir)[1]["processes"] == 1


def test_kubernetes_job_pods_train_together(tmp_path: Path, environment: dict[str, str]) -> None:
    service, job = yaml.safe_load_all(recipe("train-job.yaml"))
    for document in (service, job):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    name = job["metadata"]["name"]
    assert variables["MACHINES"] == str(job["spec"]["completions"]) == str(job["spec"]["parallelism"])
    assert variables["GPUS"] == container["resources"]["limits"]["nvidia.com/gpu"]
    assert variables["FIRST"] == f"{name}-0.{service['metadata']['name']}"
    assert (pod["subdomain"], service["spec"]["selector"]) == (service["metadata"]["name"], {"job-name": name})
    port = service["spec"]["ports"][0]["port"]

    (command,) = container["args"]
    assert f"--master-port {port}" in command
    command = command.replace(f"--master-port {port}", f"--master-port {free_port()}")
    command = command.replace("/training", str(tmp_path)).replace(
        "torchrun", f"{sys.executable} -m torch.distributed.run"
    )
    preset = tmp_path / "tiny.yaml"
    preset.write_text(
        "{name: tiny, data: {source: digits, resolution: 8}, model: {z_dim: 4, g_widths: [8], d_widths: [8]}, "
        "run: {device: cpu, threads: 1, total_kimg: 0.64, tick_kimg: 0.64}}",
        encoding="utf-8",
    )
    here = variables | environment | {"PRESET": str(preset), "GPUS": "1", "FIRST": "127.0.0.1"}
    pods = [Launch([*container["command"], command], tmp_path, here | {"JOB_COMPLETION_INDEX": str(i)}) for i in (0, 1)]
    with pods[0] as first, pods[1] as second:
        assert (first.process.wait(240), second.process.wait(240)) == (0, 0), first.said() + second.said()
    assert "trained:" in pods[0].said()
    assert (tmp_path / "models" / "tiny.onnx").is_file()


def test_fabric_dead_process_ends_the_other_in_one_line(tmp_path: Path, environment: dict[str, str]) -> None:
    with Launch(torchrun(*ONE_MACHINE, "-m", "trainer", "train", *TINY), tmp_path, environment) as launch:
        launch.wait_for("loss/D")
        launch.of_rank(0).kill()  # the one that talks
        assert launch.process.wait(240) == 1
        (line,) = launch.errors()
        assert "another process of this run ended" in line


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["--best", "--set", "run.patience_ticks=2"],
            "stopped: no improvement of quality/frechet for 2 ticks; best at",
        ),
        (["--minutes", "0.1"], "the minutes are used up at "),
    ],
    ids=["patience", "minutes"],
)
def test_fabric_end_before_the_length_is_that_of_all(
    arguments: list[str], reason: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    stuck = "model.architecture=mlp model.conditional=false optim.g_lr=1e-12 run.quality_ticks=1 run.quality_images=40"
    command = torchrun(*ONE_MACHINE, "-m", "trainer", "train", *TINY, "--export", "models", *arguments)
    command += [word for field in stuck.split() for word in ("--set", field)]
    with Launch(command, tmp_path, environment) as launch:
        assert launch.process.wait(240) == 0, launch.said()
        assert launch.said().count(reason) == 1
        assert ("best so far: checkpoint-00000010.pt at 0.64 kimg" in launch.said()) == ("--best" in arguments)
    assert (tmp_path / "models" / "tiny.onnx").is_file()


def test_fabric_hanging_process_times_out(tmp_path: Path, environment: dict[str, str]) -> None:
    command = torchrun(*ONE_MACHINE, "-m", "trainer", "train", *TINY)
    with Launch(command, tmp_path, environment | {"TRAINER_TIMEOUT_S": "3"}) as launch:
        launch.wait_for("loss/D")
        hanging = launch.of_rank(1)
        hanging.suspend()
        launch.wait_for("error:")
        hanging.kill()  # as torchrun does after 30 s
        assert launch.process.wait(240) == 1
        (line,) = launch.errors()
        assert "did not answer for 3 s" in line


def test_fabric_different_configs_fail(tmp_path: Path, environment: dict[str, str]) -> None:
    options = two_machines()
    one = torchrun(*options, "-m", "trainer", "train", *TINY, "--set", "optim.g_lr=3e-4")
    other = torchrun(*options, "-m", "trainer", "train", *TINY, "--set", "optim.g_lr=4e-4")
    with Launch(one, tmp_path, environment) as first, Launch(other, tmp_path, environment) as second:
        assert (first.process.wait(240), second.process.wait(240)) == (1, 1)
        (line,) = first.errors() + second.errors()
        assert re.search(r"the processes differ, process 0 → process 1: optim\.g_lr: 0\.000[34] → 0\.000[34]$", line)
        assert "exitcode  : 2" in first.said() + second.said()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("fields", "processes", "per_machine", "said"),
    [
        ({"optim": {"batch_size": 8}}, 3, 3, "use 6 or 9"),
        ({"optim": {"batch_size": 2}}, 3, 3, "use 3$"),
        ({"run": {"device": "cuda"}}, 4, 4, "4 processes on this machine, but PyTorch sees 2 CUDA device"),
        ({"run": {"device": "mps"}}, 2, 2, r"run\.device=cpu"),
        ({"optim": {"batch_size": 12}, "model": {"d_minibatch_std": True}}, 2, 2, "have 6 each.*use 16$"),
        ({}, 3, 2, "use the same --nproc-per-node"),
    ],
)
def test_fabric_indivisible_batch_fails(
    fields: dict[str, Any], processes: int, per_machine: int, said: str, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(TrainerError, match=said):
        fabric.check_division(tiny(**fields), processes, per_machine)
    fabric.check_division(tiny(), 2, 2)


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_fabric_invalid_timeout_fails(text: str, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_TIMEOUT_S", text)
    with pytest.raises(TrainerError, match="TRAINER_TIMEOUT_S"):
        fabric.check_division(tiny(), 2, 2)


@pytest.mark.parametrize("architecture", ["mlp", "dcgan", "sndcgan", "resnet"])
def test_fabric_on_cuda_synchronizes_batchnorm(architecture: str, tiny: Any) -> None:
    """The conversion needs no GPU: the same tensors, under the same names; a D that is penalised keeps its own."""
    widths = {"g_widths": [8, 8], "d_widths": [8, 8]}
    state = TrainState.create(tiny(model={"architecture": architecture, **widths}))
    launched = SimpleNamespace(
        device=torch.device("cuda"), global_rank=0, world_size=2, setup_module=lambda network, move_to_device: network
    )
    ranks = object.__new__(fabric.FabricProcessGroup)
    ranks.fabric = launched  # type: ignore[assignment]
    before = {name: tensor.data_ptr() for name, tensor in state.G.state_dict().items()}
    plain = [module for module in state.G.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert bool(plain) == (architecture != "mlp")
    assert ranks.prepare(state.G) is state.G
    synced = [module for module in state.G.modules() if isinstance(module, torch.nn.SyncBatchNorm)]
    assert len(synced) == len(plain)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in state.G.modules())
    assert {name: tensor.data_ptr() for name, tensor in state.G.state_dict().items()} == before

    kinds = [type(module) for module in state.D.modules()]
    ranks.prepare(state.D, double_backward=True)
    assert [type(module) for module in state.D.modules()] == kinds


def test_fabric_without_lightning_names_what_to_install(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delitem(sys.modules, "trainer.distributed.fabric")
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(TrainerError, match="pip install lightning-fabric"):
        distributed.join(tiny(), {})
