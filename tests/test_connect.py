"""`convsdk channels connect` says what is missing at a platform, and mends what it can."""

import json
from datetime import UTC, datetime

import httpx
import pytest
from click.testing import CliRunner
from graph import APP, PAGE, SECRET, TOKEN, Failure, Graph, RefusedError

from convsdk.channels.messenger import MessengerChannel, MessengerSettings, Sender
from convsdk.cli import main
from convsdk.core.ports import Secret

CONFIG = """
[channels.shop-page]
type = "messenger"
app_id = "{app}"
app_secret = {{ env = "APP_SECRET" }}
verify_token = {{ env = "VERIFY_TOKEN" }}
pages = [{pages}]
graph_url = "{url}"
[channels.shop-gram]
type = "instagram"
app_id = "{app}"
app_secret = {{ env = "APP_SECRET" }}
verify_token = {{ env = "VERIFY_TOKEN" }}
accounts = [{{ id = "1001", token = {{ env = "PAGE_TOKEN" }} }}]
graph_url = "{url}"
[channels.desk]
type = "chat"
secret = {{ env = "CHAT_SECRET" }}
[channels.widget]
type = "chat"
"""
PAGES = '{ id = "1001", token = { env = "PAGE_TOKEN" } }'
CALLBACK = "https://shop.example/channels/shop-page"


@pytest.fixture
def graph():
    """Give the platform, where nothing is set up but the page's token."""
    with Graph(clock=lambda: datetime(2026, 1, 5, tzinfo=UTC)).served() as platform:
        yield platform


@pytest.fixture
def connect(graph, tmp_path, monkeypatch):
    """Give what runs `convsdk channels connect` on a shop, and gives what it says and how it ends."""
    monkeypatch.chdir(tmp_path)
    secrets = {"APP_SECRET": SECRET, "VERIFY_TOKEN": "token-of-the-shop", "PAGE_TOKEN": TOKEN, "CHAT_SECRET": SECRET}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)

    def run(*arguments, app=APP, pages=PAGES, files=()):
        for name in files:
            (tmp_path / name).write_text(f"{TOKEN}-{name}", encoding="utf-8")
        (tmp_path / "convsdk.toml").write_text(CONFIG.format(app=app, pages=pages, url=graph.url), encoding="utf-8")
        result = CliRunner().invoke(main, ["channels", "connect", *arguments, "--json"])
        assert all(secret not in result.output for secret in (SECRET, TOKEN, "token-of-the-shop"))
        told = [json.loads(line) for line in result.stdout.splitlines()]
        return result, {one["what"]: one for one in told if not one["right"]}

    return run


def test_what_is_missing_is_told(connect):
    """A channel that nothing is set up for is told so, line by line, each with what to do."""
    result, wrong = connect("shop-page")

    assert result.exit_code == 1
    assert set(wrong) == {"the app is subscribed to 'page'", "1001 is subscribed to the app"}
    assert all("--subscribe" in one["remedy"] for one in wrong.values())


def test_subscribing_mends_it(connect, graph):
    """With --subscribe the page is subscribed, and with --callback the app: then nothing is wrong."""
    result, wrong = connect("shop-page", "--subscribe", "--callback", CALLBACK)

    assert (result.exit_code, wrong) == (0, {})
    assert CALLBACK in result.stdout
    assert "message_echoes" in graph.subscribed[PAGE]
    assert connect("shop-page")[1] == {}


def test_type_names_all_its_channels(connect, graph):
    """A type checks each of its channels, by its own permissions and fields."""
    result, wrong = connect("instagram", "--subscribe", "--callback", CALLBACK)

    assert (result.exit_code, wrong) == (0, {})
    assert [one["object"] for one in graph.subscriptions] == ["instagram"]


def test_permissions_that_lack_are_named(connect, graph):
    """A token without a permission is told which one, and a subscription without a field."""
    connect("shop-page", "--subscribe", "--callback", CALLBACK)
    graph.scopes = ["pages_messaging"]
    graph.subscribed[PAGE].remove("message_reads")
    graph.subscriptions[0]["fields"].pop()

    _, wrong = connect("shop-page")

    assert set(wrong) == {
        "the token of 1001 lacks pages_manage_metadata",
        "the subscription of 1001 lacks message_reads",
        "the app's subscription to 'page' lacks standby",
    }


