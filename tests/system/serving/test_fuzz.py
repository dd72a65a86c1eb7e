import pytest

from tests.support.service.fuzz import fuzz


@pytest.mark.slow
def test_no_case_that_schemathesis_makes_of_the_schema_fails_a_check() -> None:
    done = fuzz(120)  # `make fuzz` runs thousands
    assert done.code == 0, done.output
    assert done.cases > 300, done.output
    assert all(done.reached.values()), done.reached
