"""The machine's description names the instruction sets that ratios hang on, whatever the processor."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path

import pytest

from benchmarks import machine

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


def test_instruction_sets_are_read_from_the_kernels_words() -> None:
    told = machine.processor(INTEL)
    assert told["cpu"] == "Intel(R) Xeon(R) Platinum 8481C"
    assert told["cpu_model"] == "family 6, model 143"
    assert told["instructions"] == ["AVX2", "AVX-512", "AVX-512 BF16", "AMX BF16", "AVX-512 VNNI", "AMX INT8"]
    assert set(machine.processor(ARM)["instructions"]) == {"NEON", "SVE", "BF16", "dot product", "I8MM"}
    nothing = machine.processor("")
    assert nothing["cpu"]
    assert nothing["instructions"] == []


def test_a_flag_is_a_whole_word() -> None:
    assert machine.processor("flags : avx512f_not avx22\n")["instructions"] == []


def test_a_kernel_is_told_by_major_and_minor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: "6.18.44-of-a-host")
    assert machine.system().endswith(f"{platform.system()} 6.18 {platform.machine()}")
    monkeypatch.setattr(platform, "release", lambda: "11")
    assert machine.kernel() == "11"


def test_results_that_are_kept_name_no_hosts_kernel() -> None:
    root = Path(__file__).resolve().parents[2]
    kept = [*(root / "benchmarks" / "results").iterdir(), *(root / "docs" / "results").glob("*.json")]
    kept += [root / "docs" / "results" / "performance.md", root / "docs" / "operations" / "scaling.md"]
    told = {path.name: re.findall(r"Linux[ -]\d+\.\d+[.-]\d\S*", path.read_text(encoding="utf-8")) for path in kept}
    assert not any(told.values()), told


def test_the_description_is_json_with_all_that_a_reader_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGES", ("numpy", "there-is-no-such-package"))
    told = json.loads(json.dumps(machine.describe()))
    assert told["cores"] >= 1
    assert told["memory_gib"] > 0.1
    assert {"cpu", "instructions", "system", "gpu", "python", "numpy", "load_average_before"} <= set(told)
    assert "there-is-no-such-package" not in told
    words = machine.in_words(told)
    assert told["cpu"] in words
    assert f"numpy {told['numpy']}" in words