def test_subscription_that_meta_refuses_is_told(connect, graph):
    """Where Meta does not subscribe, its words say why."""
    graph.failures.append(Failure(RefusedError(200, "Requires pages_manage_metadata permission.", status=403)))

    _, wrong = connect("shop-page", "--subscribe")

    assert "Requires pages_manage_metadata" in wrong["what --subscribe asks for"]["remedy"]


def test_expired_token_is_told(connect, graph):
    """A token that is no longer valid is told in Meta's words."""
    graph.tokens = {}

    result, wrong = connect("shop-page")

    assert result.exit_code == 1
    assert "expired" in wrong["the token of 1001 is valid"]["remedy"]


def test_token_of_another_page_is_told(connect, graph):
    """A token that is not the page's own is told."""
    graph.tokens = {"1002": TOKEN}

    _, wrong = connect("shop-page")

    assert "page access token" in wrong["the token of 1001 is that page's own"]["remedy"]


def test_other_app_is_told(connect):
    """An app that Meta does not know by this secret is told."""
    _, wrong = connect("shop-page", app="1")

    assert "Invalid OAuth access token" in wrong["Meta answers"]["remedy"]


@pytest.mark.parametrize(
    ("settings", "what"), [({"app": ""}, "app_id is set"), ({"pages": ""}, "somewhere to send from")]
)
def test_setting_that_is_missing_is_told(connect, settings, what):
    """What is missing in the settings is told as well."""
    _, wrong = connect("shop-page", **settings)

    assert any(what in one for one in wrong)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fax"], "no channel 'fax'"),
        (["chat"], "nothing to check"),
        (["shop-page", "--callback", CALLBACK], "--callback is for --subscribe"),
    ],
)
def test_what_cannot_be_checked_is_told(connect, arguments, told):
    """A channel that is not there, or has no platform, ends with a word on it."""
    result, _ = connect(*arguments)

    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.parametrize(("callback", "told"), [((), "/channels/desk"), (("--callback", CALLBACK), CALLBACK)])
def test_channel_that_subscribes_nothing_is_set_up_by_hand(connect, callback, told):
    """Where no request subscribes, that is told, with the address to set at the platform, and it is no success."""
    result, wrong = connect("desk", "--subscribe", *callback)

    assert result.exit_code == 1
    assert "set the webhook at the platform" in wrong["what --subscribe asks for"]["remedy"]
    assert told in wrong["what --subscribe asks for"]["remedy"]


def test_channel_of_the_widget_is_sent_to_no_platform(connect):
    """A channel that takes no webhooks is not to be set up anywhere."""
    _, wrong = connect("widget", "--subscribe")

    assert "takes no webhooks" in wrong["what --subscribe asks for"]["remedy"]


def test_many_pages_are_checked_in_several_batches(connect, graph):
    """A batch has room for some pages, and every page is checked."""
    ids = [str(number) for number in range(1001, 1046)]
    graph.tokens = {one: f"{TOKEN}-{one}" for one in ids}

    _, wrong = connect(
        "shop-page", pages=", ".join(f'{{ id = "{one}", token = {{ file = "{one}" }} }}' for one in ids), files=ids
    )

    assert sum(one.endswith("is subscribed to the app") for one in wrong) == 45
    assert len(graph.asked) == 3


@pytest.mark.parametrize("body", [b"[]", b'[{"code": 200, "body": "{}"}]', b"null", b"{}", b"\xff"])
def test_answer_without_all_its_parts_is_no_good_news(body):
    """What Meta leaves out of its answer does not count as right."""
    page = Sender(id=PAGE, token=Secret(TOKEN))
    settings = MessengerSettings(app_secret=Secret(SECRET), verify_token=Secret("x"), app_id=APP, pages=(page,))

    checks = MessengerChannel("shop-page", settings).judge([httpx.Response(200, content=body)])

    assert [one.what for one in checks if not one.is_right] == ["Meta answers"]


def test_options_before_connect_are_refused(connect):
    """An option that would count for nothing is told."""
    result = CliRunner().invoke(main, ["channels", "--json", "connect", "shop-page"])

    assert (result.exit_code, "options go behind 'connect'" in result.stderr) == (2, True)


def test_platform_that_is_away_is_told(connect, graph):
    """No answer is told without an address that could hold a secret."""
    graph.url = "http://127.0.0.1:9"

    result, _ = connect("shop-page")

    assert "127.0.0.1 gave no answer (ConnectError): try again" in result.stderr
