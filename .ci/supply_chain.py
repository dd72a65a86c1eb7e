"""Bills of materials and known vulnerabilities of each image's Python packages, by cyclonedx-py and pip-audit.

python .ci/supply_chain.py sbom       sbom/<role>.cdx.json (CycloneDX 1.6) and sbom/<role>.licences.md of each role
python .ci/supply_chain.py audit      known vulnerabilities of all roles' packages. Exit code 1: there are some,
                                      2: the advisory database did not answer

Both tools describe a whole environment; this selects the packages of a role. They are those that its extras need, in
the versions of the environment that runs this, which are constraints.txt's, as in the images. For Debian's packages in
an image use an image scanner (docs/operations/security.md).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ROLES = {"trainer": ("train", "eval"), "service": ("serve",), "evaluation": ("eval",)}
RUNTIMES = {"onnxruntime": "cpu", "onnxruntime-gpu": "gpu"}


class SupplyError(Exception):
    """One line: what is missing, and what to do."""


def closure(role: str) -> dict[str, str]:
    """Return the packages that a role's extras need on this Python and platform: version by canonical name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runtime = next((extra for name, extra in RUNTIMES.items() if _is_installed(name)), "cpu")
    texts = list(project["dependencies"])
    for extra in (*ROLES[role], runtime):
        texts += project["optional-dependencies"][extra]
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    pending = [(Requirement(text), "") for text in texts]
    while pending:
        requirement, extra = pending.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            package = distribution(name)
        except PackageNotFoundError:
            raise SupplyError(f"{name}, which the {role} needs, is not installed here; run make setup") from None
        found[name] = package.version
        for extra_name in ("", *requirement.extras):
            if (name, extra_name) not in seen:
                seen.add((name, extra_name))
                pending += [(Requirement(text), extra_name) for text in package.requires or ()]
    return found


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def environment_bom() -> dict[str, Any]:
    """Return the CycloneDX document of the whole environment."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--no-validate", "--output-reproducible"]
    command += ["--pyproject", str(ROOT / "pyproject.toml"), "--output-format", "JSON", sys.executable]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError as error:
        raise SupplyError(f"cyclonedx-py failed; is it installed (make setup)? {error.stderr[-200:]}") from None
    return dict(json.loads(done.stdout))


def role_bom(whole: dict[str, Any], role: str) -> dict[str, Any]:
    """Return the part of an environment's document that belongs to a role; SupplyError if a package is missing."""
    packages = closure(role)
    components = [c for c in whole["components"] if canonicalize_name(c["name"]) in packages]
    if missing := packages.keys() - {canonicalize_name(c["name"]) for c in components}:
        raise SupplyError(f"the environment's bill does not have {', '.join(sorted(missing))}")
    root = dict(whole["metadata"]["component"], name=f"gan-atelier/{role}")
    kept = {c["bom-ref"] for c in components} | {root["bom-ref"]}
    edges = [
        {**edge, "dependsOn": [ref for ref in edge.get("dependsOn", ()) if ref in kept]}
        for edge in whole["dependencies"]
        if edge["ref"] in kept
    ]
    return {
        **whole,
        "metadata": {**whole["metadata"], "component": root},
        "components": components,
        "dependencies": edges,
    }


def licenses(bom: dict[str, Any]) -> str:
    """Return a Markdown table of the components and the licenses that their metadata declare."""
    lines = ["| package | version | license |", "|---|---|---|"]
    for component in sorted(bom["components"], key=lambda c: str(c["name"]).lower()):
        declared = [
            entry.get("expression") or entry["license"].get("id") or entry["license"]["name"]
            for entry in component.get("licenses", ())
        ]
        # Classifiers repeat the identifier.
        short = [text.removeprefix("License :: OSI Approved :: ").splitlines()[0] for text in dict.fromkeys(declared)]
        lines.append(f"| {component['name']} | {component['version']} | {'; '.join(short) or 'not declared'} |")
    return "\n".join(lines) + "\n"


def sbom(folder: Path) -> None:
    """Write the bill of materials and the table of licenses of each role."""
    whole = environment_bom()
    folder.mkdir(parents=True, exist_ok=True)
    for role in ROLES:
        bom = role_bom(whole, role)
        (folder / f"{role}.cdx.json").write_text(json.dumps(bom, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        (folder / f"{role}.licences.md").write_text(licenses(bom), encoding="utf-8")
        silent = sum(not component.get("licenses") for component in bom["components"])
        print(f"{folder / role}.cdx.json: {len(bom['components'])} packages, {silent} declare no license")


def audit(service: str) -> int:
    """Run pip-audit on all roles' packages and return the exit code."""
    roles = {role: closure(role) for role in ROLES}
    packages = {name: version for found in roles.values() for name, version in found.items()}
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "requirements.txt"
        pinned.write_text(
            "".join(f"{name}=={version}\n" for name, version in sorted(packages.items())), encoding="utf-8"
        )
        command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--format", "json"]
        command += ["--requirement", str(pinned), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        print(f"not audited: {service}'s advisories are not available ({last[:200]})", file=sys.stderr)
        return 2
    skipped = sorted(entry["name"] for entry in dependencies if "skip_reason" in entry)
    # A mirror of the index has the packages, but not the advisories.
    if len(skipped) == len(dependencies):
        print(
            f"not audited: {service}'s advisories are not available: it knows none of the {len(dependencies)} packages",
            file=sys.stderr,
        )
        return 2
    if skipped:
        print(f"not audited, because {service} does not know them: {', '.join(skipped)}", file=sys.stderr)
    bad = [entry for entry in dependencies if entry.get("vulns")]
    for entry in bad:
        affected = ", ".join(role for role, found in roles.items() if canonicalize_name(entry["name"]) in found)
        for vulnerability in entry["vulns"]:
            fixed = ", ".join(vulnerability.get("fix_versions", ())) or "none yet"
            print(f"{entry['name']} {entry['version']} ({affected}): {vulnerability['id']}, fixed in {fixed}")
    print(f"{len(dependencies) - len(skipped)} packages audited, {len(bad)} with known vulnerabilities")
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    bill = commands.add_parser("sbom", help="write a bill of materials and the licenses of each role")
    bill.add_argument("--output", type=Path, default=Path("sbom"))
    asking = commands.add_parser("audit", help="report known vulnerabilities of the roles' packages")
    asking.add_argument("--service", choices=("pypi", "osv"), default="pypi", help="whose advisories")
    given = parser.parse_args()
    try:
        if given.command == "audit":
            return audit(given.service)
        sbom(given.output)
    except SupplyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
