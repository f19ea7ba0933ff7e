"""Sending through Amazon SES: the whole mail, as it is, by its API v2 (SendEmail), signed by Signature Version 4."""

import base64
import hashlib
import hmac
import json
from datetime import UTC

import httpx

from convsdk.channels.email.compose import Letter
from convsdk.channels.email.outgoing import Provider
from convsdk.channels.email.sending import SesSending, ses_message_id
from convsdk.core.answers import read_answer
from convsdk.core.ports import Receipt

_PATH = "/v2/email/outbound-emails"
_SERVICE = "ses"
_ALGORITHM = "AWS4-HMAC-SHA256"
_PASSING = {"TooManyRequestsException", "LimitExceededException", "SendingPausedException", "ThrottlingException"}


class Ses(Provider):
    """Amazon SES puts a Message-ID of its own in place of ours, made of the id that it answers with.

    Whoever answers by that alone is found by it; it is the receipt's external id.
    """

    title = "Amazon SES"

    def __init__(self, sending: SesSending) -> None:
        self._sending = sending

    def build(self, letter: Letter) -> httpx.Request:
        self.require_ascii(letter)
        asked = {
            "FromEmailAddress": letter.sender,
            "Destination": {"ToAddresses": [letter.recipient]},
            "Content": {"Raw": {"Data": base64.b64encode(letter.raw).decode("ascii")}},
            "FeedbackForwardingEmailAddress": letter.return_path,
            "ConfigurationSetName": self._sending.configuration_set,
        }
        body = json.dumps({name: value for name, value in asked.items() if value}).encode()
        host = f"email.{self._sending.region}.amazonaws.com"
        headers = self._signed(host, body, f"{letter.at.astimezone(UTC):%Y%m%dT%H%M%SZ}")
        return httpx.Request("POST", f"https://{host}{_PATH}", headers=headers, content=body)

    def interpret(self, response: httpx.Response) -> Receipt:
        answer = read_answer(response)
        if response.is_success:
            return Receipt(external_id=ses_message_id(answer.text("MessageId"), self._sending.region))
        code = response.headers.get("x-amzn-errortype", answer.text("__type"))
        code = code.partition(":")[0].rpartition("#")[2]
        words = answer.text("message") or answer.text("Message")
        raise self.refusal(response, code=code, words=words, is_passing=code in _PASSING)

    def _signed(self, host: str, body: bytes, moment: str) -> dict[str, str]:
        """Give the header fields of a request, its signature among them (AWS Signature Version 4)."""
        headers = {"Content-Type": "application/json", "Host": host, "X-Amz-Date": moment}
        if self._sending.session_token:
            headers["X-Amz-Security-Token"] = self._sending.session_token.reveal()
        fields = sorted((name.lower(), value) for name, value in headers.items())
        names = ";".join(name for name, _ in fields)
        lines = "".join(f"{name}:{value}\n" for name, value in fields)
        asked = "\n".join(("POST", _PATH, "", lines, names, hashlib.sha256(body).hexdigest()))
        scope = f"{moment[:8]}/{self._sending.region}/{_SERVICE}/aws4_request"
        to_sign = "\n".join((_ALGORITHM, moment, scope, hashlib.sha256(asked.encode()).hexdigest()))
        key = f"AWS4{self._sending.secret_key.reveal()}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
        credential = f"{self._sending.key_id}/{scope}"
        signed = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
        return headers | {"Authorization": signed}
