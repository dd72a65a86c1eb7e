"""`python -m benchmarks`: one table of all ratios; what cannot be measured is listed, and results are kept."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks import report
from tests.support.benchmarks import results
from tests.support.paths import ROOT


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_bench_help_lists_parts_and_options() -> None:
    done = command("--help")
    assert done.returncode == 0
    for word in ("training", "serving", "evaluation", "--data-root", "--peer", "--quick"):
        assert word in done.stdout


@pytest.mark.parametrize("words", [["nothing"], ["--peer", "nowhere/main.py"]], ids=["part", "peer"])
def test_bench_user_error_is_one_line_and_exit_code_2(words: list[str]) -> None:
    done = command(*words)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert words[-1] in last
    assert last.startswith("python -m benchmarks: error: ")


@pytest.mark.parametrize("inside", ["", "folder"], ids=["a file", "within a file"])
def test_bench_unwritable_folder_measures_nothing(
    inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "README.md"
    taken.touch()
    monkeypatch.setattr(bench, "run", lambda *_: pytest.fail("something was measured"))
    line = fail(bench, ["--output", str(taken / inside)], monkeypatch, capsys)
    assert "argument --output:" in line
    assert f"{taken / inside} is not a writable folder" in line


def fail(module: Any, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The line that a command ends with, at once, and with exit code 2."""
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    monkeypatch.setattr(sys, "path", list(sys.path))  # which those that are scripts too set right
    with pytest.raises(SystemExit) as ended:
        module.main()
    said = capsys.readouterr()
    assert ended.value.code == 2, said.err
    assert not said.out
    return said.err.splitlines()[-1]


ALL = ("evaluation", "serving", "training")
NOT_POSITIVE = "must be a whole number of at least 1, not 0"


