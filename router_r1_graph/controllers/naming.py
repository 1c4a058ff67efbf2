"""Where a turn names a candidate although it has no call that can be used."""

from __future__ import annotations

from ..tags import TAG


def until_named(text: str) -> tuple[int, str, str]:
    r"""Return where a turn without a call that can be used names a candidate, or would name one.

    Returns:
        How many characters of the turn come before the name; what the turn lacks between them and
        the name; and the name that is written there, "" for none.

    Example:
        >>> until_named("<think> Easy. </think> <search> Ada: and so on, without an end")
        (31, ' ', 'Ada')
        >>> until_named("<think> Easy. </think> <answer> 4 </answer>")
        (22, '\n<search> ', '')
    """
    search, closed = "<search>", "</think>"
    if (at := text.find(search)) >= 0:
        end = at + len(search)
        name = TAG.split(text[end:], maxsplit=1)[0].partition(":")[0]
        return end, " ", name.strip()
    at = text.rfind(closed)
    if text.rfind("<think>") > at:
        return len(text), f" {closed}\n{search} ", ""
    return (at + len(closed), f"\n{search} ", "") if at >= 0 else (0, f"{search} ", "")
