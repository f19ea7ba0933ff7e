"""The app on uvicorn, as `convsdk serve` runs it."""

import socket

import uvicorn
from litestar import Litestar

# Longer than a slow body may take: what is under way when the signal comes is answered.
_GRACE_S = 30


class Server(uvicorn.Server):
    """Serves `app` until a signal comes; then what is under way is answered, and event streams end at once."""

    def __init__(self, app: Litestar) -> None:
        self._app = app
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",  # which bounds the header fields: the other, taken where it is installed, reads without end
                lifespan="on",
                log_config=None,
                access_log=False,  # it has the queries, which can hold a token; the app's own log has none
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # They have no end of their own, and would be waited for as long as anything may take.
        for live in self._app.state.live.values():
            live.close()
        await super().shutdown(sockets)
