"""The static files: as they are written, but for what only their writers need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.web.assets import STATIC, Assets

OWN = [path for path in sorted(STATIC.rglob("*.js")) if "vendor" not in path.parts]
SERVED = Assets.read()
LINE_OF_COMMENT = re.compile(r"\s*(//|/\*|\*)")
END_OF_LINE = re.compile(r"""(?<=[;,{}()]) // [^"'`]*$""")


def served(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    asset = Assets.read(folder).get(name)
    assert asset is not None
    return asset.body.decode()


def test_a_module_comes_without_its_indentation_and_its_comments(tmp_path: Path) -> None:
    written = """// What it is for.

/** Gives two. */
export function two() {
  // not so simple
  const where = "https://example.org/*"; // a comment
  const other = "; // none"; // "stays"
  /* a
     few words */
  return 2 /* stays, too */ + `/* ${0} */`;
}
"""
    assert served(tmp_path, "two.js", written).splitlines() == [
        "export function two() {",
        'const where = "https://example.org/*";',
        'const other = "; // none"; // "stays"',
        "return 2 /* stays, too */ + `/* ${0} */`;",
        "}",
    ]


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_no_text_in_a_module_goes_over_several_lines_and_no_code_is_taken_for_a_comment(path: Path) -> None:
    lines = [line.strip() for line in path.read_text().splitlines() if not LINE_OF_COMMENT.match(line)]
    assert [line for line in lines if line.count("`") % 2 or line.endswith("\\")] == []
    asset = SERVED.get(path.relative_to(STATIC).as_posix())
    assert asset is not None
    assert asset.body.decode().splitlines() == [END_OF_LINE.sub("", line) for line in lines if line]


def test_a_style_sheet_comes_without_comments_and_without_the_space_that_says_nothing(tmp_path: Path) -> None:
    written = """/* Signs: "here". */
.a > b:not(.c) :is(d, e) { color: red; content: "; /* a */  { b }" / ""; } /* one */
@media (min-width: 48rem) and (hover: hover) { /* two */
  .a::before { margin: 0 0.5rem calc(0.25px + 10.5px); }
}
"""
    assert served(tmp_path, "a.css", written) == (
        '.a > b:not(.c) :is(d,e){color:red;content:"; /* a */  { b }" / ""}'
        "@media (min-width:48rem) and (hover:hover){.a::before{margin:0 .5rem calc(.25px + 10.5px)}}"
    )


def test_what_others_have_written_stays_as_it_is() -> None:
    for path in (STATIC / "vendor").rglob("*.*"):
        asset = SERVED.get(path.relative_to(STATIC).as_posix())
        assert asset is not None
        assert asset.body == path.read_bytes()


def test_what_is_made_is_served_too_and_changes_the_address_of_all(tmp_path: Path) -> None:
    plain, more = Assets.read(tmp_path), Assets.read(tmp_path, made={"parts/a.html": "<p>a</p>"})
    asset = more.get("parts/a.html")
    assert asset is not None
    assert (asset.body, asset.content_type) == (b"<p>a</p>", "text/html")
    assert plain.tag != more.tag
