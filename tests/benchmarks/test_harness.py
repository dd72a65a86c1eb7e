"""The machine's description names the instruction sets that ratios depend on; rounds and failures are reported."""

from __future__ import annotations

import json
import platform
import re

import pytest

from benchmarks import harness, report
from benchmarks.harness import alternate, attempt, format_spread, one_line, spread, times_as_fast
from tests.support.paths import ROOT

INTEL = """processor\t: 0
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C
flags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni amx_bf16 amx_tile amx_int8
"""
ARM = """processor\t: 0
Features\t: fp asimd asimddp bf16 i8mm sve
CPU implementer\t: 0x41
"""


def test_read_cpuinfo_of_x86_and_arm() -> None:
    found = harness.read_cpuinfo(INTEL)
    assert found["cpu"] == "Intel(R) Xeon(R) Platinum 8481C"
    assert found["cpu_model"] == "family 6, model 143"
    assert found["instructions"] == ["AVX2", "AVX-512", "AVX-512 BF16", "AMX BF16", "AVX-512 VNNI", "AMX INT8"]
    assert set(harness.read_cpuinfo(ARM)["instructions"]) == {"NEON", "SVE", "BF16", "dot product", "I8MM"}
    nothing = harness.read_cpuinfo("")
    assert nothing["cpu"]
    assert nothing["instructions"] == []


def test_read_cpuinfo_matches_whole_flags() -> None:
    assert harness.read_cpuinfo("flags : avx512f_not avx22\n")["instructions"] == []


def test_system_has_only_major_and_minor_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: "6.18.44-of-a-host")
    assert harness.system().endswith(f"{platform.system()} 6.18 {platform.machine()}")
    monkeypatch.setattr(platform, "release", lambda: "11")
    assert f" 11 {platform.machine()}" in harness.system()


def test_result_files_name_no_kernel_release() -> None:
    root = ROOT
    kept = [*(root / "benchmarks" / "results").iterdir(), *(root / "docs" / "results").glob("*.json")]
    kept += [root / "docs" / "results" / "performance.md", root / "docs" / "operations" / "scaling.md"]
    found = {path.name: re.findall(r"Linux[ -]\d+\.\d+[.-]\d\S*", path.read_text(encoding="utf-8")) for path in kept}
    assert not any(found.values()), found


def test_describe_machine_is_json_with_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "PACKAGES", ("numpy", "there-is-no-such-package"))
    found = json.loads(json.dumps(harness.describe_machine()))
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0.1
    assert {"cpu", "instructions", "system", "gpu", "python", "numpy", "load_average_before"} <= set(found)
    assert "there-is-no-such-package" not in found
    assert found["cpu"] in report.describe(found)


def test_alternate_runs_in_order_and_ratios_are_per_round() -> None:
    assert times_as_fast([1.0, 2.0, 4.0], [2.0, 2.0, 2.0]) == {"median": 1.0, "min": 0.5, "max": 2.0}
    assert format_spread(spread([2.0, 2.5, 3.0])) == "2.50 (2.00–3.00)"
    assert format_spread(spread([1.0, 2.0, 4.0])) == "too noisy: 1.00–4.00"
    order: list[str] = []
    seconds, values = alternate({name: lambda name=name: order.append(name) or name for name in "ab"}, rounds=3)
    assert order == list("ababab")
    assert values == {"a": "a", "b": "b"}
    assert [len(taken) for taken in seconds.values()] == [3, 3]


def test_attempt_records_a_failure_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed: dict[str, str] = {}
    for name, error in (
        ("loop", SystemExit("python main.py ended by itself; its output:\n\nTraceback\nOSError: no data here\n")),
        ("peer", ModuleNotFoundError("No module named 'x.y'", name="x")),
        ("other", ValueError()),
    ):
        with attempt(name, failed):
            raise error
    assert failed == {
        "loop": "python main.py ended by itself; its output: … OSError: no data here",
        "peer": "x is not installed",
        "other": "ValueError",
    }
    assert len(capsys.readouterr().out.splitlines()) == 3
    with pytest.raises(KeyboardInterrupt), attempt("interrupted", failed):
        raise KeyboardInterrupt
    assert "interrupted" not in failed
    assert one_line(SystemExit()) == "it stopped without a reason"
