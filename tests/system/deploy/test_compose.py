"""Claims about compose.yaml: the specification's schema takes it, and what it names exists where it says."""

import copy
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from jsonschema.validators import validator_for

from service.settings import Settings
from tests.support.paths import ROOT
from tests.support.service.service_process import Server

DOCKER = ROOT / "docker"
ROLES = {"service": "service", "first-model": "service", "trainer": "trainer", "extractor": "trainer"}
ROLES |= {"evaluation": "evaluation"}


def load(name: str) -> dict[str, Any]:
    """The file with each `${NAME:-default}` at its default; filled in after reading, as Compose does."""

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [filled(inner) for inner in value]
        return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) if isinstance(value, str) else value

    result = filled(yaml.safe_load((DOCKER / name).read_text(encoding="utf-8")))
    assert "${" not in json.dumps(result), "every variable has a default"
    return result


def schema_errors(document: dict[str, Any]) -> list[str]:
    """What the Compose specification's schema, which check-jsonschema carries, has against it."""
    schema = json.loads(
        (files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text(encoding="utf-8")
    )
    errors = validator_for(schema)(schema).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return load("compose.yaml")


def ours(compose: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in ROLES:
        yield name, compose["services"][name]


def test_compose_files_match_the_specifications_schema(compose: dict[str, Any]) -> None:
    assert not schema_errors(yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8")))
    assert not schema_errors(compose)
    assert not schema_errors(load("compose.gpu.yaml"))
    for field, value in (("imagee", "x"), ("stop_grace_period", ["35s"]), ("mem_limit", {})):
        wrong = copy.deepcopy(compose)
        wrong["services"]["service"][field] = value
        assert any(field in error for error in schema_errors(wrong)), field


def test_compose_images_are_those_that_are_built(compose: dict[str, Any]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    gpu = load("compose.gpu.yaml")["services"]
    for name, service in ours(compose):
        assert service["image"] == f"gan-atelier/{ROLES[name]}:{version}"
        assert service["build"]["dockerfile"] == f"docker/{ROLES[name]}.Dockerfile"
        assert (DOCKER / service["build"]["context"]).resolve() == ROOT
        if ROLES[name] == "service":
            assert gpu[name]["image"] == f"{service['image']}-gpu"
    assert gpu.keys() <= compose["services"].keys(), "an override of nothing would be another service"
    for name in ("service", "trainer", "extractor"):
        (device,) = gpu[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]


def test_compose_only_jobs_have_profiles(compose: dict[str, Any]) -> None:
    profiles = {name: service.get("profiles", []) for name, service in compose["services"].items()}
    assert {name for name, of in profiles.items() if not of} == {"service", "first-model", "prometheus", "grafana"}
    assert profiles["trainer"] == ["train"]
    assert profiles["extractor"] == profiles["evaluation"] == ["evaluate"]
    for name, service in compose["services"].items():
        for other in service.get("depends_on", ()):
            assert set(profiles[other]) <= set(profiles[name]), f"{name} would wait for {other}, which is not there"


def test_compose_volumes_and_files_exist(compose: dict[str, Any]) -> None:
    used = set()
    for name, service in compose["services"].items():
        for mount in service.get("volumes", ()):
            source, target = mount.split(":")[:2]
            if source.startswith("."):
                assert (DOCKER / source).exists(), f"{name}: {source}"
            else:
                used.add(source)
            assert target.startswith("/"), name
    assert used == compose["volumes"].keys()


def test_compose_services_of_ours_are_contained(compose: dict[str, Any]) -> None:
    for name, service in ours(compose):
        assert service["read_only"], name
        assert service["pull_policy"] == "never", f"{name}: a stranger may hold the name on a public registry"
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["tmpfs"] == ["/tmp:mode=1777"], name
        if name != "first-model":  # a new volume is root's: it is handed over
            assert service["user"] == "10001:10001", name
            assert "cap_add" not in service, name


def test_compose_settings_are_the_services(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for override in ({}, load("compose.gpu.yaml")["services"]["service"]["environment"]):
        for name, value in (compose["services"]["service"]["environment"] | override).items():
            assert name.removeprefix("ATELIER_").lower() in Settings.model_fields, name
            monkeypatch.setenv(name, str(value))
        settings = Settings()
        (mount,) = compose["services"]["service"]["volumes"]
        assert mount == f"models:{settings.model_dir}:ro"
        patience = float(compose["services"]["service"]["stop_grace_period"].removesuffix("s"))
        assert patience > settings.grace_s + 2
    assert settings.provider == "cuda"


def test_compose_models_take_a_quarter_of_the_memory_limit(compose: dict[str, Any]) -> None:
    service, gpu = compose["services"]["service"], load("compose.gpu.yaml")["services"]["service"]
    for result in (service, {**gpu, "environment": service["environment"] | gpu["environment"]}):
        loaded = int(result["environment"]["ATELIER_MAX_LOADED_BYTES"]) * int(
            result["environment"]["ATELIER_WORKERS"] or 1
        )
        assert 0 < loaded <= int(result["mem_limit"].removesuffix("g")) * 2**30 / 4


def test_compose_publishes_to_loopback_by_default(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_compose_first_start_has_a_model_later_keeps_ours(compose: dict[str, Any], tmp_path: Path) -> None:
    """No export of the trainer has the bundled model's name."""
    service = compose["services"]["first-model"]
    (code,) = service["command"]
    (tmp_path / "models").mkdir()
    code = code.replace('"/models', f'"{tmp_path}/models').replace("os.chown", "print")
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
        assert [p.name for p in (tmp_path / "models").iterdir()] == ["bundled-digits.onnx"]
    (tmp_path / "models" / "bundled-digits.onnx").rename(tmp_path / "models" / "mine.onnx")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["mine.onnx"]


def test_compose_job_commands_are_accepted(compose: dict[str, Any], tmp_path: Path) -> None:
    import evaluation.cli
    import trainer.cli

    services = compose["services"]
    said = services["extractor"]["command"][0].replace("$$", "$").partition("||")[2].replace("$IMAGES", "digits")
    commands = {
        "trainer": (trainer.cli.app, services["trainer"]["command"]),
        "evaluation": (evaluation.cli.app, services["evaluation"]["command"]),
        "extractor": (evaluation.cli.app, shlex.split(said)[2:]),
    }
    for name, (app, words) in commands.items():
        group = typer.main.get_command(app)
        context = group.make_context(name, list(words))  # an unknown option is an error
        sub, _, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        group.commands[sub].make_context(sub, rest)
        mounted = [mount.split(":")[1] for mount in services[name]["volumes"]]
        for path in re.findall(r"(?<![\w:/])/\w+", " ".join(map(str, words))):
            assert path in mounted, f"{name} names {path}, where nothing is mounted"


def test_compose_prometheus_and_grafana_find_each_other(compose: dict[str, Any]) -> None:
    services = compose["services"]
    (scrape,) = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    (discovery,) = scrape["dns_sd_configs"]
    assert discovery["names"] == ["service"]
    (port,) = services["service"]["ports"]
    assert port.split(":")[-1] == str(discovery["port"])
    provisioning = DOCKER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))[
        "datasources"
    ]
    assert source["url"] == f"http://prometheus:{services['prometheus']['ports'][0].split(':')[-1]}"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "gan-atelier.yaml").read_text(encoding="utf-8"))[
        "providers"
    ]
    mounts = dict(mount.split(":")[:2][::-1] for mount in services["grafana"]["volumes"])
    assert mounts["/etc/grafana/provisioning"] == "./grafana/provisioning"
    folder = provider["options"]["path"]
    home = Path(services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == folder
    dashboard = json.loads((DOCKER / mounts[folder] / home.name).read_text(encoding="utf-8"))
    (variable,) = (v for v in dashboard["templating"]["list"] if v["type"] == "datasource")
    assert variable["query"] == source["type"], "it takes the first source of its type, and there is one"


def dockerfile(role: str) -> str:
    return (DOCKER / f"{role}.Dockerfile").read_text(encoding="utf-8")


def test_compose_uses_what_the_dockerfiles_declare(compose: dict[str, Any]) -> None:
    for name, service in ours(compose):
        result = dockerfile(ROLES[name])
        for argument in service["build"]["args"] | {"ONNXRUNTIME": ""}:
            assert re.search(rf"^ARG {argument}\b", result, re.M), f"{name}: {argument}"
        if name == "first-model":
            continue
        assert f"USER {service['user']}\n" in result, name
        made = re.search(r"mkdir /volumes && cd /volumes && mkdir ([\w ]+) &&", result)
        for mount in service["volumes"]:
            _, target, *mode = mount.split(":")
            if "ro" not in mode:  # a new volume takes its owner from the image
                assert made, name
                assert target.removeprefix("/") in made[1].split(), f"{name}: {target}"
    (port,) = compose["services"]["service"]["ports"]
    assert f"EXPOSE {port.split(':')[-1]}\n" in dockerfile("service")
    (check,) = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", dockerfile("service"), re.M)
    assert compose["services"]["service"]["healthcheck"]["test"] == ["CMD", *json.loads(check)]
    (base,) = re.findall(r"^ARG BASE=(.+)$", dockerfile("service"), re.M)
    assert compose["services"]["service"]["build"]["args"]["BASE"] == base


@pytest.mark.slow
def test_compose_health_check_reports_readiness(compose: dict[str, Any], service: Server, free_port: int) -> None:
    kind, _, *words = compose["services"]["service"]["healthcheck"]["test"]
    assert kind == "CMD"

    def healthy(address: str) -> int:
        env = {**os.environ, "PORT": address.rpartition(":")[2]}
        return subprocess.run([sys.executable, *words], capture_output=True, check=False, env=env).returncode

    assert healthy(service.url.removeprefix("http://")) == 0
    assert healthy(f"127.0.0.1:{free_port}") == 1
