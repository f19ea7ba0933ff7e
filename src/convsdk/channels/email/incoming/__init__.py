"""Where mail comes from over HTTP: each source proves a request, and reads the raw mails or reports in it.

Raw modes only: what a provider has made of a mail is not looked at, so that one parser reads them all.
"""

from convsdk.channels.email.incoming.content import Found, RawMail
from convsdk.channels.email.incoming.mailgun import Mailgun
from convsdk.channels.email.incoming.postmark import Postmark
from convsdk.channels.email.incoming.raw import Raw
from convsdk.channels.email.incoming.sendgrid import SendGrid
from convsdk.channels.email.incoming.ses import Ses

Source = Raw | Mailgun | Postmark | Ses | SendGrid
"""The settings of a source; its `by` names it in a configuration."""

__all__ = ["Found", "Mailgun", "Postmark", "Raw", "RawMail", "SendGrid", "Ses", "Source"]
