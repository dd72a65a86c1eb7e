import time

import numpy as np
import onnxruntime as ort
import pytest

from service.models import session as sessions
from service.models.session import CPU, CUDA, ProviderError, Runtime, Session, choose_provider, run_in_sizes
from tests.support import tiny_generator as tiny


class Recorder:
    """In place of a session that runs some sizes alone: row i's image is latent i's first number."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, latents: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        self.sizes.append(len(latents))
        assert labels is None or len(labels) == len(latents)
        images = latents[:, 0].astype(np.uint8)
        return (images if labels is None else images + labels.astype(np.uint8)).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("rows", "ran"),
    [
        (1, [1]),
        (2, [4]),
        (4, [4]),
        (5, [16]),
        (17, [64]),
        (64, [64]),
        (65, [100]),
        (100, [100]),
        (101, [100, 1]),
        (230, [100, 100, 64]),
    ],
)
@pytest.mark.parametrize("labelled", [False, True])
def test_run_in_sizes_returns_rows_in_order(rows: int, ran: list[int], labelled: bool) -> None:
    run = Recorder()
    latents = np.arange(rows, dtype=np.float32)[:, None] % 200
    labels = np.arange(rows) % 5 if labelled else None
    images = run_in_sizes(run, Runtime(1, 100).cuda_sizes, latents, labels)
    assert run.sizes == ran
    np.testing.assert_array_equal(images.ravel(), latents[:, 0] + (0 if labels is None else labels))


def test_session_sizes_of_a_gpu_end_with_the_largest_batch() -> None:
    assert Runtime(1, 64).cuda_sizes == (1, 4, 16, 64)
    assert Runtime(1, 10).cuda_sizes == (1, 4, 10)
    assert Runtime(1, 1).cuda_sizes == (1,)
    assert Runtime(1, 256).cuda_sizes == (1, 4, 16, 64, 256)


def test_session_padded_batches_are_the_same_images() -> None:
    """What a GPU would be fed, run by the CPU."""
    session = Session(tiny.tiny_generator(num_classes=3).SerializeToString(), Runtime(1, 64))
    latents = np.random.default_rng(0).standard_normal((150, 8)).astype(np.float32)
    labels = np.arange(150) % 3
    whole = session.run(latents, labels)
    session.sizes = Runtime(1, 64).cuda_sizes
    np.testing.assert_array_equal(session.run(latents, labels), whole)
    assert (session.provider, whole.std() > 10) == (CPU, True)


class FakeOrt:
    """ONNX Runtime as it behaves where CUDA is offered; `works`: and starts."""

    def __init__(self, works: bool):
        self.works = works
        self.asked: list[list] = []
        self.ran: list[int] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = ort.InferenceSession

        def session(content: bytes, options: ort.SessionOptions, providers: list) -> ort.InferenceSession:
            self.asked.append(providers)
            made = real(content, options, providers=[CPU])
            straight = made.run

            def run(names: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
                self.ran.append(len(feed["latents"]))
                return straight(names, feed)

            made.run = run
            if self.works and len(providers) == 2:
                made.get_providers = lambda: [CUDA, CPU]
            return made

        monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
        monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)
        monkeypatch.setattr(ort, "InferenceSession", session)
        monkeypatch.setattr(sessions, "cuda_devices", lambda: 1)


def test_session_on_cuda_warms_every_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tests.support.service.served_models import load_model

    fake = FakeOrt(works=True)
    fake.install(monkeypatch)
    assert choose_provider("auto") == choose_provider("cuda") == "cuda"
    path = tiny.write_tiny_generator(tmp_path_factory.mktemp("m") / "x.onnx", num_classes=2)
    generator = load_model(path, 2**20, Runtime(1, 100, "cuda"))
    assert fake.asked == [[(CUDA, sessions.CUDA_OPTIONS), CPU]]
    assert sessions.CUDA_OPTIONS["cudnn_conv_algo_search"] in ("HEURISTIC", "EXHAUSTIVE")
    assert set(fake.ran) == {1, 4, 16, 64, 100}
    assert generator.describe()["provider"] == CUDA
    fake.ran.clear()
    assert generator.run(np.zeros((33, 8), np.float32), np.zeros(33, np.int64)).shape == (33, 8, 8, 1)
    assert fake.ran == [64]


def test_choose_provider_without_working_cuda_is_cpu_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeOrt(works=False).install(monkeypatch)
    content = tiny.tiny_generator().SerializeToString()
    session = Session(content, Runtime(1, 64, "cuda"))
    assert (session.provider, session.sizes) == (CPU, None)
    with pytest.raises(Exception, match="could not run it with CUDA"):
        Session(content, Runtime(1, 64, "cuda", strict=True))


def test_choose_provider_missing_cuda_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
    assert choose_provider("auto") == choose_provider("cpu") == "cpu"
    with pytest.raises(ProviderError, match=r"pip install '\.\[gpu\]' in the checkout"):
        choose_provider("cuda")
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(sessions, "cuda_devices", lambda: 0)
    assert choose_provider("auto") == "cpu"
    with pytest.raises(ProviderError, match="no device"):
        choose_provider("cuda")


def test_session_of_one_thread_equals_all_threads() -> None:
    model = tiny.tiny_generator(size=16, channels=3).SerializeToString()
    session = Session(model, Runtime(2, 8, parallel_batches=2))
    latents = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    wide, narrow = (session.run(latents, None, exclusive=exclusive) for exclusive in (True, False))
    np.testing.assert_array_equal(wide, narrow)


def test_session_best_batch_is_the_smallest_cheapest(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(tiny.tiny_generator().SerializeToString(), Runtime(1, 64))
    monkeypatch.setattr(sessions, "CALIBRATION_S", 60)

    def run(latents: np.ndarray, labels: np.ndarray | None, exclusive: bool = True) -> np.ndarray:
        """A batch costs as much as 16 rows at least, and a row of more than 32 the double."""
        rows = len(latents)
        end = time.thread_time() + 0.0005 * max(16, rows) * (2 if rows > 32 else 1)
        while time.thread_time() < end:
            pass
        return np.zeros((rows, 1, 1, 1), np.uint8)

    monkeypatch.setattr(session, "run", run)
    assert session.best_batch(8, 0, 64) == 16
    assert session.best_batch(8, 0, 8) == 8
