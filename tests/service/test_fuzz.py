import pytest

from tests.service.fuzz import fuzz


@pytest.mark.slow
def test_no_case_that_schemathesis_makes_of_the_schema_fails_a_check() -> None:
    code, cases, told = fuzz(120)  # `make fuzz` runs thousands
    assert code == 0, told
    assert cases > 300, told
