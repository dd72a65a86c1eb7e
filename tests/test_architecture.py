"""The packages, the one direction of imports between them, the size of their folders, and the place of test helpers."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("artifacts", "imagesets", "evaluation", "trainer", "service")
MOST_MODULES = 10  # per folder, without __init__.py and __main__.py
MOST_TEST_MODULES = 12  # per folder

# What each package may import of ours. Of the service, evaluation imports only the client.
MAY_IMPORT = {
    "artifacts": set(),
    "imagesets": {"artifacts"},
    "evaluation": {"artifacts", "imagesets", "service.client"},
    "trainer": {"artifacts", "imagesets", "evaluation"},
    "service": {"artifacts"},
}


def module_name(path: Path) -> str:
    """Return a file's dotted name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_names(path: Path) -> set[str]:
    """Return every module that a file imports: at its top, inside a function or for type checking."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def import_graph() -> dict[str, set[str]]:
    """Return which of our modules each module imports; a module does not count as an import of its own package."""
    files = {module_name(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    return {
        name: {
            other
            for other in imported_names(path)
            if other in files and other != name and f"{other}." not in f"{name}."
        }
        for name, path in files.items()
    }


def cycles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Yield the strongly connected components of more than one module (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[list[str]]:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                yield from visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                yield sorted(component)

    for node in sorted(graph):
        if node not in index:
            yield from visit(node)


def test_cycles_finds_a_cycle_through_three_modules() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}
    assert list(cycles(graph)) == [["a", "b", "c"]]
    assert list(cycles(graph | {"c": {"d"}})) == []


def test_packages_have_no_import_cycle() -> None:
    assert list(cycles(import_graph())) == []


def test_parts_of_evaluation_import_one_way() -> None:
    graph: dict[str, set[str]] = {}
    for module, others in import_graph().items():
        if module.startswith("evaluation."):
            parts = {".".join(name.split(".")[:2]) for name in (module, *others) if name.startswith("evaluation.")}
            part = ".".join(module.split(".")[:2])
            graph.setdefault(part, set()).update(parts - {part})
    assert "evaluation.report" in graph["evaluation.scoring"]
    assert list(cycles(graph)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_what_it_may(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        for name in imported_names(path):
            top = name.split(".")[0]
            if top not in PACKAGES or top == package or (name == top and top == "service"):
                continue
            allowed = MAY_IMPORT[package]
            assert any(name == entry or name.startswith(f"{entry}.") for entry in allowed), f"{path}: {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_folder_has_at_most_ten_modules(package: str) -> None:
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    for folder in folders:
        modules = {path.name for path in folder.glob("*.py")} - {"__init__.py", "__main__.py"}
        assert len(modules) <= MOST_MODULES, f"{folder}: {sorted(modules)}"


def test_service_never_imports_torch() -> None:
    for path in (ROOT / "service").rglob("*.py"):
        assert not {name for name in imported_names(path) if name.split(".")[0] in {"torch", "torchvision"}}, path


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("imagesets", {"torch", "torchvision", "sklearn", "pyarrow"}),
        ("evaluation", {"torch", "onnxruntime", "scipy"}),
        ("evaluation.cli", {"torch", "onnxruntime", "scipy"}),
        ("evaluation.scoring.run_job", {"torch", "torchvision"}),
        ("evaluation.metrics.frechet", {"torch", "onnxruntime"}),
        ("service.client", {"torch", "bentoml", "fastapi", "onnx", "onnxruntime", "pydantic", "scipy"}),
        ("service.cli", {"bentoml", "fastapi", "onnx", "onnxruntime", "scipy"}),
        ("trainer", {"torch", "numpy", "pydantic"}),
        ("trainer.cli", {"torch", "numpy", "pydantic"}),
    ],
)
def test_module_import_stays_light(module: str, forbidden: set[str]) -> None:
    code = f"import sys, {module}; print(sorted({forbidden!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


TESTS = ROOT / "tests"


def test_test_module_is_imported_by_no_other() -> None:
    modules = {module_name(path) for path in TESTS.rglob("test_*.py")}
    for path in TESTS.rglob("*.py"):
        assert imported_names(path).isdisjoint(modules), path


def test_conftest_is_imported_by_no_other() -> None:
    for path in TESTS.rglob("*.py"):
        assert not [name for name in imported_names(path) if "conftest" in name.split(".")], path


def test_helpers_are_in_conftest_and_support_only() -> None:
    for path in TESTS.rglob("*.py"):
        if path.name != "__init__.py":
            is_test = path.name.startswith("test_") or path.name == "conftest.py"
            assert is_test != (TESTS / "support" in path.parents), path


def test_test_folder_has_at_most_twelve_modules() -> None:
    for folder in {path.parent for path in TESTS.rglob("*.py")}:
        modules = sorted(path.name for path in folder.glob("*.py") if path.name not in {"conftest.py", "__init__.py"})
        assert len(modules) <= MOST_TEST_MODULES, f"{folder}: {modules}"


def test_test_folders_mirror_the_packages() -> None:
    """A folder of tests is named after the sub-package that it tests."""
    for package in PACKAGES:
        for folder in {path.parent for path in (TESTS / package).rglob("*.py")}:
            assert (ROOT / folder.relative_to(TESTS) / "__init__.py").is_file(), folder
