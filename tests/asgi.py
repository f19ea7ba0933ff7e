"""ASGI apps of tests on a port of this machine."""

import socket
import threading
from contextlib import contextmanager

import uvicorn

PATIENCE_S = 20


@contextmanager
def served(app):
    """Serve an ASGI app on a port of this machine; give its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=[[listener]])
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
