"""Stand-ins for the packages trackio, mlflow and wandb: they record calls, under the signatures of the real ones.

Compared with trackio 0.43.0, mlflow 3.17.2 and wandb 0.31.0. A call with an argument that the real one lacks fails.
"""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image


def install(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> types.ModuleType:
    """Put a stand-in package into sys.modules until the test ends."""
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, origin="stand-in")
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)
    return module


class Trackio:
    """trackio.init, Image and finish; `rows` is what is stored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inits: list[dict[str, Any]] = []
        self.rows: list[tuple[str, int | None, dict[str, Any]]] = []
        self.configs: list[dict[str, Any]] = []
        self.finished = 0
        install(monkeypatch, "trackio", init=self.init, Image=self.image, finish=self.finish)

    def init(
        self, project, name=None, group=None, space_id=None, server_url=None, dataset_id=None, bucket_id=None,
        config=None, resume="never", settings=None, private=None, embed=True, auto_log_gpu=None, gpu_log_interval=10.0,
        auto_log_cpu=None, cpu_log_interval=10.0, webhook_url=None, webhook_min_level=None,
    ) -> Any:  # fmt: skip
        print("* Trackio project initialized")
        self.inits.append({"project": project, "name": name, "group": group, "resume": resume, "space_id": space_id})
        stand_in = self

        class Run:
            def __init__(self) -> None:
                self.config: dict[str, Any] = {}

            def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
                stand_in.rows.append((name, step, metrics))

        run = Run()
        self.configs.append(run.config)
        return run

    def image(self, value: Image.Image, caption: str | None = None) -> Image.Image:
        assert isinstance(value, Image.Image)
        return value

    def finish(self) -> None:
        print("* Run finished")
        self.finished += 1


class Named(NamedTuple):
    """mlflow.entities.Param."""

    key: str
    value: str


class Measured(NamedTuple):
    """mlflow.entities.Metric."""

    key: str
    value: float
    timestamp: int
    step: int


class Mlflow:
    """mlflow.MlflowClient on one store in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
        self.uri = f"sqlite:///{store}"
        self.is_set = False
        self.opened: list[str | None] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, str] = {}
        stand_in = self

        class MlflowException(Exception):
            def __init__(self, message: str, error_code: str = "INTERNAL_ERROR") -> None:
                super().__init__(message)
                self.error_code = error_code

        def made(**values: Any) -> types.SimpleNamespace:
            return types.SimpleNamespace(**values)

        class MlflowClient:
            def __init__(self, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
                stand_in.opened.append(tracking_uri)

            def get_experiment_by_name(self, name: str) -> Any:
                found = stand_in.experiments.get(name)
                return made(experiment_id=found) if found else None

            def create_experiment(self, name: str, artifact_location=None, tags=None) -> str:
                stand_in.experiments[name] = str(len(stand_in.experiments) + 1)
                return stand_in.experiments[name]

            def create_run(self, experiment_id: str, start_time=None, tags=None, run_name=None) -> Any:
                run_id = f"run{len(stand_in.runs)}"
                stand_in.runs[run_id] = {
                    "name": run_name, "tags": tags, "status": "RUNNING", "params": {}, "metrics": [], "images": []
                }  # fmt: skip
                return made(info=made(run_id=run_id))

            def update_run(self, run_id: str, status: str | None = None, name: str | None = None) -> None:
                if run_id not in stand_in.runs:
                    raise MlflowException(f"Run with id={run_id} not found", "RESOURCE_DOES_NOT_EXIST")
                stand_in.runs[run_id]["status"] = status

            def log_batch(self, run_id, metrics=(), params=(), tags=(), synchronous=None) -> None:
                assert len(params) <= 100
                for param in params:
                    assert isinstance(param.value, str)
                    assert param.key not in stand_in.runs[run_id]["params"]
                    stand_in.runs[run_id]["params"][param.key] = param.value
                stand_in.runs[run_id]["metrics"] += metrics

            def log_image(
                self, run_id, image, artifact_file=None, key=None, step=None, timestamp=None, synchronous=None
            ) -> None:  # fmt: skip
                assert isinstance(image, Image.Image)
                stand_in.runs[run_id]["images"].append((key, step))

            def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
                stand_in.runs[run_id]["status"] = status

        install(
            monkeypatch,
            "mlflow",
            MlflowClient=MlflowClient,
            get_tracking_uri=lambda: stand_in.uri,
            is_tracking_uri_set=lambda: stand_in.is_set,
        )
        install(monkeypatch, "mlflow.exceptions", MlflowException=MlflowException)
        install(monkeypatch, "mlflow.entities", Metric=Measured, Param=Named)


class Wandb:
    """wandb.init, Settings, Image and setup."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mode: str = "online") -> None:
        self.inits: list[dict[str, Any]] = []
        self.rows: list[tuple[str, int | None, dict[str, Any]]] = []
        self.configs: list[dict[str, Any]] = []
        self.exit_codes: list[int | None] = []
        settings = types.SimpleNamespace(mode=mode, base_url="https://api.wandb.ai")
        install(
            monkeypatch,
            "wandb",
            init=self.init,
            Settings=dict,
            Image=lambda data_or_path, mode=None, caption=None: data_or_path,
            setup=lambda: types.SimpleNamespace(settings=settings),
        )

    def init(
        self, entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None, config=None,
        config_exclude_keys=None, config_include_keys=None, allow_val_change=None, group=None, job_type=None,
        mode=None, force=None, reinit=None, resume=None, resume_from=None, fork_from=None, save_code=None,
        tensorboard=None, sync_tensorboard=None, monitor_gym=None, settings=None,
    ) -> Any:  # fmt: skip
        given = {"project": project, "dir": dir, "id": id, "name": name, "group": group, "mode": mode}
        self.inits.append(given | {"resume": resume, "settings": settings})
        stand_in, run_id = self, id or f"wandb{len(self.inits)}"

        class Config(dict[str, Any]):
            def update(self, values: dict[str, Any], allow_val_change: bool | None = None) -> None:  # type: ignore[override]
                super().update(values)

        class Run:
            offline, disabled, url = mode == "offline", False, "https://wandb.ai/me/gan-atelier/runs/1"

            def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
                if stand_in.rows and stand_in.rows[-1][:2] == (run_id, step):
                    stand_in.rows[-1][2].update(data)
                else:
                    stand_in.rows.append((run_id, step, dict(data)))

            def finish(self, exit_code: int | None = None) -> None:
                stand_in.exit_codes.append(exit_code)

        run = Run()
        run.id, run.config = run_id, Config()  # type: ignore[attr-defined]
        run.dir = f"{dir}/wandb/offline-run-1-{run_id}/files"  # type: ignore[attr-defined]
        self.configs.append(run.config)  # type: ignore[attr-defined]
        return run
