import re
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default as modern

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st
from pace import is_linear

from convsdk.channels.email import EmailChannel
from convsdk.channels.email.compose import compose, html_of
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.model import Identifier
from convsdk.core.ports import File, Outbound, Request
from convsdk.errors import PermanentError

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
TOKEN = "abcdefghij234567"
SETTINGS = EmailSettings(address="in-7f3a@shop.example", sender="help@shop.example", name="Shop", reply_line="")
MESSAGE = Outbound(
    to=Identifier("email", "", "ann@mail.example"), address="Ann@mail.example", text="Yes.", token=TOKEN, at=NOW
)
STORABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def letter(settings=SETTINGS, **changed):
    """Give the letter of a message like the others, but for what is `changed`."""
    return compose(evolve(MESSAGE, **changed), settings)


def head(raw):
    """Give the header fields as the standard library's newer policy reads them."""
    return message_from_bytes(raw, policy=modern)


def read(raw):
    """Give what somebody else's e-mail channel reads."""
    (event, *_) = EmailChannel("other", EmailSettings(address="ann@mail.example")).parse(
        Request(received_at=NOW, body=raw)
    )
    return event


def whole(event):
    """Give the whole text of a mail, with what was taken for a quote or a signature."""
    return "".join(text for _, text in event.detail["sections"]) if "sections" in event.detail else event.text


def test_letter_says_whose_it_is():
    """From is the public address under its name, answers and bounces go to the address with the token."""
    mail = letter(settings=evolve(SETTINGS, name="Shop, the"))

    found = head(mail.raw)
    assert found["From"] == '"Shop, the" <help@shop.example>'
    assert found["Reply-To"] == f'"Shop, the" <in-7f3a+{TOKEN}@shop.example>'
    assert found["To"] == "Ann@mail.example"
    assert found["Message-ID"] == f"<{TOKEN}@shop.example>"
    assert found["Date"].datetime == NOW
    assert (mail.return_path, mail.recipient) == (f"in-7f3a+{TOKEN}@shop.example", "Ann@mail.example")


def test_letter_is_from_the_inbound_address_where_there_is_no_other():
    """Without a public address and a name, the From is the bare inbound address."""
    assert head(letter(EmailSettings(address="in-7f3a@shop.example")).raw)["From"] == "in-7f3a@shop.example"


def test_same_message_gives_the_same_bytes():
    """Nothing in a letter is drawn by lot, so a second try is the same mail."""
    file = File(name="a.bin", media_type="application/octet-stream", content=b"1")

    assert letter(attachments=(file,)).raw == letter(attachments=(file,)).raw


def test_answer_is_in_its_thread():
    """What is answered last is in In-Reply-To; References end with it, and hold valid ids only."""
    references = ("<first@mail.example>", "sha256:no-id", "<no at>", "<a@b@c>", "<last@mail.example>#0123456789abcdef")

    found = read(letter(references=references).raw)

    assert head(letter(references=references).raw)["In-Reply-To"] == "<last@mail.example>"
    assert found.references == ("<last@mail.example>", "<a@b@c>", "<first@mail.example>")


def test_references_of_a_long_thread_are_capped():
    """The first id and the last nineteen are kept, on lines that are not too long."""
    references = tuple(f"<{number:0240}@mail.example>" for number in range(100))

    raw = letter(references=references).raw

    assert head(raw)["References"].split() == [references[0], *references[-19:]]
    assert max(map(len, raw.split(b"\r\n"))) < 998


def test_first_mail_refers_to_nothing():
    """A mail that answers none has neither field, and keeps its subject."""
    found = head(letter(subject="Your order").raw)

    assert (found["In-Reply-To"], found["References"], found["Subject"]) == (None, None, "Your order")


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("Parcel", "Re: Parcel"),
        ("Re: Parcel", "Re: Parcel"),
        ("RE: Re[2]: AW: SV:Parcel", "Re: Parcel"),
        ("Antwort\uff1aParcel", "Re: Parcel"),
        ("回复: 包裹", "Re: 包裹"),
        ("Ref: 4711", "Re: Ref: 4711"),
        ("Research: cats", "Re: Research: cats"),
        ("Fwd: Parcel", "Re: Fwd: Parcel"),
        ("", "Re:"),
        ("Re:", "Re:"),
    ],
)
def test_subject_of_an_answer_says_so_once(subject, expected):
    """Whatever languages said before that it is an answer, it says Re: once."""
    assert read(letter(subject=subject, references=("<a@mail.example>",)).raw).subject == expected


def test_html_is_made_of_the_text():
    """Nothing in a text is markup, lines stay, and web addresses can be clicked, without the full stop behind them."""
    found = html_of('<b>"Fish" & chips</b>\n  see https://shop.example/?a=1&b="2, (http://x.example).')

    assert found == (
        '<div>&lt;b&gt;"Fish" &amp; chips&lt;/b&gt;<br>\n &nbsp;see '
        '<a href="https://shop.example/?a=1&amp;b=">https://shop.example/?a=1&amp;b=</a>"2, '
        '(<a href="http://x.example">http://x.example</a>).</div>'
    )


