from collections.abc import Iterator

import pytest
from parallel.two import Two


@pytest.fixture(scope="session")
def two() -> Iterator[Two]:
    """Two processes that run the same function."""
    made = Two()
    yield made
    made.close()
