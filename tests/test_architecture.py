"""The rooms of the house and the one direction of imports between them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("artifacts", "imagesets", "evaluation", "trainer", "service")

# What each room may import of ours; evaluation takes the service's client alone.
MAY_IMPORT = {
    "artifacts": set(),
    "imagesets": {"artifacts"},
    "evaluation": {"artifacts", "imagesets", "service.client"},
    "trainer": {
        "artifacts",
        "imagesets",
        "evaluation.references.file",
        "evaluation.metrics",
        "evaluation.extractors",  # reading and running one needs no torch
        "evaluation.errors",
    },
    "service": {"artifacts"},
}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            top = name.split(".")[0]
            if top not in ROOMS or top == room or name == top:
                continue
            allowed = MAY_IMPORT[room]
            assert any(name == entry or name.startswith(f"{entry}.") for entry in allowed), f"{path}: {name}"


def test_the_service_never_imports_torch() -> None:
    for path in (ROOT / "service").rglob("*.py"):
        assert not {name for name in imported(path) if name.split(".")[0] in {"torch", "torchvision"}}, path


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("imagesets", {"torch", "torchvision", "sklearn"}),
        ("evaluation.cli", {"torch", "onnxruntime", "scipy"}),
        ("evaluation.scoring.job", {"torch", "torchvision"}),
        ("evaluation.metrics.frechet", {"torch", "onnxruntime"}),
        ("service.client", {"torch", "bentoml", "fastapi", "onnx", "onnxruntime", "pydantic", "scipy"}),
        ("service.__main__", {"bentoml", "fastapi", "numpy", "onnx", "onnxruntime", "pydantic"}),
        ("service.health", {"bentoml", "fastapi", "numpy", "pydantic", "typer"}),
        ("trainer.cli", {"torch", "numpy", "pydantic"}),
    ],
)
def test_a_module_stays_light(module: str, forbidden: set[str]) -> None:
    code = f"import sys, {module}; print(sorted({forbidden!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_private_parts_of_dependencies_are_used_in_one_package_only() -> None:
    private = ("_bentoml", "bentoml._", "uvicorn", "circus", "httptools")
    for path in (ROOT / "service").rglob("*.py"):
        if path.parent != ROOT / "service" / "server":
            assert not [name for name in imported(path) if name.startswith(private)], path
