"""Sending through Postmark, which takes a mail in its pieces (https://postmarkapp.com/developer/api/email-api)."""

import base64

import httpx

from convsdk.channels.email.compose import Letter, is_shown, name_of, type_of
from convsdk.channels.email.outgoing import Provider
from convsdk.channels.email.sending import PostmarkSending
from convsdk.core.answers import read_answer
from convsdk.core.ports import File, Receipt

_ENDPOINT = "https://api.postmarkapp.com/email"
# Postmark answers these with 422, although they say nothing about the mail: 100 is maintenance, 429 too many requests.
_PASSING = {100, 429}


class Postmark(Provider):
    """Postmark keeps a Message-ID only where `X-PM-KeepID` asks for it.

    Its own id, the receipt's external id, stands in no mail: by that alone its webhooks name one.
    """

    title = "Postmark"

    def __init__(self, sending: PostmarkSending) -> None:
        self._sending = sending

    def build(self, letter: Letter) -> httpx.Request:
        self.require_ascii(letter)
        fields = (*letter.fields, ("X-PM-KeepID", "true"))
        body = {
            "From": _mailbox(letter.name, letter.sender),
            "To": letter.recipient,
            "ReplyTo": _mailbox(letter.name, letter.reply_to),
            "Subject": letter.subject,
            "TextBody": letter.text,
            "HtmlBody": letter.html,
            "MessageStream": self._sending.stream,
            "Headers": [{"Name": name, "Value": value} for name, value in fields],
            "Attachments": list(map(_attachment, letter.files)),
        }
        headers = {"Accept": "application/json", "X-Postmark-Server-Token": self._sending.token.reveal()}
        return httpx.Request("POST", _ENDPOINT, headers=headers, json=body)

    def interpret(self, response: httpx.Response) -> Receipt:
        answer = read_answer(response)
        code = answer.integer("ErrorCode") or 0
        if response.is_success and not code:
            return Receipt(external_id=answer.text("MessageID"))
        words = answer.text("Message", response.text)
        raise self.refusal(response, code=str(code or ""), words=words, is_passing=code in _PASSING)


def _mailbox(name: str, address: str) -> str:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}" <{address}>' if name else address


def _attachment(file: File) -> dict[str, str]:
    described = {
        "Name": name_of(file),
        "Content": base64.b64encode(file.content).decode("ascii"),
        "ContentType": type_of(file),
    }
    return described | ({"ContentID": f"cid:{file.content_id}"} if is_shown(file) else {})
