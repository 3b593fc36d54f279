"""The description of the server, and requests made up from it."""

from __future__ import annotations

import asyncio

import schemathesis
from fuzzing import IS_THOROUGH
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from bge_rerank_integrations.serving.app import create_app
from bge_rerank_integrations.serving.bodies import read, request_schema
from bge_rerank_integrations.serving.routes import ROUTES
from serving.fake_engine import FakeEngine
from serving.test_errors import BODIES

APP = create_app(FakeEngine)
# the requests below come without a lifespan
asyncio.run(APP.state.service.start())
schema = schemathesis.openapi.from_asgi("/openapi.json", APP)
# one by one, every way to break each description: some 190 requests an operation
schema.config.phases.coverage.enabled = IS_THOROUGH


def test_every_path_is_described_with_an_example() -> None:
    document = APP.openapi()
    posts = {path: item["post"] for path, item in document["paths"].items() if "post" in item}
    assert len(posts) >= len(BODIES)
    for path, post in posts.items():
        body = post["requestBody"]["content"]["application/json"]["schema"]
        for reference in body.get("oneOf", body.get("anyOf", [body])):
            name = reference["$ref"].rpartition("/")[2]
            assert document["components"]["schemas"][name]["examples"], path
        assert {"200", "400", "413", "415", "429", "503", "504"} <= post["responses"].keys()


def test_each_services_example_is_told_from_the_others_of_its_path() -> None:
    for route in ROUTES:
        for wire in route.wires:
            (example,) = request_schema(wire)["examples"]
            assert route.wire_of(example) is wire, (route.path, wire.name)
            read(wire, example)


def is_beyond_the_schema(body: object) -> bool:
    """Whether a body fits its schema, and is refused for what no schema can say."""
    match body:
        case {"rank_fields": [*_], "documents": [*documents]}:
            return any(isinstance(document, dict) for document in documents)
    if not isinstance(body, dict):
        return False
    # lists of different lengths
    queries = next((body[name] for name in ("text_1", "data_1", "queries") if name in body), None)
    return isinstance(queries, list) and len(queries) > 1


@schema.parametrize()
# derandomized: a run that fails is a change's fault, and fails again
@settings(
    max_examples=40 if IS_THOROUGH else 4,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_made_up_requests_are_answered_as_described(case: schemathesis.Case) -> None:
    excluded = [positive_data_acceptance] if is_beyond_the_schema(case.body) else []
    case.call_and_validate(excluded_checks=excluded)


def test_the_lengths_of_two_lists_are_described_where_they_are_refused() -> None:
    document = APP.openapi()
    for path, status in (("/score", "400"), ("/azion/ai/run/{model}", "422")):
        post = document["paths"][path]["post"]
        assert status in post["responses"]
    description = document["components"]["schemas"]["VllmScoreRequest"]["properties"]["text_1"]
    assert "as many as text_2" in description["description"]
