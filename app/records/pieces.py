"""What a search looks in, as bytes: found are exactly the bytes that were asked for, whatever they are.

SQLite's ``LIKE`` ends at a NUL and has wildcards, its trigram tokenizer ends at a NUL and folds what is not ASCII. Bytes have
none of that: a piece of a UTF-8 text begins and ends where characters do, and ``instr`` compares bytes as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

_BETWEEN = b"\xff"
"""Stands in no UTF-8 text, so no piece reaches from one value into the next."""

_AS_CHARACTERS = {0: "\ue000", **{byte: chr(0xE000 + byte) for byte in range(0x80, 0x100)}}
"""For the trigram index, which takes texts: each byte as one character that it neither folds nor ends at."""

TRIGRAM = 3
"""Bytes."""

_RAREST = 6


def haystack_of(*values: str) -> bytes:
    """What a search looks in, of these values, ASCII in lower case."""
    return _BETWEEN.join(value.encode() for value in values).lower()


def needle_of(piece: str) -> bytes:
    """What to look for in haystacks. What is no text (half a surrogate pair) stands in none."""
    return piece.encode(errors="surrogatepass").lower()


def as_characters(haystack: bytes) -> str:
    """For the trigram index."""
    return haystack.decode("latin-1").translate(_AS_CHARACTERS)


def trigrams_match(needle: bytes, sample: Sequence[bytes]) -> str | None:
    """The FTS5 question for rows that hold trigrams of ``needle``; None if it is too short to have one.

    It asks for the few that are rarest in a ``sample`` of haystacks: to intersect them with one that nearly every record has
    (of a folder's name, say) would be a walk through a list of nearly all records, for nothing.
    """
    trigrams = list(dict.fromkeys(needle[at : at + TRIGRAM] for at in range(len(needle) - TRIGRAM + 1)))
    frequency = {trigram: sum(trigram in haystack for haystack in sample) for trigram in trigrams}
    rarest = sorted(trigrams, key=frequency.__getitem__)[:_RAREST]
    asked = [trigram for trigram in rarest if 2 * frequency[trigram] < len(sample)] or rarest
    return " ".join('"{}"'.format(as_characters(trigram).replace('"', '""')) for trigram in asked) or None
