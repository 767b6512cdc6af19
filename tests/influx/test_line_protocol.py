"""The stand-in's reading of line protocol, where Core's differs from what one would guess."""

from __future__ import annotations

import pytest

from tests.influx.line_protocol import Line, Malformed, Unsigned, lines


def one(text: str) -> Line:
    (line,) = lines(text)
    assert isinstance(line, Line), line
    return line


def problem(text: str) -> str:
    (refused,) = lines(text)
    assert isinstance(refused, Malformed), refused
    return str(refused)


def test_all_parts() -> None:
    assert one('m,a=1,b=x\\ y f=1.5,i=-2i,u=3u,s="q\\"\\\\",t=t,n=False   -7  ') == Line(
        "m", (("a", "1"), ("b", "x y")), (("f", 1.5), ("i", -2), ("u", Unsigned(3)), ("s", 'q"\\'), ("t", True), ("n", False)), -7
    )


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"a\,b", "a,b"),
        (r"a\ b", "a b"),
        (r"a\\b", r"a\b"),
        (r"a\b", r"a\b"),
        (r"a\=b", r"a\=b"),
        ("a=b", "a=b"),
        ('a"b', 'a"b'),
        ("a\\\nb", "a\\\nb"),
    ],
)
def test_escapes_in_a_measurement(written: str, read: str) -> None:
    assert one(f"{written} v=1").measurement == read


@pytest.mark.parametrize(
    ("tag", "key", "value"),
    [
        (r"k\=\,\ =v", "k=, ", "v"),
        (r"k=\=\,\ v", "k", "=, v"),
        ("k=a=b", "k", "a=b"),
        (",k=v", ",k", "v"),
        ("k,l=v", "k,l", "v"),
        ('k=a"b', "k", 'a"b'),
        ("k=\0", "k", "\0"),
        (r"k=a\nb", "k", r"a\nb"),
    ],
)
def test_escapes_in_tags(tag: str, key: str, value: str) -> None:
    assert one(f"m,{tag} v=1").tags == ((key, value),)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('""', ""),
        ('"a\nb"', "a\nb"),
        ('"a\\nb"', "a\\nb"),
        ('"a\\\nb"', "a\\\nb"),
        ('"\\\\"', "\\"),
        ('"\\\\\\""', '\\"'),
        ('"a,b=c d #"', "a,b=c d #"),
        ('"\0"', "\0"),
    ],
)
def test_string_fields(written: str, read: str) -> None:
    assert one(f"m a={written},b=1i 5").fields == (("a", read), ("b", 1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("m v=1,w= 5", "Could not parse entire line. Found trailing content: `w= 5`"),
        ("m v=1,w=2,x=3,y= 5", "Could not parse entire line. Found trailing content: `,y= 5`"),
        ("m v=1 abcdefghijklmnop", "Could not parse entire line. Found trailing content: ` abcdefghi...`"),
        ("m v=5. 2", "Could not parse entire line. Found trailing content: `. 2`"),
        ("m v=tRUE 5", "Could not parse entire line. Found trailing content: `RUE 5`"),
        ("m v=1\t5", "Could not parse entire line. Found trailing content: `\t5`"),
        ('m f=1"i 1\nBAD', 'Could not parse entire line. Found trailing content: `"i 1\nBAD`'),
        ("m\tv=1 5", "Expected at least one space character, got `\tv=1 5`"),
        ("m", "Expected at least one space character, got end of input"),
        ("J,#", "Tag set malformed: could not find equals sign in `#`"),
        ("m,foo=,baz= bar=1i", "Expected tag value, got `,baz= bar=...`"),
        ("m,", "Expected tag key, got end of input"),
        (",t=1 v=1", "Invalid measurement was provided"),
        ("m v=+5 5", "No fields were provided"),
        (":\\", "Measurements, tag keys and values, and field keys may not end with a backslash"),
    ],
)
def test_refusals_in_core_s_words(text: str, words: str) -> None:
    assert problem(text) == words


def test_the_comma_behind_the_first_field_may_be_the_end() -> None:
    assert one("m v=1, 1000") == Line("m", (), (("v", 1.0),), 1000)


def test_a_line_does_not_end_with_the_one_before_it() -> None:
    found = list(lines('m,t=a"b f=1i 1\r\n# no line\n\n  m f=2i\nm f=\nm f=3i'))
    assert [str(line) for line in found] == [
        "Could not parse entire line. Found trailing content: `\r`",
        "m f=2i",
        "No fields were provided",
        "m f=3i",
    ]


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("r    v=2.50,a=3i   2", "r v=2.5,a=3i 2"),
        ("r,t=x v=1e3 4", "r,t=x v=1000 4"),
        ('r v="s" 6', "r v=s 6"),
        ("r v=1.5e-7 8", "r v=0.00000015 8"),
        ("r\\,s,a\\ b=c\\=d v=T,u=1u", "r\\,s,a\\ b=c\\=d v=true,u=1u"),
    ],
)
def test_printed_anew(text: str, printed: str) -> None:
    assert str(one(text)) == printed
