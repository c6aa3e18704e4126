"""schemathesis sends requests that the OpenAPI document allows, and requests that it forbids: no response is a server error."""

from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import content_type_conformance, not_a_server_error, response_schema_conformance, status_code_conformance

from tests.serving.live_server import LiveServer

pytestmark = pytest.mark.slow
MAX_EXAMPLES = 50
PATHS_WITHOUT_PARAMETERS = ("/v1/classes", "/v1/clusters", "/v1/limits", "/v1/model", "/healthz", "/readyz", "/metrics")
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_responses_conform_to_the_openapi_document(server: LiveServer, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    num_requests: Counter[str] = Counter()
    for operation in (result.ok() for result in schema.get_all_operations()):
        if mode is GenerationMode.NEGATIVE and operation.path in PATHS_WITHOUT_PARAMETERS:
            continue

        @settings(max_examples=MAX_EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def call_and_validate(case: schemathesis.Case) -> None:
            num_requests[case.operation.path] += 1
            case.call_and_validate(checks=CHECKS)

        call_and_validate()
    assert num_requests["/v1/search"] >= MAX_EXAMPLES
    assert server.service.batcher.admission.queue_size == 0
