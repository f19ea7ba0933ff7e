import re
from html.parser import HTMLParser

import pytest
from hostile_html import ASKS, ODD, RUNS
from hypothesis import given
from hypothesis import strategies as st
from pace import is_linear

from convsdk.core.model import Attachment
from convsdk.web.mail_html import attachment_headers, show_mail

HOSTILE = RUNS | ASKS | ODD
REMOTE = "https://images.example/a.png"
RUNNING = {"script", "style", "iframe", "object", "embed", "svg", "math", "form", "input", "meta", "base"}
ODD_ENDS = ("<table>", "<td>", "</td>", "<p", "'", '"', ">", "<!--", "</", "&lt;", "<b>")
PIECES = st.sampled_from([*HOSTILE.values(), *ODD_ENDS])


class _Reader(HTMLParser):
    """Reads tags and attributes."""

    def __init__(self, document):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(document)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes


def _body(markup, **options):
    return re.search(r"<body>(.*)</body>", show_mail(markup, **options).document, re.DOTALL)[1]


# -- what is taken out


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_that_runs_is_left(name):
    """Neither a script nor an event, a frame, a form, or an address that is no link or image."""
    read = _Reader(_body(HOSTILE[name]))

    assert not {"script", "style", "iframe", "object", "embed", "svg", "math", "form", "input", "meta", "base"} & {
        *read.tags
    }
    assert not [one for one, _ in read.attributes if one.startswith("on")]
    assert not [one for one in read.attributes if one[0] in {"src", "srcset", "background", "href"}]


@given(st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join))
def test_whatever_comes_tags_nest_and_nothing_runs(markup):
    """Of any markup, however broken, what is shown has the tags that are known, and ends what it begins."""
    body = _body(markup)

    read = _Reader(body)
    assert not RUNNING & {*read.tags}
    assert not [one for one, _ in read.attributes if one.startswith("on")]
    assert body.count("<p>") <= body.count("</p>")


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("color: red; position: fixed; top: 0", "color:red"),
        ("POSITION:absolute;z-index:9", None),
        ("width:10px; behavior:url(x.htc)", "width:10px"),
        ("color:expression(alert(1));margin-left:-3px", "margin-left:-3px"),
        (r"color:r\65 d;font-family:'Segoe UI', Arial", "font-family:'Segoe UI', Arial"),
        (
            "color:rgb(1, 2, 3)!important;background:rgba(0 0 0 / 10%)",
            "color:rgb(1, 2, 3)!important; background:rgba(0 0 0 / 10%)",
        ),
        ('font-family:"a;position:fixed', None),
        ("content:'x';border-top-color:#fff", "border-top-color:#fff"),
    ],
)
def test_style_keeps_what_lies_flat(given, left):
    """Colours, sizes and borders stay; what floats above, loads or computes does not."""
    assert (
        dict(
            _Reader(
                _body(f"<p style='{given}'>".replace("'", "&#39;").replace("=&#39;", "='").replace("&#39;>", "'>"))
            ).attributes
        ).get("style")
        == left
    )


@pytest.mark.parametrize(
    ("address", "left"),
    [
        ("https://shop.example/a?b=1&amp;c=2", "https://shop.example/a?b=1&c=2"),
        ("MAILTO:ann@mail.example", "MAILTO:ann@mail.example"),
        ("tel:+4930123456", "tel:+4930123456"),
        ("javascript:alert(1)", None),
        ("java&#10;script:alert(1)", None),
        (" &#1;javascript:alert(1)", None),
        ("data:text/html,x", None),
        ("vbscript:x", None),
        ("/logout", None),
        ("//shop.example", None),
        ("#top", None),
        ("http:", None),
    ],
)
def test_link_leads_to_the_web_a_mailbox_or_a_telephone(address, left):
    """A link of any other kind, or to a place on the server that shows the mail, is none."""
    attributes = dict(_Reader(_body(f'<a href="{address}" target=_top onclick=a>x</a>')).attributes)

    assert attributes == {"target": "_blank", "rel": "noopener noreferrer nofollow"} | ({"href": left} if left else {})


# -- what stays


def test_mail_looks_as_it_was_written():
    """Text, tables, lists and letters stay, ends that were left out are put in, and a stray end closes no table."""
    assert _body("<table><tr><td>a<td>b<tr><td>c</font></div>d</table><p>e<p>f<ul><li>g<li>h</ul>1 < 2 &amp; 3") == (
        "<table><tbody><tr><td>a</td><td>b</td></tr><tr><td>cd</td></tr></tbody></table>"
        "<p>e</p><p>f</p><ul><li>g</li><li>h</li></ul>1 &lt; 2 &amp; 3"
    )
    assert _body("<b>a<i>b</b>c</i>") == "<b>a<i>b</i></b>c"
    assert _body("<body bgcolor=black style='color:white'>a") == (
        '<div bgcolor="black" style="background-color:black; color:white">a</div>'
    )


def test_deep_mail_is_shown_with_fewer_levels():
    """Past some levels tags are left out, and no text."""
    assert _body("<div>" * 1000 + "end").count("<div>") == 256
    assert "end" in _body("<div>" * 1000 + "end")


def test_image_of_the_mail_is_asked_of_your_server():
    """A content id leads to the address that is given for it, in a tag and in a style; another leads nowhere."""
    images = {"<logo@shop.example>": "/files/1", "b c": "https://files.example/2?a='b'"}

    body = _body(
        "<img src='cid:logo@shop.example'><img src=cid:other><img src='CID:b%20c'>"
        "<p style='background:red url(cid:b%20c)'>",
        images=images,
    )

    assert re.findall(r"<img[^>]*>", body) == [
        '<img src="/files/1">',
        "<img>",
        "<img src=\"https://files.example/2?a='b'\">",
    ]
    assert "background:red url(&quot;https://files.example/2?a=%27b%27&quot;)" in body


