"""Sending through Mailgun: the whole mail, as it is (https://documentation.mailgun.com, `messages.mime`)."""

import base64

import httpx

from convsdk.channels.email.compose import Letter
from convsdk.channels.email.outgoing import Provider
from convsdk.channels.email.sending import MailgunSending
from convsdk.core.answers import read_answer
from convsdk.core.ports import Receipt

_HOSTS = {"us": "api.mailgun.net", "eu": "api.eu.mailgun.net"}


class Mailgun(Provider):
    """Mailgun keeps the Message-ID of a mail that has one, and names it in its answer."""

    title = "Mailgun"

    def __init__(self, sending: MailgunSending) -> None:
        self._sending = sending

    def build(self, letter: Letter) -> httpx.Request:
        self.require_ascii(letter)
        key = base64.b64encode(f"api:{self._sending.key.reveal()}".encode()).decode("ascii")
        boundary = f"form_{letter.token}"  # the library would draw one by lot
        return httpx.Request(
            "POST",
            f"https://{_HOSTS[self._sending.region]}/v3/{self._sending.domain}/messages.mime",
            headers={
                "Authorization": f"Basic {key}",
                "Content-Type": f"multipart/form-data; boundary={boundary}",
            },
            data={"to": letter.recipient},
            files={"message": ("message.eml", letter.raw, "message/rfc822")},
        )

    def interpret(self, response: httpx.Response) -> Receipt:
        answer = read_answer(response)
        if response.is_success:
            return Receipt(external_id=answer.text("id"))
        raise self.refusal(response, words=answer.text("message", response.text))
