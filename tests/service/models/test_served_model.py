from pathlib import Path

import onnx
import pytest

from service.models.served_model import SessionCache
from service.models.session import Runtime, Session
from tests.support import tiny_generator as tiny
from tests.support.service.served_models import load_model


def test_model_replaced_while_a_request_looks_for_its_session_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(tiny.tiny_generator(), tmp_path / "g.onnx")
    model = load_model(tmp_path / "g.onnx", 2**20, Runtime(1, 4))
    session, get = model.load(), SessionCache.get

    def get_late(cache: SessionCache, wanted: object) -> Session:
        model.mark_replaced()
        return get(cache, wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(SessionCache, "get", get_late)
    assert model.load() is session
