"""The built-in channels keep the laws that everybody's channels keep."""

from convsdk.channels.chat.contract import ChatContract
from convsdk.channels.email.contract import EmailContract
from convsdk.channels.js_identify.contract import JsIdentifyContract
from convsdk.channels.messenger.contract import InstagramContract, MessengerContract


class TestChat(ChatContract):
    """The web chat."""


class TestEmail(EmailContract):
    """Mail, read and sent."""


class TestMessenger(MessengerContract):
    """Messenger's webhook and Send API."""


class TestInstagram(InstagramContract):
    """Instagram's webhook and Send API."""


class TestJsIdentify(JsIdentifyContract):
    """Identification by JavaScript."""
