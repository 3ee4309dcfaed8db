"""Schemathesis on the served OpenAPI and on the contract: the answer is always one that they tell of."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server import Server, start
from torture import schema

# Deterministic, so that a failure comes again; `make torture` looks further.
EFFORT = ["--generation-deterministic", "--max-examples", "5"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(tmp_path_factory.mktemp("schema") / "data") as server:
        yield server


@pytest.mark.parametrize("document", schema.DOCUMENTS, ids=lambda document: Path(document).stem)
def test_every_answer_is_one_that_the_document_tells_of(
    served: Server, document: str | Path, tmp_path: Path
) -> None:
    """In all phases (examples, coverage, fuzzing, stateful), with right and wrong data.

    All checks: no 5xx; status, content type, headers and body as documented; wrong data refused; wrong
    methods 405 with the right Allow; no answer without a key; what was made can be had, what was revoked
    can't be used.
    """
    if found := schema.found(served, tmp_path, document, EFFORT):
        pytest.fail(found, pytrace=False)
