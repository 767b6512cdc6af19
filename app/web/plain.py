"""What msgspec says of a body that does not fit, in words for people who know JSON but not msgspec."""

from __future__ import annotations

import re

_KINDS = {
    "array": "a list",
    "bool": "true or false",
    "float": "a decimal number",
    "int": "a whole number",
    "null": "null",
    "object": "an object",
    "str": "a text",
}
_KIND = re.compile(r"Expected `(\w+)(?: \| null)?`, got `(\w+)`")
_LENGTH = re.compile(r"Expected `(array|str)` of length (>=|<=) (\d+)")
_BOUND = re.compile(r"Expected `\w+` (>=|<=) (\d+)")
_WORD = re.compile(r"Invalid enum value '(.*)'", re.DOTALL)
_FIELD = re.compile(r"Object contains unknown field (`.*`)", re.DOTALL)
_HALF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


def plain(what: str) -> str:
    """One of its sentences about a value, without the place and the full stop; as it is if it is not known."""
    if found := _KIND.fullmatch(what):
        return f"This has to be {_KINDS.get(found[1], found[1])}, and it is {_KINDS.get(found[2], found[2])}"
    if found := _LENGTH.fullmatch(what):
        parts = "entries" if found[1] == "array" else "characters"
        if (found[2], found[3]) == (">=", "1"):
            return "This is empty"
        return f"This has to have at {'least' if found[2] == '>=' else 'most'} {found[3]} {parts}"
    if found := _BOUND.fullmatch(what):
        return f"This has to be {found[2]} or {'more' if found[1] == '>=' else 'less'}"
    if found := _WORD.fullmatch(what):
        return f"There is no {found[1]!r} here"
    if found := _FIELD.fullmatch(what):
        return f"There is no field {found[1]} in this request"
    return what


def not_json(body: bytes, error: Exception) -> str:
    """Why a body cannot be read. Half a surrogate pair is what msgspec takes for the end of the body."""
    if "truncated" in str(error) and _HALF_A_PAIR.search(body):
        return r"The body holds a text that cannot be: half a surrogate pair, such as \ud800."
    return f"The body is not JSON: {error}."