@pytest.mark.parametrize(
    ("name", "words", "found"),
    [
        *[(name, "--rounds 0", f"argument --rounds: {NOT_POSITIVE}") for name in ALL],
        ("scaling", "nope.onnx", "argument generators: there is no file at nope.onnx"),
        ("training", "--peer nope.py", "argument --peer: there is no file at nope.py"),
    ],
)
def test_benchmark_user_error_is_one_line(
    name: str,
    words: str,
    found: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = ["--output", str(tmp_path / "results.json")]
    module, *part = name.split()
    line = fail(import_module(f"benchmarks.{module}"), [*part, *words.split(), *output], monkeypatch, capsys)
    assert line.startswith(f"benchmark: error: {found}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ALL)
def test_benchmark_unwritable_output_measures_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, *part = name.split()
    line = fail(import_module(f"benchmarks.{module}"), [*part, "--output", str(tmp_path)], monkeypatch, capsys)
    assert line == f"benchmark: error: argument --output: {tmp_path} is not a writable file"


def test_rows_have_every_ratio_with_its_counterpart() -> None:
    rows = report.rows(results.DOCUMENTS)
    found = {(row["case"], row["counterpart"]): row for row in rows}
    assert len(found) == len(rows) == 2 + 3 + 1 + 6 + 2 + 5 + 1 + 1
    plain = found["`examples-dcgan`, batch 64, bf16, on digits", "plain loop in the PyTorch example's manner"]
    assert (plain["ours"], plain["theirs"], plain["ratio"]["median"]) == (110.0, 52.0, 2.11)
    peer = found["`examples-dcgan`, batch 64, bf16, on digits", "`dcgan/main.py`, unmodified"]
    assert (peer["theirs"], peer["ratio"]["max"]) == (50.0, 2.3)
    fidelity = found["Inception's features, 32 px, `tf1` resize", "torch-fidelity"]
    assert (fidelity["ours"], fidelity["theirs"], fidelity["unit"]) == (14.0, 7.0, "images/s")
    assert found["Inception's features, 32 px, `torch` resize", "pytorch-fid"]["ours"] == 32.0
    assert found["scoring 10,000 images of a service", "generating and extracting separately"]["theirs"] == 10.0
    assert all(row["load_average"] == results.LOAD for row in rows)


def test_rows_compare_the_median_with_the_target() -> None:
    met = {row["case"]: (row["target"], row["met"]) for row in report.rows(results.DOCUMENTS)}
    served = "`mnist-dcgan`, 32 clients of n=4, "
    assert met[served + "PNG in JSON"] == ("at least 0.5", True)
    assert met["`mnist-dcgan`, one image at a time, p50"] == ("at most 4 ms more", True)
    assert met["KID of 3,000 images' features"] == (None, None)
    npy = [row for row in report.rows({"serving": results.SERVING}) if row["case"] == served + "npy"]
    assert [(row["target"], row["met"]) for row in npy] == [("at least 0.7", False)]


def document(**more: Any) -> dict[str, Any]:
    found = {"measured": "2026-01-01 00:00 UTC", "quick": False, "minutes": 12.3, "machine": results.MACHINE}
    found |= {"load_average": results.LOAD, "not_measured": {}, "rows": report.rows(results.DOCUMENTS)}
    return found | more


def test_page_has_machine_table_and_peers_in_order() -> None:
    page = report.page(document(not_measured={"serving": "no wrk"}))
    machine, table = (
        page.index("Some Processor (family 1, model 2), 2 cores, 8.0 GiB; AVX2, AVX-512 BF16"),
        page.index("| case |"),
    )
    peers = page.index("docs/results/performance.md describes how to fetch the peers")
    assert machine < table < page.index("Not measured: serving: no wrk") < peers
    line = next(line for line in page.splitlines() if "full rank" in line and "pytorch-fid" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:] == ["1.00 s", "pytorch-fid: 20.0 s", "**20.00 (18.00–22.00)**", "at least 8: met"]
    assert "at least 0.7: **missed**" in page


@pytest.mark.parametrize("name", ["train_step"])
def test_rows_of_kept_results_have_every_ratio(name: str) -> None:
    kept = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert len(report.rows({name: kept})) >= len(kept["results"])


def part(tmp_path: Path, name: str, then: str = "end") -> bench.Part:
    path = tmp_path / f"{name}.in.json"
    path.write_text(json.dumps(results.DOCUMENTS[name]), encoding="utf-8")
    words = ("--results", str(path), "--then", then)
    return bench.Part("tests.support.benchmarks.stand_in", words, words, (name,))


@pytest.fixture
def args() -> argparse.Namespace:
    return argparse.Namespace(quick=False, data_root=Path("data"), peer=[])


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.harness, "describe_machine", lambda: results.MACHINE)


def test_bench_failing_part_is_one_line_and_others_run(
    tmp_path: Path, args: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {"serving": part(tmp_path, "serving", "fail"), "evaluation": part(tmp_path, "evaluation")}
    monkeypatch.setattr(bench, "PARTS", parts)
    out = tmp_path / "out"
    assert bench.run(list(parts), args, out) == 1
    said = capsys.readouterr()
    assert said.err == "serving: not measured: the load generator is missing\n"
    assert [line for line in said.out.splitlines() if line.startswith("[")] == ["[1/2] serving", "[2/2] evaluation"]
    found = json.loads((out / "bench.json").read_text(encoding="utf-8"))
    assert found["not_measured"] == {"serving": "the load generator is missing"}
    assert {row["part"] for row in found["rows"]} == {"evaluation"}
    assert "Not measured: serving: the load generator is missing" in (out / "bench.md").read_text(encoding="utf-8")
    assert json.loads((out / "evaluation.json").read_text(encoding="utf-8")) == results.EVALUATION
    assert not (out / "serving.json").exists()


def test_bench_failing_case_is_listed_with_other_ratios(
    tmp_path: Path, args: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "PARTS", {"training": part(tmp_path, "train_step", "give up")})
    assert bench.run(["training"], args, tmp_path / "out") == 1
    found = json.loads((tmp_path / "out" / "bench.json").read_text(encoding="utf-8"))
    assert found["not_measured"] == {"training, mnist-gan": "its loop ended by itself"}
    assert len(found["rows"]) == 2


@pytest.mark.parametrize(("name", "code"), [("evaluation", 0), ("serving", 1)], ids=["all met", "one missed"])
def test_bench_exit_code_depends_on_targets(
    name: str, code: int, tmp_path: Path, args: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "PARTS", {name: part(tmp_path, name)})
    assert bench.run([name], args, tmp_path / "out") == code


def test_bench_keeps_results_that_were_not_measured_again(
    tmp_path: Path, args: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "evaluation.json").write_text(
        json.dumps({"memory": {"all_metrics_mb": 608}, "score": {"old": True}}), encoding="utf-8"
    )
    monkeypatch.setattr(bench, "PARTS", {"evaluation": part(tmp_path, "evaluation")})
    assert bench.run(["evaluation"], args, out) == 0
    kept = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert kept["memory"] == {"all_metrics_mb": 608}
    assert kept["score"] == results.EVALUATION["score"]


INTERRUPTED = """
import sys
from pathlib import Path
from benchmarks import __main__ as bench
from tests.support.benchmarks import results
bench.harness.describe_machine = lambda: results.MACHINE
bench.PARTS = {
    name: bench.Part("tests.support.benchmarks.stand_in", ("--results", path, "--then", then), (), (result,))
    for name, result, path, then in zip(*[iter(sys.argv[2:])] * 4)
}
sys.argv = ["benchmarks", "--output", sys.argv[1]]
bench.main()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_bench_interrupted_keeps_finished_results(number: signal.Signals, tmp_path: Path) -> None:
    """Of the part that ends and of the one that does not."""
    words = [str(tmp_path / "out")]
    for name, result, then in (("evaluation", "evaluation", "end"), ("training", "train_step", "wait")):
        words += [name, result, part(tmp_path, result).options[1], then]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert any(line == "waiting\n" for line in process.stdout)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert errors.strip().startswith("interrupted; what was finished is in ")
    found = json.loads((tmp_path / "out" / "bench.json").read_text(encoding="utf-8"))
    assert {row["part"] for row in found["rows"]} == {"evaluation", "training step"}
    assert (tmp_path / "out" / "evaluation.json").exists()
    assert not (tmp_path / "out" / "train_step.json").exists(), "an unfinished part does not replace a finished one"
