"""A mail's HTML as an agent may see it: a document for a sandboxed frame, which runs nothing and asks nobody anything.

Three walls, each of which holds by itself: what is not known to be harmless is taken out; the document's policy (CSP)
forbids scripts, frames, forms and every address but those of images; and the frame is a sandbox.
"""

import html
import re
import secrets
from collections.abc import Mapping
from urllib.parse import quote, unquote, urlsplit

import nh3
from attrs import frozen

from convsdk.core.model import Attachment
from convsdk.web.tidy import AMPERSAND, tidy


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TAGS = _words(
    "a abbr address article aside b bdi bdo big blockquote br caption center cite code col colgroup dd del details "
    "dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark nav ol p "
    "pre q s samp section small span strike strong sub summary sup table tbody td tfoot th thead time tr tt u ul var "
    "wbr"
)
_ANYWHERE = _words("align bgcolor border color dir height lang style title valign width")
_ATTRIBUTES = {
    "a": {"href"},
    "blockquote": {"type"},
    "col": {"span"},
    "colgroup": {"span"},
    "font": {"face", "size"},
    "hr": {"size"},
    "img": {"alt", "hspace", "src", "vspace"},
    "li": {"type", "value"},
    "ol": {"reversed", "start", "type"},
    "table": {"background", "cellpadding", "cellspacing"},
    "td": {"background", "colspan", "nowrap", "rowspan"},
    "th": {"background", "colspan", "nowrap", "rowspan"},
    "ul": {"type"},
}
# Nothing that lays one thing over another, moves, or is read from elsewhere.
_PROPERTIES = _words(
    "background background-color background-image background-position background-repeat background-size border "
    "border-bottom border-collapse border-color border-left border-radius border-right border-spacing border-style "
    "border-top border-width box-sizing caption-side clear color direction display empty-cells float font font-family "
    "font-size font-style font-variant font-weight height letter-spacing line-height list-style list-style-position "
    "list-style-type margin margin-bottom margin-left margin-right margin-top max-height max-width min-height "
    "min-width overflow overflow-wrap padding padding-bottom padding-left padding-right padding-top table-layout "
    "text-align text-decoration text-indent text-transform vertical-align white-space width word-break word-spacing "
    "word-wrap"
)
_SIDES = re.compile(r"(border|margin|padding)-(top|right|bottom|left)(-(color|style|width))?")
# No backslash, no comment, and what is in a quote or a bracket is closed there: it reads the same to every browser.
_VALUE = re.compile(r"""(?:(?:rgb|hsl)a?\([\w\s%.,/+-]*+\)|[\w\s#%.,!+/-]|"[\w\s.,-]*+"|'[\w\s.,-]*+')*+""")
_CSS_URL = re.compile(r"""url\(\s*+(?:"([^"'()\\]*+)"|'([^"'()\\]*+)'|([^\s"'()\\]*+))\s*+\)""", re.IGNORECASE)
_LONGEST_STYLE = 10_000
_LINK = re.compile(r"(?:https?://|mailto:|tel:)[^\x00-\x20]", re.IGNORECASE)
_REMOTE = re.compile(r"(?:https?:)?//[^/\x00-\x20]", re.IGNORECASE)
_DATA_IMAGE = re.compile(r"data:image/(?:png|gif|jpe?g|webp);base64,[a-z0-9+/=%\s]*+", re.IGNORECASE)
_IGNORED_BY_BROWSERS = re.compile(r"[\t\r\n]")
_EDGES = "".join(map(chr, range(33)))

_POLICY = "default-src 'none'; img-src {sources}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_SANDBOX = "allow-popups allow-popups-to-escape-sandbox"
_LOOK = (
    "html{color-scheme:light}body{margin:12px;background:#fff;color:#1a1a1a;font:15px/1.5 system-ui,sans-serif;"
    "overflow-wrap:anywhere}img{max-width:100%;height:auto}table{max-width:100%}pre{white-space:pre-wrap}"
    "blockquote{margin:0 0 0 4px;padding-left:10px;border-left:2px solid #c4c9d0}"
)
# What a browser shows by itself and that runs nothing; all else is only ever saved.
_SHOWN = {"image/png", "image/jpeg", "image/gif", "image/webp"}


@frozen(kw_only=True)
class ShownMail:
    """A mail's HTML to show: a whole `document`, the `headers` of the answer that has it, and what is left out.

    `images_off` is how many remote images are off: "3 images are off" is a link that asks for them.
    """

    document: str
    headers: Mapping[str, str]
    images_off: int


