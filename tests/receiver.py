"""A receiver of webhooks on this machine, which answers what it is told to, byte for byte."""

import threading
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import standardwebhooks
from attrs import frozen

PATIENCE_S = 30
TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
LAST = "connection: close\r\ncontent-length: 0\r\n\r\n"
"""How the head of any other answer ends: unannounced, the end of a connection can meet the next request."""


@frozen
class Delivery:
    """One request: its path, its header fields and its body."""

    path: str
    headers: Message
    body: bytes

    def read(self, secret):
        """Give what it says, once its signature holds."""
        return standardwebhooks.Webhook(secret).verify(self.body, dict(self.headers))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # with 5, its own number, many who come at once are turned away


class Receiver:
    r"""Listens at `url`. `answers` are given one after the other, then `TAKEN`; one that can be called is called first.

    ::

        with Receiver(b"HTTP/1.1 500 No\r\n\r\n") as receiver:
            ...
            first, second = receiver.wait_for(2)
    """

    def __init__(self, *answers):
        self.deliveries = []
        self._answers = list(answers)
        self._changed = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def _handler(receiver):  # noqa: N805  (the handler has a self of its own)
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                answer = receiver.take(Delivery(self.path, self.headers, body))
                answer = answer() if callable(answer) else answer
                self.wfile.write(answer)
                self.close_connection = answer != TAKEN

            def log_message(self, *_):
                pass

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except OSError:  # whoever asked is gone
                    self.close_connection = True

        return Handler

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()
        return self

    def __exit__(self, *_error):
        self._server.shutdown()
        self._server.socket.close()

    def take(self, delivery):
        """Note `delivery`, and give its answer."""
        with self._changed:
            self.deliveries.append(delivery)
            self._changed.notify_all()
            return self._answers.pop(0) if self._answers else TAKEN

    def wait_for(self, count):
        """Give the deliveries, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.deliveries) >= count, PATIENCE_S), self.deliveries
            return list(self.deliveries)
