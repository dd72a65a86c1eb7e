"""`python -m tests.support.service.fuzz --cases 5000`: schemathesis over /openapi.json, against a real service.

Every check but `positive_data_acceptance`, since a latent's width and a label's range are the model's, which the
schema cannot know. The schema's model names and digests are replaced by those that are served: made up, they would
end every case at "no such model". Exit code 1: a check failed, fewer cases than requested were run, or a route never
answered with images.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.paths import ROOT
from tests.support.service.service_process import served
from tests.support.tiny_generator import write_tiny_generator

OPERATIONS = 12  # fewer than there are; the number of cases that came is checked
MODEL_ROUTES = (
    *("/v1/generate", "/v1/interpolate", "/v1/mix"),
    *("/v1/models/{name}", "/v1/models/{name}/images/{seed}.{form}"),
)


@dataclass
class Fuzzed:
    """A run of schemathesis: its exit code, how many cases it made, what it wrote, and each model route's 200s."""

    code: int
    cases: int
    output: str
    reached: dict[str, int]


def fuzz(cases: int, seed: int = 1, workers: int = 2) -> Fuzzed:
    """Run at least about `cases` cases against a service of two generators."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_generator(folder / "models" / "tiny.onnx")
        write_tiny_generator(folder / "models" / "coloured.onnx", name="coloured", channels=3, num_classes=3)
        with served(folder / "models", folder / "log", ATELIER_ACCESS_LOG="off", ATELIER_DRAIN_S=0) as server:
            document = httpx.get(f"{server.url}/openapi.json").json()
            models = httpx.get(f"{server.url}/v1/models").json()["data"]
            schema = folder / "openapi.json"
            schema.write_text(json.dumps(with_models(document, models)), encoding="utf-8")
            command = [
                *(str(Path(sys.executable).with_name("schemathesis")), "run", str(schema), "--url", server.url),
                *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
                *("--max-examples", str(max(1, cases // OPERATIONS)), "--seed", str(seed)),
                *("--workers", str(workers), "--generation-database", "none", "--no-color"),
            ]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            output = done.stdout + done.stderr
            reached = answered(httpx.get(f"{server.url}/metrics").text)
            if "Traceback" in server.log:
                return Fuzzed(1, 0, output + server.log, reached)
    found = re.search(r"(\d[\d,]*) generated", output)
    return Fuzzed(done.returncode, int(found[1].replace(",", "")) if found else 0, output, reached)


def with_models(document: dict[str, Any], models: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the schema with the names and digests of the served models in place of any text."""
    names = {"enum": [model["name"] for model in models]}
    digests = {"enum": [digest for model in models for digest in (model["digest"], model["digest"][:8])]}
    replaced = 0
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if (known := {"name": names, "digest": digests}.get(parameter["name"])) is not None:
                    parameter["schema"] = {"type": "string", **known}
                    replaced += 1
    for schema in document["components"]["schemas"].values():
        if "model" in schema.get("properties", {}):
            schema["properties"]["model"] = {"anyOf": [{"type": "string", **names}, {"type": "null"}]}
            replaced += 1
    assert replaced == 6, "two paths, one digest, three bodies"
    return document


def answered(exposition: str) -> dict[str, int]:
    """Return how many requests of each route that needs a model were answered with 200, from the text of /metrics."""
    reached = dict.fromkeys(MODEL_ROUTES, 0)
    line = r'^atelier_requests_total\{method="\w+",route="([^"]+)",status="200"\} (\S+)'
    for route, count in re.findall(line, exposition, re.MULTILINE):
        if route in reached:
            reached[route] += int(float(count))
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description="schemathesis over /openapi.json, against a real service")
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    done = fuzz(arguments.cases, arguments.seed)
    print(done.output)
    print(f"{done.cases} cases, {arguments.cases} requested")
    for route, count in done.reached.items():
        print(f"{count:6} answers of 200 by {route}")
    return int(done.code != 0 or done.cases < arguments.cases or not all(done.reached.values()))


if __name__ == "__main__":
    sys.exit(main())