def test_html_takes_linear_time():
    """Many addresses and much that is none cost no more than their length."""
    assert is_linear(html_of, lambda size: ("http://x.example) https:// " * size)[:size])


def test_given_html_is_sent_with_its_text():
    """HTML that was written goes out as it is; where there is no text, one is made of it."""
    both = read(letter(text="Yes.", html="<p>Yes, <i>really</i>.</p>").raw)
    alone = read(letter(text="", html="<p>Yes, <i>really</i>.</p>").raw)

    assert (both.text, both.html) == ("Yes.", "<p>Yes, <i>really</i>.</p>")
    assert alone.text == "Yes, really."


def test_mail_begins_with_the_reply_line():
    """Below it all is quoted when the answer comes, in plain text and in HTML."""
    mail = letter(evolve(SETTINGS, reply_line="##- Bitte oberhalb antworten -##"), html="<html><body>Ja.</body></html>")

    assert mail.text == "##- Bitte oberhalb antworten -##\n\nYes."
    assert mail.html.startswith("<html><body><div")
    assert "##- Bitte oberhalb antworten -##" in mail.html


def test_attachments_go_along():
    """Files keep names and bytes; what a browser would run or what may not be encoded is a plain file."""
    files = (
        File(name="Rechnung für März.pdf", media_type="application/pdf", content=b"%PDF"),
        File(name="日本" * 60 + ".pdf", media_type="application/pdf; x=1", content=b""),
        File(name='../"a%";\r\nX: y.txt', media_type="text/plain", content=b"one\r\n.\r\ntwo"),
        File(name="", media_type="message/rfc822", content=b"From: a@b.example\n\nHi"),
        File(name="x", media_type="evil\r\nX: y", content=bytes(range(256)) * 40),
    )

    raw = letter(attachments=files).raw

    found = read(raw)
    assert [one.name for one in found.attachments] == [
        "Rechnung für März.pdf",
        "日本" * 60 + ".pdf",
        "_a%_; X_ y.txt",
        "attachment",
        "x",
    ]
    assert [one.media_type for one in found.attachments] == [
        "application/pdf",
        "application/pdf",
        "text/plain",
        "application/octet-stream",
        "application/octet-stream",
    ]
    assert [one.content for one in found.attachments] == [one.content for one in files]
    assert head(raw).get_content_type() == "multipart/mixed"
    assert b"\r\nX: y" not in raw


def test_choices_are_lines_of_the_mail():
    """What a bot offers as buttons elsewhere is a line each, in the text and in the HTML, which is made anew."""
    detail = {"block": "topic", "choices": [{"value": "order", "label": "My order"}, {"value": "x", "label": "Other"}]}
    asked = evolve(MESSAGE, text="What is it about?", html="<p>What is it about?</p>", detail=detail)

    (part,) = EmailChannel("support", SETTINGS).parts(asked)

    mail = head(compose(part, SETTINGS).raw)
    plain, html = (one.get_content() for one in mail.iter_parts())
    assert plain.splitlines()[:3] == ["What is it about?", "- My order", "- Other"]
    assert "My order" in html
    assert "Other" in html


def test_image_that_the_html_shows_is_beside_it():
    """A file with a content id is part of the HTML, and no attachment beside the text."""
    image = File(name="logo.png", media_type="image/png", content=b"png", content_id="logo@1")
    other = File(name="a.png", media_type="image/png", content=b"png", content_id="no id>\r\n")

    root = head(letter(html='<img src="cid:logo@1">', attachments=(image, other)).raw)

    body, attached = root.iter_parts()
    plain, page = body.iter_parts()
    assert (plain.get_content_type(), page.get_content_type()) == ("text/plain", "multipart/related")
    assert [one.get("Content-ID") for one in page.iter_parts()] == [None, "<logo@1>"]
    assert (attached.get_filename(), attached.get("Content-ID")) == ("a.png", None)


def test_automatic_answer_is_marked():
    """It says that it is one, asks for none, and has no return path (RFC 3834)."""
    mail = letter(is_automatic=True)

    found = head(mail.raw)
    assert (found["Auto-Submitted"], found["X-Auto-Response-Suppress"]) == ("auto-replied", "All")
    assert (found["Precedence"], mail.return_path) == (None, "")
    assert read(mail.raw).detail["class"] == "automatic"


def test_mail_of_a_person_is_not_marked_as_automatic():
    """An answer that somebody wrote is read as one."""
    assert read(letter().raw).detail["class"] == "human"


