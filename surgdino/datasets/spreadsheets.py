"""The table of a spreadsheet as text, as if it had been saved as a CSV: .xlsx by openpyxl, an extra; no other kind."""

from __future__ import annotations

import csv
import io
import warnings
import zipfile
from datetime import time, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from surgdino.errors import SurgdinoError, shown

READ = (".xlsx", ".xlsm")
SHEETS = (*READ, ".xls", ".xlsb", ".ods", ".numbers")
_SIGNS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # a zip file, and what old or locked workbooks are
_SHEET = "labels"  # is taken before the first one
_MOST = 128 << 20  # bytes of a workbook's files unpacked, characters of a table
_FIX = "save the table as CSV"


def is_sheet(data: bytes) -> bool:
    """Whether the bytes of a file begin as those of a spreadsheet, whatever it is called."""
    return data.startswith(_SIGNS)


def sheets_are_read() -> bool:
    """Whether what reads them is installed."""
    return find_spec("openpyxl") is not None


def sheet_text(data: bytes, path: Path) -> str:
    """The rows of the sheet `labels`, else of the first one, with tabs between cells; formulas as last computed.

    Raises:
        SurgdinoError: a spreadsheet of another kind, locked or damaged, too large, or openpyxl is not installed.
    """
    if not zipfile.is_zipfile(io.BytesIO(data)):
        what = "a spreadsheet of a kind that is not read, or damaged, or locked by a password"
        raise SurgdinoError(what, file=path, expected=".xlsx or CSV", fix=_FIX)
    if not sheets_are_read():
        what, fix = "reading a spreadsheet needs openpyxl", f"{_FIX}, or pip install 'surgdino[excel]'"
        raise SurgdinoError(what, file=path, fix=fix)
    from openpyxl import load_workbook

    try:
        if sum(each.file_size for each in zipfile.ZipFile(io.BytesIO(data)).infolist()) > _MOST:
            raise _too_large(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on what it leaves out: menus, colours
            return _text(load_workbook(io.BytesIO(data), read_only=True, data_only=True), path)
    except (SurgdinoError, MemoryError):
        raise
    except Exception as error:  # whatever it raises on a zip file that is no workbook, or a damaged one
        found, expected = f"{type(error).__name__}: {shown(str(error), 80)}", ".xlsx or CSV"
        raise SurgdinoError(
            "not a readable spreadsheet", file=path, expected=expected, found=found, fix=_FIX
        ) from error


def _text(book: Any, path: Path) -> str:
    named = {sheet.title.casefold(): sheet for sheet in reversed(book.worksheets)}
    sheet = named.get(_SHEET) or book.worksheets[0]
    sheet.reset_dimensions()  # what it claims of its size
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    for row in sheet.iter_rows(values_only=True):
        writer.writerow(map(_cell, row))
        if text.tell() > _MOST:
            raise _too_large(path)
    return text.getvalue()


def _cell(value: object) -> str:
    """As a person would write it: clock times as hh:mm:ss, whole numbers without a point."""
    if isinstance(value, time):
        value = timedelta(hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond)
    if isinstance(value, timedelta):
        milliseconds = round(value / timedelta(milliseconds=1))
        seconds, rest = divmod(milliseconds, 1000)
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}" + (f".{rest:03d}" if rest else "")
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else repr(value)
    return "" if value is None else str(value)


def _too_large(path: Path) -> SurgdinoError:
    return SurgdinoError("the spreadsheet is too large", file=path, expected=f"at most {_MOST >> 20} MB", fix=_FIX)