def show_mail(markup: str, *, images: Mapping[str, str] | None = None, has_remote_images: bool = False) -> ShownMail:
    """Give the HTML of a mail as a document for `<iframe sandbox>`.

    `images` are the addresses of the images inside the mail, by their content id: on your server, or `data:`.
    `has_remote_images`: the agent asked for images from elsewhere, which tell their sender that the mail is read. The
    time is linear in the size; past two million characters the HTML is cut.
    """
    pictures = _Pictures(images or {}, is_remote_on=has_remote_images)
    attributes = _ANYWHERE.union(*_ATTRIBUTES.values())
    body = nh3.clean(
        tidy(markup, tags=_TAGS, attributes=attributes),
        tags=_TAGS,
        attributes={tag: _ANYWHERE | _ATTRIBUTES.get(tag, set()) for tag in _TAGS},
        attribute_filter=_Filter(pictures),
        url_schemes={"http", "https", "mailto", "tel", "cid", "data"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
    policy = _POLICY.format(sources=pictures.sources)
    document = (
        '<!doctype html><html><head><meta charset="utf-8">'
        f'<meta http-equiv="content-security-policy" content="{html.escape(policy)}">'
        '<meta name="referrer" content="no-referrer">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Mail</title><style>{_LOOK}</style></head><body>{pictures.settled(body)}</body></html>"
    )
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": f"{policy}; frame-ancestors 'self'; sandbox {_SANDBOX}",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "private, no-store",
    }
    return ShownMail(document=document, headers=headers, images_off=pictures.off)


def attachment_headers(attachment: Attachment) -> Mapping[str, str]:
    """Give the headers of an answer with what an attachment holds: it is saved, or is an image that runs nothing."""
    is_shown = attachment.media_type in _SHOWN
    name = quote(attachment.name.encode("utf-8", "replace"), safe="")
    return {
        "content-type": attachment.media_type if is_shown else "application/octet-stream",
        "content-disposition": f"{'inline' if is_shown else 'attachment'}; filename*=utf-8''{name}",
        "content-security-policy": "default-src 'none'; sandbox",
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "cross-origin",  # a sandboxed frame is of no site
        "cache-control": "private, max-age=86400",
    }


class _Pictures:
    """Which images a document may show, and how many it may not."""

    def __init__(self, images: Mapping[str, str], *, is_remote_on: bool) -> None:
        self.off = 0
        self._images = {key.strip("<> "): address for key, address in images.items()}
        self._is_remote_on = is_remote_on
        # Nobody can write it into a mail.
        self._mark = f"x-{secrets.token_hex(8)}:"

    @property
    def sources(self) -> str:
        """Give the sources for the policy: nothing but what can be in the document."""
        places = {_source(address) for address in self._images.values()}
        return " ".join(["data:", *sorted(places - {"data:"}), *(["http:", "https:"] if self._is_remote_on else [])])

    def address(self, given: str) -> str | None:
        """Give where an image is, None where there is none; one that is off is marked."""
        url = _as_browsers_read(given)
        if url[:4].lower() == "cid:":
            return self._images.get(unquote(url[4:])) or self._images.get(url[4:])
        if _DATA_IMAGE.fullmatch(url):
            return url
        if not _REMOTE.match(url):
            return None
        if not self._is_remote_on:
            self.off += 1
            return self._mark + url
        return f"https:{url}" if url.startswith("//") else url

    def in_style(self, given: str) -> str | None:
        """Give where an image of a style is, as it may stand in one."""
        address = self.address(given)
        return None if address is None or address.startswith(self._mark) else quote(address, safe=":/?#[]@!$&*+,;=%~")

    def settled(self, body: str) -> str:
        """Give a cleaned body in which the addresses of images that are off are data, and no addresses."""
        body = body.replace(AMPERSAND, "&amp;")
        for name in ("src", "background"):
            body = body.replace(f' {name}="{self._mark}', f' data-{name}="')
        return body


class _Filter:
    """Gives what is left of each attribute; nothing checks it afterwards."""

    def __init__(self, pictures: _Pictures) -> None:
        self._pictures = pictures

    def __call__(self, _tag: str, name: str, value: str) -> str | None:
        left = self._left(name, value.replace(AMPERSAND, "&"))
        return left and left.replace("&", AMPERSAND)

    def _left(self, name: str, value: str) -> str | None:
        match name:
            case "href":
                url = _as_browsers_read(value)
                return url if _LINK.match(url) else None
            case "src" | "background":
                return self._pictures.address(value)
            case "style":
                return "; ".join(filter(None, map(self._declaration, value[:_LONGEST_STYLE].split(";")))) or None
        return value

    def _declaration(self, text: str) -> str:
        name, colon, value = text.partition(":")
        name = name.strip().lower()
        if not colon or not (name in _PROPERTIES or _SIDES.fullmatch(name)):
            return ""
        rest, kept = value, ""
        if name in {"background", "background-image"} and (url := _CSS_URL.search(value)):
            address = self._pictures.in_style(next(filter(None, url.groups()), ""))
            kept = f' url("{address}")' if address else ""
            rest = f"{value[: url.start()]} {value[url.end() :]}"
        return f"{name}:{rest.strip()}{kept}" if _VALUE.fullmatch(rest) and (rest.strip() or kept) else ""


def _as_browsers_read(url: str) -> str:
    return _IGNORED_BY_BROWSERS.sub("", url.strip(_EDGES))


def _source(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme == "data":
        return "data:"
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc and parts.scheme else "'self'"
