"""Options, names, paths and services that cannot be used: one line before the work, and nothing is destroyed."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.features.store import RowsFile
from evaluation.json_files import without_credentials, write_json
from evaluation.output_files import atomic_output, check_writable
from evaluation.report.document import write_report
from tests.support.evaluation.commands import one_line, run, score
from tests.support.evaluation.fake_service import fake_service, noise

FEW = ("--num-images", 20, "--no-baseline")


@pytest.mark.parametrize("option", ["--fail-above", "--truncation", "--patience"])
def test_option_not_finite_is_one_line(workspace: Path, option: str) -> None:
    assert "inf is not a finite number" in one_line(run(*score("g.onnx", option, "inf")))
    assert f"Invalid value for '{option}'" in one_line(run(*score("g.onnx", option, "nan")))


def test_score_of_too_large_statistics_is_one_line(workspace: Path) -> None:
    assert run("reference", "folder:pictures@test", "--extractor", "e.onnx", "-o", "r.npz").exit_code == 0
    with np.load("r.npz") as stored:
        np.savez("large.npz", **{**stored, "mu": stored["mu"] * 1e200})
    line = one_line(run("score", "g.onnx", "--reference", "large.npz", "--extractor", "e.onnx", "-o", "o.json", *FEW))
    assert "fid" in line
    assert "not finite" in line
    with pytest.raises(EvaluationError, match="JSON cannot represent it"):
        write_json(Path("d.json"), {"value": float("inf")})
    assert not Path("d.json").exists()


def test_score_of_a_name_that_is_not_text_reports_it(workspace: Path) -> None:
    np.save(os.fsdecode(b"bad\xff.npy"), np.stack([noise(i) for i in range(30)]))
    done = run(*score(os.fsdecode(b"bad\xff.npy"), *FEW))
    assert done.exit_code == 0, done.output
    assert json.loads(Path("report/report.json").read_text(encoding="utf-8"))["source"]["path"] == r"bad\xff.npy"
    assert r"bad\xff.npy" in Path("report/report.html").read_text(encoding="utf-8")


def test_score_url_credentials_are_used_and_not_reported(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_service(noise) as url:
        secret = url.replace("://", "://user:p@ss%21@")
        monkeypatch.setattr(sys, "argv", ["evaluation", "score", secret])
        done = run(*score(secret, *FEW))
    assert done.exit_code == 0, done.output
    reported = {path.name: path.read_text(encoding="utf-8") for path in workspace.glob("report/report.*")}
    assert set(reported) == {"report.json", "report.html", "report.md"}
    assert json.loads(reported["report.json"])["service"] == {"url": url}
    for text in (*reported.values(), done.output):
        assert "user:" not in text
        assert "ss%21" not in text
    with fake_service(noise, models=b"{}") as url:
        line = one_line(run(*score(url.replace("://", "://user:p@ss%21@"), *FEW)))
    assert f"{url}/v1/models is not the list of models" in line
    assert without_credentials("mnist@test") == "mnist@test"
    assert without_credentials("http://host/a@b") == "http://host/a@b"


def test_output_on_a_pipe_or_device_is_not_replaced(workspace: Path) -> None:
    os.mkfifo("pipe.npz")
    line = one_line(run("reference", "folder:pictures@test", "--extractor", "e.onnx", "--output", "pipe.npz"))
    assert "not a file" in line
    with pytest.raises(EvaluationError, match="not a file"), atomic_output(Path("pipe.npz")):
        pass
    assert stat.S_ISFIFO(Path("pipe.npz").stat().st_mode)


def test_output_over_a_link_keeps_link_and_mode(workspace: Path) -> None:
    Path("private.json").write_text("{}", encoding="utf-8")
    Path("private.json").chmod(0o600)
    Path("link.json").symlink_to("private.json")
    write_json(Path("link.json"), {"n": 1})
    assert Path("link.json").is_symlink()
    assert json.loads(Path("private.json").read_text(encoding="utf-8")) == {"n": 1}
    assert stat.S_IMODE(Path("private.json").stat().st_mode) == 0o600


def test_stamp_through_a_link_keeps_the_link(workspace: Path) -> None:
    Path("link.onnx").symlink_to("g.onnx")
    done = run(*score("g.onnx", *FEW, "--stamp", "link.onnx"))
    assert done.exit_code == 0, done.output
    assert Path("link.onnx").is_symlink()
    assert b"evaluation.fd_tiny" in Path("g.onnx").read_bytes()


def test_score_without_output_claims_to_keep_nothing(workspace: Path) -> None:
    np.save("same.npy", np.zeros((30, 8, 8, 1), np.uint8))
    words = ("score", "same.npy", "--reference", "folder:pictures@test", "--extractor", "e.onnx", *FEW)
    assert "(20 of 20 images were scored; give --output to keep them)" in one_line(run(*words))
    assert "(20 of 20 images are kept in report/.partial/" in one_line(run(*words, "-o", "report"))


def test_score_memorization_without_a_split_fails_first(workspace: Path) -> None:
    words = (
        "--reference",
        "folder:pictures/test",
        "--extractor",
        "e.onnx",
        "-o",
        "report",
        "--metrics",
        "memorization",
    )
    line = one_line(run("score", "g.onnx", *words, "--num-images", 20))
    assert "not of a train or test split" in line
    assert not list(Path("report").glob(".partial/*/part-0")), "no image was scored"


def test_output_where_no_folder_can_be_made_is_one_line(workspace: Path) -> None:
    Path("dangling").symlink_to("nowhere/at/all")
    for where in ("dangling", "/proc/none", "n" * 300, "n" * 5000):
        words = ("--reference", "folder:pictures@test", "--extractor", "e.onnx", *FEW)
        assert "cannot write" in one_line(run("score", "g.onnx", *words, "-o", where))
    with pytest.raises(EvaluationError, match="cannot write"):
        check_writable(Path("dangling/report.json"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="of Linux: a disk that is full")
def test_rows_file_on_a_full_disk_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "rows.npy").symlink_to("/dev/full")
    with pytest.raises(EvaluationError, match="cannot write"):
        RowsFile(tmp_path / "rows.npy", 2, (4,), np.dtype(np.float32)).sync()


@pytest.mark.parametrize("side", ["\u00b2", "\u0661\u0666", "9" * 5000, "0", "-1"])
def test_option_resolution_not_a_number_is_one_line(workspace: Path, side: str) -> None:
    assert "--resolution is `reference` or a side in pixels" in one_line(run(*score("g.onnx", "--resolution", side)))


def test_score_of_a_too_long_name_is_one_line(workspace: Path) -> None:
    for name in ("n" * 5000, "n" * 5000 + ".onnx", "n" * 5000 + ".npy"):
        assert len(one_line(run(*score(name)))) < 400


@pytest.mark.parametrize(
    "reported",
    [
        {"height": float("inf")},
        {"height": -8},
        {"channels": True},
        {"images_seen": "<b>"},
        {"z_dim": 10**12},
        {"class_names": 5},
    ],
)
def test_score_of_a_service_with_invalid_metadata_is_one_line(workspace: Path, reported: dict[str, Any]) -> None:
    with fake_service(noise, result=reported) as url:
        line = one_line(run(*score(url, *FEW)))
    assert "does not answer as a generation service does" in line
    assert not Path("report/report.json").exists()


def test_score_of_a_service_with_endless_brackets_is_one_line(workspace: Path) -> None:
    with fake_service(noise, models=b"[" * 200_000) as url:
        assert "is not the list of models" in one_line(run(*score(url)))


def test_reference_import_of_other_many_features_is_one_line(workspace: Path) -> None:
    np.save("f.npy", np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32))
    words = ("--extractor", "e.onnx", "--import-as", "x@test", "--resolution", 8, "-o", "r.npz")
    assert "features of 30 images, not of --num-images 20" in one_line(
        run("reference", "f.npy", *words, "--num-images", 20)
    )


def test_merge_uses_the_subset_size_of_its_shards(workspace: Path) -> None:
    words = (*score("g.onnx", *FEW), "--metrics", "kid", "--kid-subset-size", 10)
    assert all(run(*words, "--shard", f"{i}/2").exit_code == 0 for i in range(2))
    done = run("merge", "report", "-o", "merged", "--no-baseline")
    assert done.exit_code == 0, done.output
    alone = json.loads(Path("merged/report.json").read_text(encoding="utf-8"))["scores"]
    assert run(*words[:-2], "--kid-subset-size", 10, "-o", "whole").exit_code == 0
    assert alone == json.loads(Path("whole/report.json").read_text(encoding="utf-8"))["scores"]


def test_help_shows_every_option_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    reported = run("score", "--help").output
    assert "--kid-subset-size" in reported
    assert "--all-checkpoints" in reported


def test_service_key_of_the_environment_is_never_printed(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (99, 8, 8, 1), dtype=np.uint8)
    with fake_service(lambda seed: image[seed], key="k-1234567") as url:
        words = ("score", url, "--reference", "folder:pictures@test", "--extractor", "e.onnx", "--num-images", 20)
        assert "a key is needed" in one_line(run(*words, "-o", "report"))
        monkeypatch.setenv("ATELIER_API_KEY", "k-1234567")
        done = run(*words, "-o", "report")
    assert done.exit_code == 0, done.output
    assert all(b"k-1234567" not in path.read_bytes() for path in Path("report").rglob("*") if path.is_file())


def test_score_of_folder_names_not_utf8_works(workspace: Path) -> None:
    odd = os.fsdecode(b"p\xff")
    Path("pictures").rename(odd)
    words = ("--reference", f"{odd}@test", "--extractor", "e.onnx", "--num-images", 30, "-o", os.fsdecode(b"out\xfe"))
    done = run("score", f"folder:{odd}@train", *words)
    assert done.exit_code == 0, done.output
    folder = Path(os.fsdecode(b"out\xfe"))
    for name in ("report.json", "report.md", "report.html"):
        assert r"p\xff@t" in (folder / name).read_text(encoding="utf-8").replace("\\\\", "\\"), name
    assert run("report", folder).exit_code == 0


def test_score_of_class_names_not_utf8_keeps_them_apart(workspace: Path) -> None:
    for name in (b"a\xfe", b"a\xff"):
        for split in ("train", "test"):
            target = Path("classes", split, os.fsdecode(name))
            target.mkdir(parents=True)
            for picture in sorted(Path("pictures", split).iterdir())[:10]:
                shutil.copy(picture, target)
    words = ("--reference", "classes@test", "--extractor", "e.onnx", "--num-images", 20, "--metrics", "per_class")
    done = run("score", "classes@train", *words, "-o", "r.json")
    assert done.exit_code == 0, done.output
    (result,) = json.loads(Path("r.json").read_text(encoding="utf-8"))["results"]
    assert [one["class"] for one in result["details"]["classes"]] == [r"a\xfe", r"a\xff"]


def test_report_control_characters_of_names_are_escaped(workspace: Path) -> None:
    np.save("a\x1b[31mred\u202e.npy", np.stack([noise(i) for i in range(30)]))
    assert run(*score("a\x1b[31mred\u202e.npy", *FEW)).exit_code == 0
    for name in ("report.md", "report.html"):
        text = Path("report", name).read_text(encoding="utf-8")
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert r"\x1b[31mred" in text.replace("\\\\", "\\").replace("\\[", "[")


def test_score_without_its_home_folder_is_one_line(workspace: Path) -> None:
    for source, reference in (("~nobody-here/p", "pictures@test"), ("g.onnx", "folder:~nobody-here/p")):
        line = one_line(run("score", source, "--reference", reference, "--extractor", "e.onnx"))
        assert "no such home folder" in line


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("source", {"shape": [8, 8]}),
        ("source", {"resized": {"from": 3}}),
        ("reference", {"image_set": None}),
        ("extractor", {"accuracy": "high"}),
        ("timing", {"seconds": "long"}),
        ("seeds", {"first": 0}),
    ],
)
def test_report_with_odd_values_is_one_line(workspace: Path, part: str, change: dict) -> None:
    assert run(*score("g.onnx", *FEW)).exit_code == 0
    path = Path("report/report.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    document[part] = change if part == "seeds" else document[part] | change
    write_report(path, document)
    assert "is damaged" in one_line(run("report", "report"))
