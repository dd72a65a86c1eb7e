import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from artifacts.latents import seeds_to_latents
from service.inference import interpolation as z

vectors = arrays(np.float64, 6, elements=st.floats(-5, 5))


@given(vectors, vectors, st.floats(0.1, 10), st.floats(0, 1))
def test_slerp_stays_on_the_sphere(a: np.ndarray, b: np.ndarray, radius: float, t: float) -> None:
    if min(np.linalg.norm(a), np.linalg.norm(b)) < 1e-3:
        return
    a, b = radius * a / np.linalg.norm(a), radius * b / np.linalg.norm(b)
    if np.sin(np.arccos(np.clip(a @ b / radius**2, -1, 1))) < 1e-5:
        return
    assert np.linalg.norm(z.slerp(a, b, np.array([t]))) == pytest.approx(radius, rel=1e-6)


def test_slerp_of_a_right_angle() -> None:
    a, b = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    third = z.slerp(a, b, np.array([1 / 3]))
    np.testing.assert_allclose(third, [[np.cos(np.pi / 6), np.sin(np.pi / 6)]], atol=1e-15)


@pytest.mark.parametrize("b", [[2.0, 4.0], [-1.0, -2.0], [0.0, 0.0], [1.0, 2.0]])
def test_slerp_of_vectors_without_a_plane_is_lerp(b: list[float]) -> None:
    a, t = np.array([1.0, 2.0]), np.linspace(0, 1, 5)
    np.testing.assert_array_equal(z.slerp(a, np.array(b), t), z.lerp(a, np.array(b), t))


@given(
    st.lists(arrays(np.float32, 4, elements=st.floats(-5, 5, width=32)), min_size=2, max_size=4),
    st.integers(2, 6),
    st.sampled_from(["slerp", "lerp"]),
    st.sampled_from(["linear", "ease_in", "ease_out", "ease_in_out"]),
    st.booleans(),
)
def test_path_meets_every_keyframe_exactly(
    keys: list[np.ndarray], steps: int, mode: z.Mode, easing: z.Easing, loop: bool
) -> None:
    frames, nearest = z.interpolate(np.stack(keys), steps, mode, easing, loop)
    assert len(frames) == len(nearest) == z.frame_count(len(keys), steps, loop)
    assert frames.dtype == np.float32
    assert np.isfinite(frames).all()
    for i, key in enumerate(keys):
        assert frames[i * (steps - 1)].tobytes() == key.tobytes()
        assert nearest[i * (steps - 1)] == i


def test_path_of_two_keyframes_is_a_linspace() -> None:
    keys = np.array([[0.0, 0.0], [1.0, 2.0]], np.float32)
    frames, nearest = z.interpolate(keys, 5, "lerp")
    np.testing.assert_allclose(frames[:, 1], np.linspace(0, 2, 5))
    assert nearest.tolist() == [0, 0, 1, 1, 1]


@given(st.sampled_from(["linear", "ease_in", "ease_out", "ease_in_out"]))
def test_easing_rises_from_0_to_1(easing: z.Easing) -> None:
    t = z.ease(np.linspace(0, 1, 101), easing)
    assert (t[0], t[-1]) == (0, 1)
    assert (np.diff(t) > 0).all()


weights = st.lists(st.floats(-100, 100).filter(lambda w: abs(w) > 1e-3), min_size=1, max_size=8)


@given(weights, st.integers(0, 2**40))
def test_mix_normalized_has_the_norm_of_its_terms(w: list[float], seed: int) -> None:
    terms = seeds_to_latents(range(seed, seed + len(w)), 64)[0]
    norms = np.linalg.norm(terms, axis=1)
    length = np.linalg.norm(z.weighted_sum(terms, w, "normal", True))
    assert norms.min() * (1 - 1e-6) <= length <= norms.max() * (1 + 1e-6)
    plain = z.weighted_sum(terms, w, "normal", False)
    np.testing.assert_allclose(plain, np.asarray(w) @ terms.astype(np.float64), rtol=1e-5, atol=1e-4)


def test_mix_normalized_of_normal_latents_is_normal() -> None:
    """Σ w²=14: the sum's variance would be 14; and with the paper's three averages, +, -, +, it is 1 by itself."""
    latents = seeds_to_latents(range(3000), 100)[0].reshape(1000, 3, 100)
    sums = np.stack([z.weighted_sum(terms, [1, -2, 3], "normal", True) for terms in latents])
    assert abs(sums.std() - 1) < 0.01
    assert abs(sums.mean()) < 0.01
    nine = seeds_to_latents(range(9), 10000)[0]
    thirds = [1 / 3] * 3 + [-1 / 3] * 3 + [1 / 3] * 3
    ratio = z.weighted_sum(nine, thirds, "normal", False).std() / z.weighted_sum(nine, thirds, "normal", True).std()
    assert abs(ratio - 1) < 0.05


@given(st.floats(1e-3, 100), st.integers(0, 2**40))
def test_mix_of_one_latent_is_that_latent(w: float, seed: int) -> None:
    for distribution in ("normal", "uniform"):
        one = seeds_to_latents([seed], 16, distribution)[0]
        np.testing.assert_array_equal(z.weighted_sum(one, [w], distribution, True), one[0])
        np.testing.assert_array_equal(z.weighted_sum(one[[0, 0]], [w, 2 * w], distribution, True), one[0])


@given(weights, st.integers(0, 2**40))
def test_mix_normalized_of_uniform_latents_stays_in_the_cube(w: list[float], seed: int) -> None:
    terms = seeds_to_latents(range(seed, seed + len(w)), 16, "uniform")[0]
    assert np.abs(z.weighted_sum(terms, w, "uniform", True)).max() <= 1


def test_mix_without_a_direction_raises() -> None:
    one = seeds_to_latents([0], 16)[0]
    for distribution in ("normal", "uniform"):
        with pytest.raises(ValueError, match="cancel"):
            z.weighted_sum(one[[0, 0, 0]], [0.1, 0.2, -0.3], distribution, True)
        with pytest.raises(ValueError, match="cancel"):
            z.weighted_sum(one[[0, 0]], [1e-300, -1e-300], distribution, True)
    with pytest.raises(ValueError, match="all 0"):
        z.weighted_sum(one, [0.0], "normal", True)
    assert not z.weighted_sum(0 * one, [2.0], "normal", True).any()
    assert not z.weighted_sum(one, [0.0], "normal", False).any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e-160, 1e200])
def test_mix_depends_only_on_proportions_of_the_weights(scale: float) -> None:
    for distribution in ("normal", "uniform"):
        terms = seeds_to_latents(range(3), 16, distribution)[0]
        w = np.array([1.0, -0.5, 0.25])
        wanted = z.weighted_sum(terms, w, distribution, True)
        np.testing.assert_allclose(z.weighted_sum(terms, w * scale, distribution, True), wanted, rtol=0.01, atol=1e-3)
        np.testing.assert_array_equal(z.weighted_sum(terms[:1], [scale], distribution, True), terms[0])
