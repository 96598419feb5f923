"""The list of numbers to be dialled, and the list of what came of it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from dialog.errors import ConfigurationError
from dialog.sms.sms import check_e164

__all__ = ["Row", "Table", "read_table", "write_results"]

_COLUMNS: Final = ("number", "phone", "phone_number", "to", "tel", "telephone")
_MOST_ROWS: Final = 100_000


class Row(Struct, frozen=True, kw_only=True):
    """One line of the list."""

    line: int
    """In the file, counted from 1 with the heading."""
    number: str
    fields: tuple[tuple[str, str], ...]
    """All columns with their names, the number's too: parameters of the call."""
    problem: str = ""
    """Why it cannot be dialled; empty if it can."""

    def __repr__(self) -> str:
        return f"<Row {self.line}>"


class Table(Struct, frozen=True, kw_only=True):
    """The whole list."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def good(self) -> tuple[Row, ...]:
        """Those that can be dialled: every number once."""
        return tuple(row for row in self.rows if not row.problem)


def read_table(path: Path, *, column: str = "") -> Table:
    """Read a CSV file with a heading.

    A number that is no E.164, or was on a line before, is kept with its problem: it is reported, and not dialled.

    Args:
        path: UTF-8, separated by commas.
        column: Which one has the numbers; unless given ``number``, ``phone``, ``to`` or the like.

    Raises:
        ConfigurationError: It cannot be read, or has no such column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = tuple(reader.fieldnames or ())
            name = _column(path, columns, column)
            seen: dict[str, int] = {}
            rows: list[Row] = []
            for fields in reader:
                if len(rows) >= _MOST_ROWS:
                    raise ConfigurationError(f"{path}: more than {_MOST_ROWS} numbers: split the file")
                rows.append(_row(reader.line_num, fields, name, seen))
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise ConfigurationError(f"{path}: cannot be read as CSV: {exc}") from exc
    return Table(columns=columns, rows=tuple(rows))


def write_results(path: Path, table: Table, columns: tuple[str, ...], results: Iterable[Mapping[str, object]]) -> None:
    """Write the list again with what came of each row beside it; the file is whole at any time.

    Raises:
        ConfigurationError: It cannot be written.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, (*table.columns, *columns), restval="")
            writer.writeheader()
            for row, result in zip(table.rows, results, strict=True):
                writer.writerow({**dict(row.fields), **result})
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as exc:
        raise ConfigurationError(f"{path}: cannot be written: {exc}") from exc


def _column(path: Path, columns: tuple[str, ...], wanted: str) -> str:
    if wanted:
        if wanted not in columns:
            raise ConfigurationError(f"{path}: no column {wanted!r}; there are {', '.join(columns) or 'none'}")
        return wanted
    found = [name for name in columns if name.strip().lower().replace(" ", "_") in _COLUMNS]
    if len(found) != 1:
        raise ConfigurationError(
            f"{path}: the first line must name one column of numbers ({', '.join(_COLUMNS)}), or say which one it is; "
            f"it has {', '.join(columns) or 'nothing'}"
        )
    return found[0]


def _row(line: int, fields: Mapping[str | None, str | list[str] | None], name: str, seen: dict[str, int]) -> Row:
    values = {key: value or "" for key, value in fields.items() if key is not None and not isinstance(value, list)}
    number = values.get(name, "").strip()
    problem = ""
    if None in fields:
        problem = "more values than columns"
    elif number in seen:
        problem = f"the same number as in line {seen[number]}"
    else:
        try:
            check_e164(number)
        except ConfigurationError as exc:
            problem = str(exc)
        else:
            seen[number] = line
    return Row(line=line, number=number, fields=tuple(values.items()), problem=problem)