def test_one_click_unsubscribes():
    """An address to unsubscribe at becomes both fields of RFC 8058."""
    found = head(letter(detail={"list_unsubscribe": "https://shop.example/u?t=1"}).raw)

    assert found["List-Unsubscribe"] == "<https://shop.example/u?t=1>"
    assert found["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


@pytest.mark.parametrize("url", ["http://shop.example/u", "https://shop.example/>\r\nX: y", 7, "https://" + "x" * 1000])
def test_unusable_address_to_unsubscribe_at_is_refused(url):
    """Only an https address on one line can be clicked safely."""
    with pytest.raises(PermanentError, match="list_unsubscribe is"):
        letter(detail={"list_unsubscribe": url})


@pytest.mark.parametrize(
    "changed",
    [
        {"subject": "Hi\r\nBcc: all@mail.example"},
        {"references": ("<a@b>\r\nBcc: all@mail.example",)},
        {"references": ("<a@b\r\nBcc: all@mail.example>",)},
        {"address": "ann@mail.example\r\nBcc: all@mail.example"},
    ],
)
def test_no_value_begins_a_field(changed):
    """A line break in a value stays inside the value, or the value is left out."""
    found = head(letter(**changed).raw)

    assert found["Bcc"] is None
    assert found["To"] == "ann@mail.example" if "address" in changed else "Ann@mail.example"


def test_name_begins_no_field():
    """Nor does a line break in the configured name."""
    assert head(letter(evolve(SETTINGS, name="Shop\r\nBcc: x@y.example")).raw)["Bcc"] is None


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"to": Identifier("phone", "", "+4930123456")}, "is no e-mail address"),
        ({"to": Identifier("email", "", "nobody")}, "is no e-mail address"),
        ({"token": "short"}, "could not be answered"),
        ({"token": "abcdefghij234567\r\nX: y"}, "could not be answered"),
    ],
)
def test_message_that_makes_no_mail_is_refused(changed, told):
    """What has no address or no token that an answer could be known by is refused, with the reason."""
    with pytest.raises(PermanentError, match=told):
        letter(**changed)


def test_international_domain_goes_out_in_ascii():
    """A domain in other letters has an ASCII form, which every server takes (RFC 5891)."""
    mail = letter(to=Identifier("email", "", "ann@xn--mller-kva.example"), address="Ann@müller.example")

    assert (mail.recipient, mail.is_international) == ("Ann@xn--mller-kva.example", False)


def test_invisible_edge_of_an_address_is_left_out():
    """What was copied with an invisible blank is the same address, and not another one that only UTF-8 can name."""
    mail = letter(address="\u200bAnn@mail.example\ufeff")

    assert (mail.recipient, mail.is_international) == ("Ann@mail.example", False)


def test_international_address_needs_utf8():
    """What is before the @ has no other form: it goes out in UTF-8 (RFC 6532)."""
    mail = letter(to=Identifier("email", "", "änn@mail.example"), address="")

    assert mail.is_international
    assert "\r\nTo: änn@mail.example\r\n".encode() in mail.raw


def test_ordinary_text_is_not_encoded():
    """Plain English stays readable on the wire; other letters are quoted, and what has hardly any of ours is base64."""
    assert b"Content-Transfer-Encoding: 7bit\r\n\r\nYes." in letter().raw
    assert b"quoted-printable\r\n\r\nViele Gr=C3=BC=C3=9Fe aus" in letter(text="Viele Grüße aus Berlin, Ihr Laden").raw
    assert b"\nFrom " not in letter(text="From here on\n" * 9).raw.replace(b"\r\nFrom: ", b"")
    assert b"charset=utf-8\r\nContent-Transfer-Encoding: base64" in letter(text="ありがとうございます").raw


@example(text="", subject="a control between\x85\x1b\x85blanks", name="")
@given(text=STORABLE, subject=STORABLE, name=STORABLE)
def test_any_mail_reads_back(text, subject, name):
    """Whatever is written, its reader gets: text, subject, thread; every line is ASCII and short enough."""
    mail = letter(evolve(SETTINGS, name=name[:100]), text=text, subject=subject, references=("<a@mail.example>",))

    found = read(mail.raw)

    assert whole(found) == re.sub("\r\n?", "\n", text) or not text.strip()
    assert found.subject == mail.subject
    assert found.references == ("<a@mail.example>",)
    assert found.external_id == f"<{TOKEN}@shop.example>"
    assert found.detail["from"] == "help@shop.example"
    assert mail.raw.isascii()
    assert max(map(len, mail.raw.split(b"\r\n"))) <= 998
    assert b"\r" not in mail.raw.replace(b"\r\n", b"")
    assert b"\n" not in mail.raw.replace(b"\r\n", b"")


@given(name=STORABLE, content=st.binary())
def test_any_file_reads_back(name, content):
    """Whatever its name is made of, a file arrives whole, under a safe name."""
    raw = letter(attachments=(File(name=name, media_type="image/png", content=content),)).raw

    (found,) = read(raw).attachments
    assert found.content == content
    assert found.name
    assert max(map(len, raw.split(b"\r\n"))) <= 998


def test_file_that_has_only_an_address_is_refused():
    """A mail carries its files: none goes out empty, but for one that is."""
    with pytest.raises(PermanentError, match=r"'a\.pdf' is only at https://shop\.example/a\.pdf"):
        letter(
            attachments=(
                File(name="a.pdf", media_type="application/pdf", content=b"", url="https://shop.example/a.pdf"),
            )
        )

    assert letter(attachments=(File(name="a.txt", media_type="text/plain", content=b""),)).files
