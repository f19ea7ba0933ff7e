"""The web edge (extra `web`): an ASGI app for the webhooks of all channels, to mount or to run by `convsdk serve`."""

from convsdk.web.app import create_app
from convsdk.web.exchange import Limits

__all__ = ["Limits", "create_app"]
