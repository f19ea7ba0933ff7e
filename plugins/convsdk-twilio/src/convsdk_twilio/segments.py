"""How many segments a text is billed as (3GPP TS 23.038 and 23.040)."""

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ ÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED = frozenset("\f^{}\\[~]|€")  # two septets each
_GSM7 = (160, 153)  # septets in one segment, and in each of several
_UCS2 = (70, 67)  # UTF-16 units, likewise


def is_gsm7(text: str) -> bool:
    """Say whether GSM-7 has every character of `text`; one that it has not makes the whole message UCS-2."""
    return set(text) <= _BASIC | _EXTENDED


def segments(text: str) -> int:
    """Give the number of segments of `text`: 1 for an empty one, as for a picture alone.

    No character is cut between two segments: an extended one and an emoji take two places, and move on together.
    Twilio's "smart encoding" can make fewer of them, never more.
    """
    gsm7 = is_gsm7(text)
    alone, among = _GSM7 if gsm7 else _UCS2
    sizes = [1 + (one in _EXTENDED if gsm7 else one > "\uffff") for one in text]
    if sum(sizes) <= alone:
        return 1
    count, used = 1, 0
    for size in sizes:
        if used + size > among:
            count, used = count + 1, 0
        used += size
    return count
