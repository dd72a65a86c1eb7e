"""The supply chain: a bill is complete and only of its role, and a missing answer does not pass as an audit."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.support.paths import ROOT

sys.path.append(str(ROOT / ".ci"))
import supply_chain as supply

pytestmark = pytest.mark.slow


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / ".ci/supply_chain.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def bills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sbom")
    done = run("sbom", "--output", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def bill(folder: Path, role: str) -> dict[str, Any]:
    return json.loads((folder / f"{role}.cdx.json").read_text(encoding="utf-8"))


def test_roles_are_those_of_the_dockerfiles() -> None:
    for role, extras in supply.ROLES.items():
        (extras_text,) = re.findall(
            r"'\.\[([\w,]+)\]'", (ROOT / "docker" / f"{role}.Dockerfile").read_text(encoding="utf-8")
        )
        assert tuple(extras_text.split(",")) == extras, role


def test_role_bom_has_exactly_what_the_role_needs(bills: Path) -> None:
    names = {role: {c["name"].lower() for c in bill(bills, role)["components"]} for role in supply.ROLES}
    assert {"torch", "matplotlib", "onnxruntime"} <= names["trainer"]
    assert {"bentoml", "fastapi", "starlette", "onnxruntime"} <= names["service"]
    assert {"httpx", "scipy", "onnxruntime"} <= names["evaluation"]
    assert "pysocks" in names["trainer"], "which gdown needs by requests' extra"
    for role in ("service", "evaluation"):
        assert not names[role] & {"torch", "torchvision"}, role
    for role, found in names.items():
        assert not found & {"pytest", "mypy", "ruff", "cyclonedx-bom"}, role


def test_role_bom_is_valid_cyclonedx(bills: Path) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    document = bill(bills, "evaluation")
    assert validator.validate_str(json.dumps(document)) is None
    document["components"] = document["components"][:1]
    del document["components"][0]["name"]
    assert validator.validate_str(json.dumps(document)) is not None, "a deliberate mistake"
    for role in supply.ROLES:
        document = bill(bills, role)
        assert document["metadata"]["component"]["name"] == f"gan-atelier/{role}"
        refs = {c["bom-ref"] for c in document["components"]} | {document["metadata"]["component"]["bom-ref"]}
        assert {ref for edge in document["dependencies"] for ref in (edge["ref"], *edge["dependsOn"])} <= refs
        assert all(c["purl"].startswith("pkg:pypi/") and c["version"] for c in document["components"])


def test_licenses_are_listed(bills: Path) -> None:
    lines = (bills / "service.licences.md").read_text(encoding="utf-8").splitlines()[2:]
    assert len(lines) == len(bill(bills, "service")["components"])
    assert any(re.fullmatch(r"\| fastapi \| [\d.]+ \| MIT \|", line) for line in lines)


def test_closure_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        if name == "fastapi":
            raise supply.PackageNotFoundError(name)
        return found(name)

    found = supply.distribution
    monkeypatch.setattr(supply, "distribution", absent)
    with pytest.raises(supply.SupplyError, match="fastapi, which the service needs, is not installed here; run make"):
        supply.closure("service")
    assert supply.closure("evaluation")


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        ("[{'name': n, 'version': v, 'vulns': []} for n, v in asked]", 0, "0 with known vulnerabilities"),
        (
            "[{'name': n, 'version': v, 'vulns': [{'id': 'CVE-1', 'fix_versions': ['9']}] if n == 'fastapi' else []}"
            " for n, v in asked]",
            1,
            r"fastapi [\d.]+ \(service\): CVE-1, fixed in 9",
        ),
        ("[{'name': n, 'skip_reason': 'not found'} for n, v in asked]", 2, "not audited: pypi's advisories are not"),
        ("1 / 0", 2, "not audited: pypi's advisories are not available .*division by zero"),
    ],
)
def test_audit_without_advisories_exits_2(tmp_path: Path, answer: str, code: int, message: str) -> None:
    """With a pip_audit in the real one's place that answers without a network."""
    (tmp_path / "pip_audit.py").write_text(
        "import json, sys\n"
        "path = sys.argv[sys.argv.index('--requirement') + 1]\n"
        "asked = [line.split('==') for line in open(path).read().split()]\n"
        f"print(json.dumps({{'dependencies': {answer}}}))\n",
        encoding="utf-8",
    )
    done = run("audit", PYTHONPATH=str(tmp_path))
    assert done.returncode == code
    assert re.search(message, done.stdout + done.stderr)
    assert "Traceback" not in done.stderr
