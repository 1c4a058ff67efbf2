"""The written form of amounts, counts and long texts, for people."""

from __future__ import annotations

import math
from decimal import Decimal

_NOTHING = 1e-12
"""A smaller amount is a rounding error of additions."""


def usd(amount: float, *, exact: bool = False) -> str:
    """Write an amount of USD with as many digits as it needs, and never as a power of ten.

    Args:
        amount: USD.
        exact: millionths above a dollar too, where two amounts are compared.

    Example:
        >>> usd(2112.34), usd(0.00013), usd(4.5e-7), usd(0)
        ('$2112.34', '$0.000130', '$0.00000045', '$0')
    """
    if abs(amount) < _NOTHING:
        return "$0"
    sign = "-" if amount < 0 else ""
    return f"{sign}${fixed(abs(amount), 2 if abs(amount) >= 1 and not exact else 6)}"


def unconfirmed(amount: float) -> str:
    """Write, after a cost, the most that attempts of an unknown price cost; "" = nothing.

    Example:
        >>> unconfirmed(0.03), unconfirmed(0)
        (', and up to $0.030000 that no provider confirmed', '')
    """
    return f", and up to {usd(amount)} that no provider confirmed" if amount else ""


def fixed(amount: float, decimals: int) -> str:
    """Write a number with so many decimals; one that these would make a zero has two digits.

    Example:
        >>> fixed(0.1234567, 4), fixed(0.0000123, 4), fixed(-0.00000001, 2), fixed(-0.0, 2)
        ('0.1235', '0.000012', '-0.00000001', '0.00')
    """
    size = abs(amount)
    if size < _NOTHING or size >= 10**-decimals or not math.isfinite(size):
        return rounded(amount, decimals)
    text = f"{amount:.{math.ceil(-math.log10(size)) + 1}f}"
    return text.rstrip("0") if len(text) > decimals + 3 else text


def rounded(number: float, decimals: int, sign: str = "") -> str:
    """Write a number with so many decimals and no negative zero; `sign` is "+" or "".

    Example:
        >>> rounded(-0.0001, 3), rounded(-0.0001, 3, "+"), rounded(0.25, 1, "+")
        ('0.000', '+0.000', '+0.2')
    """
    return f"{round(number, decimals) + 0.0:{sign}.{decimals}f}"  # -0.0 + 0.0 is 0.0


def plain(number: float, digits: int = 6) -> str:
    """Write a number with so many significant digits and no power of ten.

    Example:
        >>> plain(0.00001), plain(2500000.0), plain(0.4)
        ('0.00001', '2500000', '0.4')
    """
    return format(Decimal(f"{number + 0.0:.{digits}g}"), "f")


def counted(number: int, noun: str, plural: str = "") -> str:
    """Write how many there are of something.

    Example:
        >>> counted(1, "candidate"), counted(4072, "fact"), counted(0, "reply", "replies")
        ('1 candidate', '4,072 facts', '0 replies')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def shortened(text: str, most: int = 500) -> str:
    """Return a text, or its beginning and how long it is.

    Example:
        >>> shortened("x" * 1000, 5)
        'xxxxx ... (1,000 characters)'
    """
    if len(text) <= most:
        return text
    return f"{text[:most].rstrip()} ... ({len(text):,} characters)"
