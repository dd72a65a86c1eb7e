"""The simulation against queues with a known answer, and the figures of docs/operations/scaling.md."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scaling_tables
from benchmarks.scaling_simulation import Times, interpolated, replicas_for, simulate, validate

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.8])
def test_one_at_a_time_waits_as_pollaczek_and_khinchine_say(utilisation: float) -> None:
    """M/D/1: a mean wait of rho / (2 (1 − rho)) service times."""
    service = 0.01
    outcome = simulate(Times(0.0, (0.0, service)), n=1, images_per_s=utilisation / service, seconds=1500.0, seed=1)
    wait = sum(outcome.latencies) / len(outcome.latencies) - service
    assert wait == pytest.approx(service * utilisation / (2 * (1 - utilisation)), rel=0.06)
    assert outcome.utilisation == pytest.approx(utilisation, rel=0.03)


@pytest.mark.parametrize(("replicas", "lanes"), [(1, 1), (1, 2), (3, 1), (2, 4)])
def test_busy_clients_get_what_the_cores_can_do(replicas: int, lanes: int) -> None:
    """Each image its inference and its share of the loop; latency by Little's law."""
    times = Times(0.0002, tuple(0.002 * rows for rows in range(9)))
    told = simulate(times, replicas=replicas, lanes=lanes, clients=64, n=4, seconds=20.0).told()
    rate = replicas * lanes * times.core_rate(4)
    assert times.core_rate(4) == pytest.approx(1 / (0.002 + 0.0002 / 4))
    assert told["images_per_s"] == pytest.approx(rate, rel=0.02)
    assert told["utilisation"] == pytest.approx(1, abs=0.01)
    if replicas == 1:
        assert told["p50_ms"] == pytest.approx(1e3 * 64 * 4 / rate, rel=0.1)


def test_a_full_loop_is_a_limit_that_cores_do_not_lift() -> None:
    times = Times(0.004, (0.0, 0.0001))
    told = simulate(times, lanes=64, clients=200, n=1, seconds=20.0).told()
    assert told["images_per_s"] == pytest.approx(1 / 0.004, rel=0.01)
    assert told["loop_utilisation"] == pytest.approx(1, abs=0.01)
    assert told["utilisation"] < 0.1


def test_twice_too_much_is_half_refused_and_the_queue_is_bounded() -> None:
    times = Times(0.0, tuple(0.001 * rows for rows in range(9)))
    outcome = simulate(times, images_per_s=2000.0, n=4, seconds=60.0, max_queue_rows=256)
    assert outcome.told()["refused_share"] == pytest.approx(0.5, abs=0.02)
    assert max(outcome.waiting) <= 256
    assert max(outcome.latencies) <= (256 + 2 * 8) * 0.001, "a request that was let in waits for no more than the queue"


def test_sharing_out_by_lot_waits_longer_than_in_turn_or_to_the_least_busy() -> None:
    times = Times(0.0002, tuple(0.002 * rows for rows in range(9)))
    rate = 0.8 * 6 * times.core_rate(4)
    least, turns, lot = (
        simulate(times, replicas=6, images_per_s=rate, balance=balance, seconds=60.0).told()["p99_ms"]
        for balance in ("least", "turns", "lot")
    )
    assert max(least, turns) < lot


def test_replicas_are_enough_and_no_more() -> None:
    times = Times(0.0, (0.0, 0.01))
    assert replicas_for(times, 1, cores=2, n=4) == 2, "never one alone"
    assert replicas_for(times, 14_000, cores=2, n=4) == 100
    assert replicas_for(times, 14_001, cores=2, n=4) == 101
    assert interpolated({1: 1.0, 4: 7.0}, 2) == 3.0


def generator(rate: float) -> dict[str, Any]:
    full = {"clients": 16.0, "images_per_s": rate, "p50_ms": 64e3 / rate, "p99_ms": 1.0, "cores_used": 1.0}
    full |= {"loop_ms_per_request": 0.4, "inference_ms_per_image": 1e3 / rate - 0.1, "rows_a_batch": 8.0}
    way = {"workers": 1, "threads": 1, "cores": 1, "npy": [full], "json": full, "pss_mb": 300.0}
    return {"bare_ms_by_rows": {"1": 1.0, "8": 8.0}, "one_worker_one_core": way}


def test_a_measured_load_is_predicted_from_its_processor_times() -> None:
    told = generator(500.0)
    (row,) = validate(told, Times.measured(told), 4)
    assert row["images_per_s_ratio"] == pytest.approx(1, abs=0.02)
    assert row["p50_ms_ratio"] == pytest.approx(1, abs=0.1)


def test_scaling_page_has_the_measured_figures() -> None:
    page = (RESULTS.parents[1] / "docs" / "operations" / "scaling.md").read_text(encoding="utf-8")
    generators = json.loads((RESULTS / "scaling.json").read_text(encoding="utf-8"))["generators"]
    ways = {title.replace("2 lanes, ", ""): way for way, title in scaling_tables.WAYS.items()}
    rows = re.findall(r"^\| `([\w-]+)` \| (.+?) \| ([\d.]+) \| (\d+) / (\d+) ms \| (\d+) MB \|$", page, re.MULTILINE)
    assert len(rows) == len(generators) * len(ways)
    for name, served_by, *figures in rows:
        way = generators[name][ways[served_by]]
        full = way["npy"][-1]
        measured = [full["images_per_s"], full["p50_ms"], full["p99_ms"], way["pss_mb"]]
        assert [float(figure) for figure in figures] == pytest.approx(measured, rel=0.005), (name, served_by)
    full = generators["mnist-dcgan"]["one_worker_one_core"]["npy"][-1]
    per_core = 1000 / (full["inference_ms_per_image"] + full["loop_ms_per_request"] / 4)
    for figure in (
        f"makes {per_core:.0f} images/s per core",
        f"need {math.ceil(10_000 / (0.7 * 2 * per_core))} replicas",
    ):
        assert figure in page
    for images in (1, 4):
        assert f"{1000 * images / full['loop_ms_per_request']:,.0f}" in page


def test_cost_is_cores_times_their_price() -> None:
    rates = {
        "100": {"replicas": 3, "least": {"p99_ms": 1, "refused_share": 0}, "lot": {"p99_ms": 1, "refused_share": 0}}
    }
    told = {"cores_a_replica": 2, "utilisation": 0.5, "g": {"rates": rates, "core_images_per_s": 100.0}}
    row = scaling_tables.cost(told, {"generators": {"g": {}}}, core_hour=0.5).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[3] == "6"
    assert [float(cell.replace(",", "")) for cell in cells[-3:]] == [3.0, 2190.0, round(1e6 / 50 / 3600 * 0.5, 2)]


def test_a_shard_takes_what_its_job_took_beyond_generating() -> None:
    score = {"images": 1000, "generating_s": 5.0, "extracting_s": 0.1, "scoring_s": 7.0}
    simulation = {"cores_a_replica": 2, "utilisation": 0.5, "g": {"core_images_per_s": 800.0}}
    evaluation = {"score": score, "inception": {"ours_images_per_s": 10.0}}
    table = scaling_tables.million(simulation, {"generators": {"g": {}}}, evaluation).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert [row[4] for row in rows if row[1] != "Inception"] == ["500", "2,000", "32,000"], "1000 / (7 - 5)"
    assert rows[0][6] == "the shards"
    assert next(row[4] for row in rows if row[1] == "Inception") == "9.81", "1 / ((2 - 0.1) / 1000 + 1 / 10)"