MANY = (
    f"<img src={REMOTE} alt=A><img src=//images.example/b.png><table background={REMOTE}><tr><td "
    f"style='background:#fff url({REMOTE})'>x</table><img srcset='{REMOTE} 2x'><img src='data:image/png;base64,AA=='>"
)


def test_remote_images_are_off_and_counted():
    """Their addresses are data until somebody asks for them; what the mail brings along is shown."""
    shown = show_mail(MANY)

    read = dict(_Reader(shown.document).attributes)
    assert shown.images_off == 4
    assert (read["data-src"], read["data-background"]) == ("//images.example/b.png", REMOTE)
    assert re.findall(r' src="([^"]*)', shown.document) == ["data:image/png;base64,AA=="]
    assert "url(" not in shown.document


def test_remote_images_are_on_when_asked_for():
    """Each is asked for where it is, and nothing is counted."""
    shown = show_mail(MANY, has_remote_images=True)

    assert shown.images_off == 0
    assert re.findall(r' (?:src|background)="([^"]*)', shown.document) == [
        REMOTE, "https://images.example/b.png", REMOTE, "data:image/png;base64,AA==",
    ]  # fmt: skip
    assert f"url(&quot;{REMOTE}&quot;)" in shown.document


def test_text_that_looks_like_an_address_stays_text():
    """What a mail says is not taken for what was marked in it."""
    text = ' src="x-0123456789abcdef:https://a.example" data-src="a"'

    assert _body(f"<p>{text}</p>") == f"<p>{text}</p>"


def test_policy_allows_images_from_where_they_are():
    """Nothing but styles in the document and its images: of the mail, and remote ones when they are on."""

    def sources(**options):
        return re.search(r"img-src ([^;]*);", show_mail("", **options).headers["content-security-policy"])[1]

    policy = show_mail("").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert policy.endswith("sandbox allow-popups allow-popups-to-escape-sandbox")
    assert sources() == "data:"
    assert sources(images={"a": "/files/1", "b": "https://files.example/2", "c": "data:image/png;base64,"}) == (
        "data: 'self' https://files.example"
    )
    assert sources(has_remote_images=True) == "data: http: https:"


# -- time


@pytest.mark.once
@pytest.mark.parametrize(
    "piece",
    [
        "<div>", "<b title=x><p>", "<table><td>", "<!--", '<p a="', "<", "<p a", "</p>", "</title", "<a href=x>", "=",
        "<p style='color:url('>", "<script>", "<td>", "&lt", "<p style=" + "a:b;" * 9 + ">", "'<p a=", "<svg><style>",
        "&", "&a", "&a;", "&#", "&#x", "&&amp;", "<p title='&&&&&&&&&&&&&&&&&&&&'>",
    ],
)  # fmt: skip
def test_time_is_linear(piece):
    """What somebody made to take long takes no longer than its size."""
    assert is_linear(show_mail, lambda size: piece * (size // len(piece)))


def test_many_signs_in_one_value_take_linear_time():
    """An address can have any number of `&`."""
    assert is_linear(show_mail, lambda size: f"<a href='https://shop.example/?{'&' * size}'>")
    assert is_linear(show_mail, lambda size: f"<a href='https://shop.example/?{'&#1' * (size // 3)}'>")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a & b", "a &amp; b"),
        ("&lt;b&gt;", "&lt;b&gt;"),
        ("&amp;lt;", "&amp;lt;"),
        ("&copy 2026 &eacute; &#252; &#xFC;", "\u00a9 2026 \u00e9 \u00fc \u00fc"),
        ("&nothing;", "\u00aching;"),
        (f"&#{'9' * 5000};", "\ufffd"),
        ("a\ufdd0lt;script&#xfdd0;lt;", "a\ufffdlt;scriptlt;"),
        ('<a href="https://shop.example/?a=1&copy=2&amp;b=&quot;&#38;c">', "?a=1&amp;copy=2&amp;b=&quot;&amp;c"),
    ],
)
def test_references_mean_what_they_mean_to_a_browser(given, shown):
    """Each `&` is read as HTML says, and written so that it cannot be read in another way."""
    assert shown in show_mail(given).document


def test_many_attributes_take_linear_time():
    """One tag can have any number of attributes, and one style of declarations."""
    assert is_linear(show_mail, lambda size: "<p " + "".join(f"a{at}=1 " for at in range(size // 8)) + ">")
    assert is_linear(show_mail, lambda size: "<p style='" + "color:red;" * (size // 10) + "'>")


def test_very_long_mail_is_cut():
    """Past two million characters nothing is shown."""
    assert len(show_mail("<p>" + "a" * 3_000_000).document) < 2_002_000


# -- attachments


def test_attachment_is_saved_and_never_run():
    """What a browser would run is bytes to it, by a name that no header minds."""
    told = attachment_headers(Attachment(name='a"\r\nx: ü.html', media_type="text/html"))

    assert told["content-type"] == "application/octet-stream"
    assert told["content-disposition"] == "attachment; filename*=utf-8''a%22%0D%0Ax%3A%20%C3%BC.html"
    assert told["x-content-type-options"] == "nosniff"
    assert "sandbox" in told["content-security-policy"]


def test_image_is_shown():
    """A picture that runs nothing can stand in the mail."""
    told = attachment_headers(Attachment(name="a.png", media_type="image/png"))

    assert (told["content-type"], told["content-disposition"]) == ("image/png", "inline; filename*=utf-8''a.png")
