"""Tabs, outages and lost answers: everything arrives once, in order, and is shown as what it is."""

import json
import socket
import subprocess
import sys
from contextlib import closing, contextmanager

from playwright.sync_api import expect
from shops import Visitor

from convsdk.core.model import Direction
from convsdk.store import open_store

PROGRAM = "from convsdk.cli import main; main()"


@contextmanager
def demo(folder, port):
    """Run the demo shop as a user does, with its store in `folder`; give the process."""
    options = ["serve", "--demo", "--json", f"--port={port}", f"--store=sqlite:///{folder}/demo.db"]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *options], cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert json.loads(process.stdout.readline())["url"]
            yield process
        finally:
            process.kill()
            process.communicate()


def free_port():
    """Give a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def written(folder):
    """Give what visitors have written, in order, as the store has it."""
    with closing(open_store(f"sqlite:///{folder}/demo.db")) as store:
        filings = store.filings("default", identifiers=None, before=None, limit=100)
        found = [one for each in filings for one in store.messages("default", each.id, before=None, limit=100)]
        return [one.text for one in sorted(found, key=lambda one: one.id) if one.direction is Direction.INBOUND]


def take_out(complaints, *words):
    """Take the complaints out that hold one of `words`."""
    complaints[:] = [one for one in complaints if not any(word in one for word in words)]


def test_tabs_of_one_visitor_show_the_same(shop, desktop):
    """What is written in one tab is shown in the other, which opens and closes with it; nothing is kept twice."""
    first = Visitor(desktop).come(shop.page())
    second = Visitor(desktop.context.new_page()).come(shop.page())

    first.open().sees("What is it about?")
    second.sees("What is it about?").write("From the second.").sees("From the second.")
    first.sees("From the second.").write("From the first.").sees("From the first.")
    second.sees("From the first.")
    first.close()
    expect(second.dialog).to_be_hidden()

    (conversation,) = shop.conversations()
    assert shop.texts(conversation.id) == ["From the second.", "From the first."]


def test_visitor_sees_that_an_agent_writes(shop, desktop):
    """Who answers is named while they write, and no longer once the answer is there."""
    visitor = Visitor(desktop).come(shop.page()).open().sees("What is it about?").write("Hello?").sees("Hello?")
    (conversation,) = shop.conversations()

    desktop.request.get(f"{shop.url}/staff/types", params={"conversation": conversation.id, "by": "Kim"})
    typing = visitor.dialog.get_by_text("Kim is typing…")
    expect(typing).to_be_visible()
    shop.hub.reply(conversation.id, "Hi!", by="Kim")
    visitor.sees("Hi!")

    expect(typing).to_be_hidden()


def test_message_that_comes_too_soon_is_sent_later(shop, desktop, complaints):
    """Who is told to wait waits as long as that, and the message arrives, once."""
    later = [{"status": 429, "headers": {"retry-after": "1"}, "json": {"error": {"code": "too_many", "message": "x"}}}]
    visitor = Visitor(desktop).come(shop.page()).open().sees("What is it about?")

    def send_away_once(route):
        if later and route.request.method == "POST":
            route.fulfill(**later.pop())
        else:
            route.continue_()

    desktop.route("**/messages", send_away_once)

    visitor.write("Hello?")
    expect(visitor.log.get_by_text("Sending…")).to_be_visible()
    expect(visitor.log.get_by_text("Sending…")).to_have_count(0)

    (conversation,) = shop.conversations()
    assert shop.texts(conversation.id) == ["Hello?"]
    take_out(complaints, "429")


def test_server_that_is_killed_in_mid_chat_loses_and_doubles_nothing(tmp_path, desktop, complaints):
    """A visitor writes on while the server is killed and started again: all of it arrives, once and in order."""
    port = free_port()
    texts = [f"Line {number}." for number in range(1, 7)]

    with demo(tmp_path, port) as process:
        visitor = Visitor(desktop).come(f"http://127.0.0.1:{port}/demo/").open().sees("What is it about?")
        visitor.write(texts[0]).write(texts[1]).write(texts[2])
        process.kill()
        visitor.write(texts[3]).write(texts[4])
        expect(visitor.log.get_by_text("Sending…").last).to_be_visible()
    with demo(tmp_path, port):
        visitor.write(texts[5]).waits(lambda: written(tmp_path), texts)
        expect(visitor.log.get_by_text("Sending…")).to_have_count(0)
        shown = [one for one in visitor.bubbles if one.startswith("Line")]
        desktop.close()

    assert shown == texts
    kinds = ("ERR_CONNECTION", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE", "ERR_SOCKET_NOT_CONNECTED")
    take_out(complaints, *kinds)


def test_messages_of_an_offline_browser_are_sent_once_it_is_back(shop, desktop, complaints, shoot):
    """Without a network the chat says so, keeps what is written, and sends it in order afterwards."""
    visitor = Visitor(desktop).come(shop.page()).open().sees("What is it about?").write("Before.")
    visitor.waits(lambda: len(visitor.bubbles), 5)  # with the bot's answer

    desktop.context.set_offline(True)
    visitor.write("Without.").write("Still without.")
    expect(visitor.dialog.get_by_text("No connection.")).to_be_visible()
    expect(visitor.log.get_by_text("Sending…")).to_have_count(2)
    shoot(desktop, "offline")
    desktop.context.set_offline(False)
    visitor.waits(lambda: shop.texts(shop.conversations()[0].id), ["Before.", "Without.", "Still without."])

    expect(visitor.dialog.get_by_text("No connection.")).to_be_hidden()
    expect(visitor.log.get_by_text("Sending…")).to_have_count(0)
    assert [one for one in visitor.bubbles if "out." in one] == ["Without.", "Still without."]
    take_out(complaints, "ERR_INTERNET_DISCONNECTED", "ERR_NETWORK_CHANGED", "ERR_FAILED")


def test_message_that_was_not_sent_survives_a_reload(shop, desktop, complaints):
    """What is still to be sent stays in the browser, and the next page sends it once the server answers."""
    visitor = Visitor(desktop).come(shop.page()).open().sees("What is it about?")

    desktop.route("**/widget/**", lambda route: route.abort())
    visitor.write("Do not lose this.").sees("Do not lose this.")
    desktop.reload()
    desktop.unroute("**/widget/**")
    visitor.sees("Do not lose this.")

    visitor.waits(lambda: shop.texts(shop.conversations()[0].id), ["Do not lose this."])
    take_out(complaints, "ERR_FAILED")


def test_message_whose_answer_is_lost_is_kept_once(shop, desktop, complaints):
    """The widget sends what was not answered again, and the server knows it by its id."""
    lost = []

    def lose(route):
        if route.request.method != "POST" or lost:
            route.continue_()
            return
        route.fetch()
        lost.append(route.request.url)
        route.abort()

    visitor = Visitor(desktop).come(shop.page()).open().sees("What is it about?")
    desktop.route("**/messages", lose)
    visitor.write("Once.").write("And again.")
    visitor.waits(lambda: shop.texts(shop.conversations()[0].id), ["Once.", "And again."])
    expect(visitor.log.get_by_text("Sending…")).to_have_count(0)

    assert len(lost) == 1
    assert [one for one in visitor.bubbles if one == "Once."] == ["Once."]
    take_out(complaints, "ERR_FAILED")


def test_answers_come_without_an_event_stream(shop, desktop, complaints):
    """Where a proxy lets no stream through, the widget asks now and then."""
    desktop.route("**/events", lambda route: route.abort())
    visitor = Visitor(desktop).come(shop.page()).open().sees("What is it about?").write("Hello?")
    visitor.waits(lambda: shop.texts(shop.conversations()[0].id), ["Hello?"])

    shop.hub.reply(shop.conversations()[0].id, "Here I am.", by="Kim")
    visitor.sees("Here I am.")

    take_out(complaints, "ERR_FAILED")
