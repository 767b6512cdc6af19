"""The shapes of requests, and what is said about those that do not fit."""

from __future__ import annotations

import pytest

from app.errors import RequestError
from app.web import requests


def refused(body: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        requests.body(body, requests.TriggerBody)
    return caught.value


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "$"),
        (b"  \n", "$"),
        (b"{", "$"),
        (b"\xff\xfe", "$"),
        (b'{"vm_ids":["\xff"]}', "$"),
        (b"[]", "$"),
        (b"null", "$"),
        (b"{}", "$"),
        (b'{"all":false}', "$"),
        (b'{"all":true,"vm_ids":["1"]}', "$"),
        (b'{"vm_ids":["1"],"vms":["1"]}', "$.vms"),
        (b'{"vm_ids":"101"}', "$.vm_ids"),
        (b'{"vm_ids":[]}', "$.vm_ids"),
        (b'{"vm_ids":["1",2]}', "$.vm_ids[1]"),
        (b'{"vm_ids":[' + b'"1",' * 2000 + b'"1"]}', "$.vm_ids"),
        (b'{"vm_ids":["1",""]}', "$.vm_ids[1]"),
        (b'{"all":"yes"}', "$.all"),
        (b'{"all":1}', "$.all"),
        (b'{"all":true,"mode":"sideways"}', "$.mode"),
        (b'{"all":true,"compression":"rar"}', "$.compression"),
        (b'{"all":true,"max_pause_ms":0}', "$.max_pause_ms"),
        (b'{"all":true,"max_pause_ms":1.5}', "$.max_pause_ms"),
        (b'{"all":true,"reason":5}', "$.reason"),
        (b'{"all":true,"reason":"a\\u0000b"}', "$.reason"),
        (b'{"all":true,"case":"' + b"x" * 1001 + b'"}', "$.case"),
        (b'{"all":true,"all":true}', "$.all"),
        (b'{"all":true,"\\u0061ll":true}', "$.all"),
        (b'{"vm_ids":["1"],"vm_ids":["2"]}', "$.vm_ids"),
        (b'{"all":true,"mode":"live","mode":null}', "$.mode"),
        (b"[" * 50_000, "$"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_with_the_place(body: bytes, place: str) -> None:
    error = refused(body)
    assert error.place == place
    assert error.code == "request-invalid"
    assert place in str(error) or place == "$"


def test_as_many_vms_can_be_named_as_can_wait_twice_over() -> None:
    asked = requests.body(b'{"vm_ids":[' + b'"1",' * 1999 + b'"1"]}', requests.TriggerBody)
    assert asked.vm_ids == ["1"] * 2000
    error = refused(b'{"vm_ids":[' + b'"1",' * 2000 + b'"1"]}')
    assert str(error) == "This has to have at most 2000 entries (at $.vm_ids)."


def test_a_control_character_is_refused_in_words() -> None:
    error = refused(b'{"all":true,"case":"a\\u0007b"}')
    assert str(error) == "Control characters, other than line ends and tabs, cannot be in this text (at $.case)."


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"vm_ids":"a"}', "This has to be a list, and it is a text (at $.vm_ids)."),
        (b'{"vm_ids":[]}', "Name at least one VM (at $.vm_ids)."),
        (b'{"vm_ids":[""]}', "This is empty (at $.vm_ids[0])."),
        (b'{"all":1}', "This has to be true or false, and it is a whole number (at $.all)."),
        (b'{"all":true,"vm_ids":[]}', "Give either `vm_ids` or `all`, not both (at $)."),
        (b'{"all":true,"max_pause_ms":0}', "This has to be 1 or more (at $.max_pause_ms)."),
        (b'{"all":true,"case":"' + b"x" * 1001 + b'"}', "This has to have at most 1000 characters (at $.case)."),
        (b'{"all":true,"disk":1}', "There is no field `disk` in this request (at $.disk)."),
        (b'{"vm_ids":["\\ud800"]}', "The body holds a text that cannot be: half a surrogate pair, such as \\ud800."),
    ],
)
def test_a_body_that_does_not_fit_is_refused_in_plain_words(body: bytes, text: str) -> None:
    assert str(refused(body)) == text


@pytest.mark.parametrize(("field", "words"), [("mode", "auto, live, paused"), ("compression", "gzip, zstd, lz4, none")])
def test_a_word_that_there_is_not_is_answered_with_those_that_there_are(field: str, words: str) -> None:
    error = refused(b'{"all":true,"%s":"fast"}' % field.encode())
    assert str(error) == f"There is no 'fast' here; there are {words} (at $.{field})."


def test_a_trigger_says_which_vms_and_how() -> None:
    body = b'{"vm_ids":["101"],"mode":"paused","compression":"zstd","max_pause_ms":50,"reason":"why\\nso","case":"C-1"}'
    assert requests.body(body, requests.TriggerBody) == requests.TriggerBody(
        vm_ids=["101"], mode="paused", compression="zstd", max_pause_ms=50, reason="why\nso", case="C-1"
    )
    assert requests.body(b'{"all":true}', requests.TriggerBody).all is True
