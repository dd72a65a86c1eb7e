"""Claims about the manifests: the cluster's own schemas take them, and they keep the service's promises."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings
from tests.support.kubernetes_manifests import KUBERNETES, SUFFIX, environment, expand, one, render, rendered
from tests.support.paths import ROOT

FOLDERS = ("cpu", "gpu", "evaluation", "trainer")
VERSIONS = ("1.29", kubernetes_validate.latest_version())  # the oldest that has all the fields, and the newest
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def pods(documents: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(d["metadata"]["name"], d["spec"]["template"]["spec"]) for d in documents if d["kind"] in PODDED]


def containers(documents: Any) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{name}/{c['name']}", c)
        for name, pod in pods(documents)
        for c in (*pod.get("initContainers", ()), *pod["containers"])
    ]


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number: 250m, 2, 10Gi."""
    number, unit = re.fullmatch(r"([0-9.]+)(m|Mi|Gi|)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"m": 1e-3, "": 1, "Mi": 2**20, "Gi": 2**30}[unit]


PODDED = ("Deployment", "Job")


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_match_the_published_schemas(folder: str, version: str) -> None:
    """Strictly: a field that the schema does not know is an error. A kind without a schema is one too."""
    documents = rendered(folder)
    for document in documents:
        assert kubernetes_validate.validate(document, version, strict=True) in version
    for path in (KUBERNETES / folder / "storage.yaml" for folder in ("trainer", "evaluation")):  # applied by themselves
        kubernetes_validate.validate(yaml.safe_load(path.read_text(encoding="utf-8")), version, strict=True)


def test_manifests_in_the_docs_are_valid() -> None:
    """Every YAML file and block of docs/ that is a manifest, whoever wrote it."""
    found = []
    for path in (ROOT / "docs").rglob("*.yaml"):
        found += [(path.name, document) for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    for page in (ROOT / "docs").rglob("*.md"):
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            found += [(page.name, d) for d in yaml.safe_load_all(block) if isinstance(d, dict) and "apiVersion" in d]
    for page_name, document in found:
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)
            assert document["metadata"]["name"], page_name
    assert found


@pytest.mark.parametrize(
    ("path", "value", "result"),
    [
        (("spec", "template", "spec", "containers", 0, "readynessProbe"), {}, "readynessProbe"),
        (("spec", "template", "spec", "terminationGracePeriodSeconds"), "45", "is not of type"),
        (("spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"), "http", "is not of type"),
        (("spec", "template", "spec", "containers", 0, "securityContext", "runAsNonroot"), True, "runAsNonroot"),
    ],
)
def test_validate_deliberate_mistake_is_caught(path: tuple[Any, ...], value: object, result: str) -> None:
    (document,) = (yaml.safe_load(yaml.safe_dump(d)) for d in rendered("cpu") if d["kind"] == "Deployment")
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(kubernetes_validate.ValidationError, match=result):
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


def test_render_patch_without_its_target_fails(tmp_path: Path) -> None:
    """kustomize refuses a component whose metric is not the queue's, rather than removing whatever is first."""
    (tmp_path / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"resources: [other.yaml]\ncomponents: [{relative(KUBERNETES / 'without-queue-metric', tmp_path)}]\n",
        encoding="utf-8",
    )
    other = one(rendered("cpu"), "HorizontalPodAutoscaler")
    (tmp_path / "other.yaml").write_text(
        yaml.safe_dump({**other, "spec": {**other["spec"], "metrics": []}}), encoding="utf-8"
    )
    with pytest.raises(AssertionError, match="metrics"):
        render(tmp_path)


def relative(path: Path, start: Path) -> str:
    done = subprocess.run(["realpath", f"--relative-to={start}", path], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("folder", FOLDERS)
def test_manifests_containers_have_minimal_rights(folder: str) -> None:
    for name, pod in pods(rendered(folder)):
        context = pod["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, 10001, 10001), name
        assert context["fsGroup"] == 10001, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        claims = {v["name"] for v in pod["volumes"]}
        for where, container in containers(rendered(folder)):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, where
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), where
            assert "memory" in container["resources"]["limits"], where
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert {m["name"] for m in container["volumeMounts"]} <= claims, name
            assert "/tmp" in {m["mountPath"] for m in container["volumeMounts"]}, "it is all that may be written"


@pytest.mark.parametrize("folder", FOLDERS)
def test_manifests_images_are_those_that_are_built(folder: str) -> None:
    for where, container in containers(rendered(folder)):
        role, _, tag = container["image"].removeprefix("gan-atelier/").partition(":")
        assert role in ("service", "trainer", "evaluation"), where
        assert tag == (f"{VERSION}-gpu" if (folder, role) == ("gpu", "service") else VERSION), where


@pytest.mark.parametrize("folder", ["cpu", "gpu"])
def test_manifests_settings_are_the_services(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = rendered(folder)
    deployment = one(documents, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    given = {"ATELIER_THREADS": container["resources"]["requests"]["cpu"]} if folder == "cpu" else {}
    variables = environment(container, documents, **given)
    for name in variables:
        assert name.removeprefix("ATELIER_").lower() in Settings.model_fields, name
        monkeypatch.setenv(name, variables[name])
    settings = Settings()
    (mount,) = (m for m in container["volumeMounts"] if m["name"] == "models")
    assert settings.model_dir == Path(mount["mountPath"])
    assert mount["readOnly"]
    # a stop loses no accepted request, and the kubelet waits for it
    assert settings.drain_s + settings.deadline_s <= settings.grace_s
    assert pod["terminationGracePeriodSeconds"] > settings.grace_s + 2
    readiness = container["readinessProbe"]
    assert settings.drain_s >= readiness["periodSeconds"] * readiness["failureThreshold"]
    assert settings.threads == (2 if folder == "cpu" else None)
    assert settings.provider == ("cpu" if folder == "cpu" else "cuda")


@pytest.mark.parametrize("folder", ["cpu", "gpu"])
def test_manifests_models_take_a_quarter_of_the_memory_limit(folder: str) -> None:
    """All workers together; and what makes way finds room on /tmp, were it every file of the models' volume."""
    documents = rendered(folder)
    pod = one(documents, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = environment(container, documents, ATELIER_THREADS="2")
    loaded = int(variables["ATELIER_MAX_LOADED_BYTES"]) * int(variables["ATELIER_WORKERS"])
    assert 0 < loaded <= quantity(container["resources"]["limits"]["memory"]) / 4
    (tmp,) = (volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "tmp")
    assert "medium" not in tmp, "in memory it would count against the limit"
    models = one(documents, "PersistentVolumeClaim", "models")["spec"]["resources"]["requests"]["storage"]
    assert quantity(tmp["sizeLimit"]) >= quantity(models)


@pytest.mark.parametrize("folder", ["cpu", "gpu"])
def test_manifests_ports_paths_and_selectors_match(folder: str) -> None:
    documents = rendered(folder)
    template = one(documents, "Deployment")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    (port,) = container["ports"]
    service, budget = one(documents, "Service"), one(documents, "PodDisruptionBudget")
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    result = template["metadata"]["annotations"]
    assert (result["prometheus.io/port"], result["prometheus.io/path"]) == (str(port["containerPort"]), "/metrics")
    for selector in (service["spec"]["selector"], budget["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= template["metadata"]["labels"].items()
    paths = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {probe["port"] for probe in paths.values()} == {port["name"]}
    assert [probe["path"] for probe in paths.values()] == ["/livez", "/readyz", "/livez"]


def test_manifests_only_the_gpu_overlay_requests_a_gpu() -> None:
    for folder, wanted in (("cpu", False), ("gpu", True), ("trainer", True), ("evaluation", False)):
        for name, pod in pods(rendered(folder)):
            limits = pod["containers"][0]["resources"]["limits"]
            assert (limits.get("nvidia.com/gpu") == "1") is wanted, name
            assert any(t["key"] == "nvidia.com/gpu" for t in pod.get("tolerations", ())) is wanted, name


def test_manifests_autoscaler_metric_is_the_adapters() -> None:
    scaler = one(rendered("cpu"), "HorizontalPodAutoscaler")["spec"]
    queue, processor = scaler["metrics"]
    adapter = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text(encoding="utf-8"))
    (rule,) = adapter["rules"]["custom"]
    assert queue["pods"]["metric"]["name"] == rule["name"]["as"] == rule["name"]["matches"]
    assert rule["seriesQuery"].startswith(rule["name"]["matches"] + "{")
    assert set(rule["resources"]["overrides"]) == set(re.findall(r'(\w+)!=""', rule["seriesQuery"]))
    assert processor["resource"]["name"] == "cpu"
    assert "replicas" not in one(rendered("cpu"), "Deployment")["spec"], "each apply would undo the autoscaler's work"
    # more rows than may wait would never be reached
    assert int(queue["pods"]["target"]["averageValue"]) < Settings().max_queue_rows


def test_manifests_without_the_adapter_scale_by_cpu(tmp_path: Path) -> None:
    base, component = (relative(KUBERNETES / name, tmp_path) for name in ("cpu", "without-queue-metric"))
    (tmp_path / "kustomization.yaml").write_text(
        f"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [{base}]\n"
        f"components: [{component}]\n",
        encoding="utf-8",
    )
    documents = render(tmp_path)
    (metric,) = one(documents, "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["resource"]["name"] == "cpu"
    for document in documents:
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("folder", ["trainer", "evaluation"])
def test_manifests_job_volumes_outlive_their_jobs(folder: str) -> None:
    """Deleting the folder's Jobs must not delete their volume; another run of theirs is another name."""
    documents = rendered(folder)
    assert {d["kind"] for d in documents} == {"Job", "ConfigMap"}
    (volume,) = yaml.safe_load_all((KUBERNETES / folder / "storage.yaml").read_text(encoding="utf-8"))
    for name, pod in pods(documents):
        claims = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
        assert volume["metadata"]["name"] in claims <= {volume["metadata"]["name"], "models"}, name
    result = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text(encoding="utf-8"))
    for name, _ in pods(documents):
        assert name.endswith(result["nameSuffix"]), name
    if folder == "evaluation":
        assert result["nameSuffix"] == "-" + one(documents, "ConfigMap")["data"]["REPORT"], "they change together"


def test_manifests_waiting_pods_leave_cores_to_running_ones() -> None:
    """A pod's request is the greater of its init containers' and its containers', and held while it waits."""
    documents = rendered("evaluation")
    asked = {}
    for name, pod in pods(documents):
        cores = [quantity(c["resources"]["requests"]["cpu"]) for c in pod["initContainers"]]
        running = sum(quantity(c["resources"]["requests"]["cpu"]) for c in pod["containers"])
        asked[name.split("-")[1]] = max(*cores, running)
    result = (ROOT / "docs" / "guides" / "clusters.md").read_text(encoding="utf-8")
    least = asked["merge"] + max(asked["prepare"], asked["shards"])
    shards = one(documents, "Job", f"evaluation-shards{SUFFIX}")["spec"]["parallelism"]
    assert asked["merge"] <= 0.25
    assert f"{least:g} cores" in result
    assert f"{asked['merge'] + asked['prepare'] + shards * asked['shards']:g}" in result
    names = [name for name, _ in pods(documents)]
    first = names.index(f"evaluation-prepare{SUFFIX}")
    assert first < names.index(f"evaluation-shards{SUFFIX}"), "waiting shards would hold the cores that prepare needs"


def test_manifests_jobs_do_not_retry_user_errors() -> None:
    for folder in ("evaluation", "trainer"):
        for job in (d for d in rendered(folder) if d["kind"] == "Job"):
            disruption, mistake = job["spec"]["podFailurePolicy"]["rules"]
            assert disruption == {
                "action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            }
            assert mistake["action"] == "FailJob"
            assert mistake["onExitCodes"] == {"operator": "In", "values": [1, 2]}
            assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never", "failure policies need it"


def test_expand_variables_as_the_kubelet_does() -> None:
    known = {"A": "1", "B": "two"}
    assert expand("$(A)/$(B)", known) == "1/two"
    assert expand("$$(A) $(C) $A $", known) == "$(A) $(C) $A $"
    assert expand("$(ls $(A)) $(B)", known) == "$(ls $(A)) two", "a variable within $(…) stays: shells have $A"
    for folder in FOLDERS:
        for where, container in containers(rendered(folder)):
            given = dict.fromkeys(("ATELIER_THREADS", "JOB_COMPLETION_INDEX", "JOB_NAME"), "0")
            variables = environment(container, rendered(folder), **given)
            for word in (*container.get("command", ()), *container.get("args", ())):
                left = re.findall(r"\$\(([A-Z_]+)\)", expand(word, variables))
                assert not left, f"{where}: {left}"
