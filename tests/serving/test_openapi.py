"""The description of the server, and requests made up from it."""

from __future__ import annotations

import asyncio

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from bge_rerank_integrations.serving.app import create_app
from serving.fake_engine import FakeEngine
from serving.test_errors import BODIES

APP = create_app(FakeEngine)
# the requests below come without a lifespan
asyncio.run(APP.state.service.start())
schema = schemathesis.openapi.from_asgi("/openapi.json", APP)


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


@schema.parametrize()
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_made_up_requests_are_answered_as_described(case: schemathesis.Case) -> None:
    # no schema says that two lists must be in step
    excluded = [positive_data_acceptance] if "score" in case.path or "azion" in case.path else []
    case.call_and_validate(excluded_checks=excluded)
