from __future__ import annotations

from pathlib import Path

from trainer.training.logger import diagnose, truncate_metrics


def ticks(**series: list[float]) -> list[dict[str, float]]:
    """tick(**{"loss/D": [..], ...}) → a line a tick."""
    return [dict(zip(series, values, strict=True)) for values in zip(*series.values(), strict=True)]


def losses(d: list[float], g: list[float]) -> list[dict[str, float]]:
    return ticks(**{"loss/D": d, "loss/G": g})


def test_diagnose_winning_discriminator_names_remedies() -> None:
    (line,) = diagnose(losses([0.5, 0.1, 0.01], [2.0, 4.0, 8.0]), "non-saturating")
    assert "D wins" in line
    assert "optim.d_lr" in line
    assert "\n" not in line


def test_diagnose_strong_d_with_a_good_g_is_silent() -> None:
    assert not diagnose(losses([0.5, 0.1, 0.01], [8.0, 4.0, 5.0]), "non-saturating")
    assert not diagnose(losses([0.5, 0.6, 0.5], [2.0, 4.0, 8.0]), "non-saturating")
    assert not diagnose(losses([0.1, 0.01], [2.0, 4.0]), "non-saturating")


def test_diagnose_critic_loss_near_zero_is_silent() -> None:
    assert not diagnose(losses([-3.0, -1.0, -0.01], [1.0, 2.0, 3.0]), "wasserstein")


def recall(values: list[float]) -> list[dict[str, float]]:
    flat = [0.7] * len(values)
    return ticks(**{"loss/D": flat, "loss/G": flat, "quality/recall": values})


def test_diagnose_lasting_fall_of_diversity_is_named() -> None:
    (line,) = diagnose(recall([0.2, 0.6, 0.25, 0.2]), "hinge")
    assert "diversity falls: recall is 0.20, after 0.60" in line


def test_diagnose_other_changes_of_diversity_are_silent() -> None:
    for values in ([0.1, 0.3, 0.6], [0.6, 0.2, 0.4], [0.6, 0.5, 0.4], [0.02, 0.01, 0.0], [0.6, 0.1]):
        assert not diagnose(recall(values), "hinge")


def test_diagnose_saturated_pixels_are_compared_with_reals() -> None:
    def of(fake: float, real: float) -> list[str]:
        return diagnose(
            ticks(**{"loss/D": [1.0], "loss/G": [1.0], "saturated/fake": [fake], "saturated/real": [real]}), "lsgan"
        )

    (line,) = of(0.9, 0.1)
    assert "90%" in line
    assert not of(0.8, 0.81)  # MNIST: mostly black


def test_diagnose_significant_memorization_names_both_shares() -> None:
    def of(excess: float) -> list[str]:
        shares = {"quality/memorization": [0.12], "quality/memorization_real": [0.01]}
        return diagnose(
            ticks(**{"loss/D": [1.0], "loss/G": [1.0]}, **shares, **{"quality/memorization_excess": [excess]}), "hinge"
        )

    (line,) = of(0.05)
    assert "G memorizes: 12% of its images are near-copies of training images, 1% of other real images" in line
    assert "--init-from" in line
    assert not of(0.0)


def test_truncate_metrics_drops_later_steps_and_torn_lines(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st', encoding="utf-8")
    truncate_metrics(metrics, 2)
    assert metrics.read_text(encoding="utf-8") == '{"step": 1}\n{"step": 2}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_truncate_metrics_without_a_file_does_nothing(tmp_path: Path) -> None:
    truncate_metrics(tmp_path / "metrics.jsonl", 0)
    assert not list(tmp_path.iterdir())
