from __future__ import annotations

from collections.abc import Callable

from scripts.reproduce.comparison import moments
from scripts.reproduce.runs import ReproductionContext, Trial

MakeTrial = Callable[..., Trial]
Gather = Callable[..., None]


def kimgs(context: ReproductionContext) -> list[tuple[str, list[float], list[float]]]:
    """Return the moments of mnist-best against mnist-dcgan, with the kimg of each seed's point."""
    return [
        (found.at, *([point.tick["images_seen"] / 1000 for point in side] for side in (found.first, found.second)))
        for found in moments(context, "mnist-best", "mnist-dcgan")
    ]


def test_moments_give_the_other_run_as_many_images_and_as_much_time(
    context: ReproductionContext, trial: MakeTrial, gather: Gather
) -> None:
    gather(trial("mnist-best"), [(30, 60), (60, 120), (120, 240), (240, 480)])
    gather(trial("mnist-dcgan"), [(30, 90), (70, 210), (140, 390), (240, 660), (300, 900)])
    assert kimgs(context) == [
        ("images", [60], [70]),  # a quarter of 240 kimg
        ("images", [240], [240]),
        ("time", [60], [70]),  # a quarter of 480 s: 120 s, and the first after it at 210 s
        ("time", [240], [240]),  # 480 s, and the first after it at 660 s
        ("end", [240], [300]),
    ]


def test_moments_of_several_seeds_have_a_point_of_each(
    context: ReproductionContext, trial: MakeTrial, gather: Gather
) -> None:
    for seed in range(3):
        gather(trial("mnist-best", seed), [(30, 60), (60, 120 + seed)])
    gather(trial("mnist-dcgan"), [(30, 90), (60, 180)])
    assert kimgs(context)[-1] == ("end", [60, 60, 60], [60])


def test_moments_on_two_machines_compare_no_time(
    context: ReproductionContext, trial: MakeTrial, gather: Gather
) -> None:
    gather(trial("mnist-best"), [(30, 60), (60, 120)], gpu=True)
    gather(trial("mnist-dcgan"), [(30, 90), (60, 180)])
    assert [at for at, _, _ in kimgs(context)] == ["images", "end"]
    assert {found.clock for found in moments(context, "mnist-best", "mnist-dcgan")} == {None}


def test_moments_on_two_generations_of_a_processor_compare_no_time(
    context: ReproductionContext, trial: MakeTrial, gather: Gather
) -> None:
    gather(trial("mnist-best"), [(30, 60), (60, 120)], cpu_capability="AVX2")
    gather(trial("mnist-dcgan"), [(30, 90), (60, 180)], cpu_capability="AVX512")
    assert [at for at, _, _ in kimgs(context)] == ["images", "end"]


def test_moments_on_one_gpu_compare_wall_clock_time(
    context: ReproductionContext, trial: MakeTrial, gather: Gather
) -> None:
    for preset in ("mnist-best", "mnist-dcgan"):
        gather(trial(preset), [(30, 90), (60, 180)], gpu=True)
    assert {found.clock for found in moments(context, "mnist-best", "mnist-dcgan")} == {"seconds"}


def test_moments_without_the_other_run_are_none(context: ReproductionContext, trial: MakeTrial, gather: Gather) -> None:
    gather(trial("mnist-best"), [(60, 120)])
    assert kimgs(context) == []
