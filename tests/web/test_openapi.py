import re
from contextlib import suppress
from importlib.metadata import version

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from servers import fresh_store
from visits import HOST, Browser, opened

from convsdk.web import Limits

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ENOUGH = Limits(visitor_per_minute=1_000_000, address_per_minute=1_000_000, body_time_s=5)


@pytest.fixture
def document(tmp_path):
    """Give a shop that has something to read, and the document of its app as schemathesis reads it."""
    with opened(fresh_store("sqlite", tmp_path), tmp_path, limits=ENOUGH) as shop:
        yield shop, schemathesis.openapi.from_asgi("/api/openapi.json", shop.app)


def answers(operation, mode, browser, real):
    """Give the statuses that an operation answers with, each in an answer that fits the document."""
    found = []

    @settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def send(case):
        case.path_parameters |= {name: real[name] for name in case.path_parameters if name in real}
        session = {"Authorization": f"Bearer {browser.token}"} if len(found) % 2 else {}
        response = case.call(headers={"Origin": HOST, "Host": "shop.example"} | session)
        found.append(response.status_code)
        case.validate_response(response, checks=CHECKS)

    with suppress(Unsatisfiable):  # nothing is wrong for an address that asks for nothing
        send()
    return found


@pytest.mark.once
def test_every_answer_is_in_the_document(document):
    """Whatever is sent to any address, with a session or without, the answer is no fault, and as was documented."""
    shop, schema = document
    browser = Browser(shop, keep=False)
    browser.open()
    file = browser.upload().json()["id"]
    browser.say("Hello", attachments=[file])
    asked = {
        (one.method, one.path, status)
        for one in (result.ok() for result in schema.get_all_operations())
        if not one.path.endswith("/events")  # it ends when its reader goes
        for mode in GenerationMode
        for status in answers(one, mode, browser, {"channel": "chat", "number": file})
    }

    described = shop.ask("GET", "/api/openapi.json").json()["paths"]
    assert {(method, path) for method, path, _ in asked} == {
        (method, path) for path, methods in described.items() for method in methods if not path.endswith("/events")
    }
    assert {status for _, _, status in asked} >= {200, 204, 400, 401, 415}


def test_document_says_what_it_is(shop):
    """It is OpenAPI 3.1, of the version that runs, with what opens a session, and every refusal has its format."""
    found = shop.ask("GET", "/api/openapi.json").json()
    reading = found["paths"]["/widget/{channel}/messages"]["get"]

    assert found["openapi"].startswith("3.1")
    assert (found["info"]["title"], found["info"]["version"]) == ("convsdk", version("convsdk"))
    assert set(found["components"]["securitySchemes"]) == {"cookie", "bearer"}
    assert reading["security"] == [{"cookie": []}, {"bearer": []}, {}]
    assert reading["responses"]["401"]["content"]["application/json"]["schema"]["$ref"].endswith("/Refusal")


def test_every_operation_says_what_it_does(shop):
    """Each has a tag, words of its own and its refusals, the host's own pages are in no document."""
    found = shop.ask("GET", "/api/openapi.json").json()
    each = [one for methods in found["paths"].values() for one in methods.values()]

    assert all(one["description"].endswith(".") and one["tags"] for one in each)
    assert all({"400", "404", "429"} <= one["responses"].keys() for one in each if one["tags"] == ["widget"])
    assert not [one for one in found["paths"] if one.startswith(("/api", "/widget.js"))]


@pytest.mark.parametrize("prefix", ["", "/support"])
def test_page_shows_the_document_and_loads_nothing(shop, prefix):
    """People read every address and value on one page, which has no script, and nothing of another server."""
    found = shop.ask("GET", "/api/openapi.json").json()

    answer = shop.ask("GET", f"{prefix}/api", root_path=prefix)

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert not re.findall(r"<script|<link|<img|src=|url\(|//", answer.text)
    assert f'href="{prefix}/api/openapi.json"' in answer.text
    named = {one.split("#")[-1] for one in re.findall(r'href="(#[^"]+)"', answer.text)}
    assert named <= set(re.findall(r'id="([^"]+)"', answer.text))
    for path, methods in found["paths"].items():
        assert all(f"<code>{method.upper()} {path}</code>" in answer.text for method in methods)
