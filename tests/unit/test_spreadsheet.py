"""Records as a table: what a reader of CSV gets, and what a spreadsheet must not run."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model import DumpRecord
from app.web import spreadsheet
from tests.unit.test_lines import MANIFEST


def exact(cell: str) -> str:
    """The text that a cell was made of, by the rule that the guide gives."""
    return re.sub(r"(^|[;\t\r\n])'", r"\1", cell)


def array_of(*records: DumpRecord) -> str:
    """As the index gives it."""
    return msgspec.json.encode(records).decode()


def read(record: DumpRecord) -> dict[str, str]:
    """One record, as a program reads the table."""
    table = (spreadsheet.header() + spreadsheet.rows_of(array_of(record))).decode()
    names, row = csv.reader(io.StringIO(table, newline=""))
    return dict(zip(names, row, strict=True))


def test_the_header_has_every_name_of_a_record_in_its_order() -> None:
    names = [name.partition(".")[0] for name in spreadsheet.COLUMNS]
    assert list(dict.fromkeys(names)) == [name for name in MANIFEST.__slots__ if name != "domain_xml"]


def test_a_row_has_the_values_of_the_record() -> None:
    row = read(replace(MANIFEST, guest_pauses_ms=(1.5, 2.25), warnings=("one", "two"), reason=None))
    assert (row["dump_id"], row["dom"], row["gzip_size_bytes"]) == (
        MANIFEST.dump_id,
        MANIFEST.dom,
        str(MANIFEST.gzip_size_bytes),
    )
    assert (row["guest_pauses_ms"], row["warnings"], row["reason"]) == ("1.5 2.25", "one\ntwo", "")
    assert row["compression.algorithm"] == MANIFEST.compression.algorithm
    assert row["versions.qemu"] == MANIFEST.versions.qemu


def test_lines_end_as_rfc_4180_says_and_what_is_in_a_cell_stays_in_it() -> None:
    rows = spreadsheet.rows_of(array_of(replace(MANIFEST, dom='a,"b"\nc', reason="ü")))
    assert rows.endswith(b"\r\n")
    assert b'"a,""b""\nc"' in rows
    assert "ü".encode() in rows
    assert rows.count(b"\r\n") == 1


@pytest.mark.parametrize("text", [
    "=1+1", "+1", "-1", "@SUM(A1)", '"=1', "' =1", "  =1", "\0=1", "＝1", " \t x",
    "'", "''", "'quoted'", "'=1", "\"'=1",
])  # fmt: skip
def test_a_cell_that_may_be_run_is_disarmed(text: str) -> None:
    assert read(replace(MANIFEST, dom=text, reason=text))["dom"] == f"'{text}"


@pytest.mark.parametrize(("text", "cell"), [
    ("\t=1", "'\t'=1"), ("\r=1", "'\r'=1"), ("\n=1", "'\n'=1"),
    ("vm;=1+1;x", "vm;'=1+1;x"), ("vm; =1", "vm;' =1"), ("vm\t@x", "vm\t'@x"), ("a\n=1\n-2", "a\n'=1\n'-2"),
    ("a;'b", "a;''b"), ("'a;'b", "''a;''b"),
])  # fmt: skip
def test_so_is_what_would_begin_a_cell_where_lists_have_semicolons_or_quotes_are_not_understood(text: str, cell: str) -> None:
    assert read(replace(MANIFEST, dom=text, reason=text))["dom"] == cell


@pytest.mark.parametrize("text", ["a;b", "a\nb", "vm-web-01", "a=b", "1+1", "x@y", "", " a", "a'b", '"quoted"', "/var/=x"])
def test_other_cells_are_as_they_are(text: str) -> None:
    assert read(replace(MANIFEST, dom=text))["dom"] == text


cells = st.text() | st.text("'\"=+-@\t\r\n\0 ,;a", max_size=8)
TEXTS = (
    "dump_id",
    "dom",
    "vmid",
    "uuid",
    "hypervisor",
    "uri",
    "sha256",
    "stored_sha256",
    "dump_path",
    "operator",
    "reason",
    "case",
)


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(TEXTS, cells)), max_size=4))
def test_a_table_that_is_read_as_csv_has_every_text_back_exactly_and_no_formula(several: list[dict[str, str]]) -> None:
    records = [replace(MANIFEST, **texts) for texts in several]  # type: ignore[arg-type]  # all of these are texts
    table = (spreadsheet.header() + spreadsheet.rows_of(array_of(*records))).decode()
    rows = list(csv.DictReader(io.StringIO(table, newline=""), strict=True))
    assert [{name: exact(row[name]) for name in TEXTS} for row in rows] == several
    assert not [cell for row in rows for name in TEXTS if (cell := row[name]).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]


def test_numbers_are_numbers_even_below_zero() -> None:
    assert read(replace(MANIFEST, ctime=-1))["ctime"] == "-1"
