"""schemathesis asks whatever the OpenAPI document allows, and what it does not: no answer is the service's own fault."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import content_type_conformance, not_a_server_error, response_schema_conformance, status_code_conformance

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.triplets.sampling import Triplets
from tests.serving.conftest import make_release
from tests.serving.running import Running, running

pytestmark = pytest.mark.slow
EXAMPLES = 50
WITHOUT_ARGUMENTS = ("/v1/classes", "/v1/clusters", "/v1/model", "/healthz", "/readyz", "/metrics")
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def server(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = make_release(tmp_path_factory.mktemp("served") / "release", catalogue, bundle, embeddings, triplets, 0.6)
    with running(str(folder)) as started:
        yield started


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_answer_is_as_the_document_says(server: Running, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    asked: Counter[str] = Counter()
    for operation in (found.ok() for found in schema.get_all_operations()):
        if mode is GenerationMode.NEGATIVE and operation.path in WITHOUT_ARGUMENTS:
            continue

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            asked[case.operation.path] += 1
            case.call_and_validate(checks=CHECKS)

        ask()
    assert asked["/v1/search"] >= EXAMPLES
    assert server.service.batcher.waiting == 0
