import pytest

from tests.support.service.fuzz import fuzz


@pytest.mark.slow
def test_schemathesis_finds_no_failing_case() -> None:
    done = fuzz(120)  # `make fuzz` runs thousands
    assert done.code == 0, done.output
    assert done.cases > 300, done.output
    assert all(done.reached.values()), done.reached
