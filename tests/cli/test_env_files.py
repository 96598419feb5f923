from __future__ import annotations

from pathlib import Path

import pytest

from dialog.env import number, parse_env, read_env, required
from dialog.errors import ConfigurationError


def test_the_usual_forms_of_a_line_are_understood() -> None:
    text = r"""
# a comment
A=1
export B = two words  # why
C='single # quoted'
D="double \"quoted\"\nsecond line"
E=
F=a#b
not an assignment
G="over
lines"
  H=indented
"""
    assert parse_env(text) == {
        "A": "1",
        "B": "two words",
        "C": "single # quoted",
        "D": 'double "quoted"\nsecond line',
        "E": "",
        "F": "a#b",
        "G": "over\nlines",
        "H": "indented",
    }


def test_windows_line_ends_are_no_part_of_values() -> None:
    assert parse_env("A=1\r\nB=2\r\n") == {"A": "1", "B": "2"}


def test_the_environment_wins_over_the_file_and_empty_means_not_given(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("PORT=1\nKEY=file\nEMPTY=\n")
    assert read_env(file, {"PORT": "2", "OTHER": ""}) == {"PORT": "2", "KEY": "file"}
    assert read_env(tmp_path / "none", {"PORT": "2"}) == {"PORT": "2"}


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"A=\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"\.env"):
        read_env(file, {})


def test_all_missing_settings_are_named_at_once() -> None:
    required({"A": "1"}, "A")
    with pytest.raises(ConfigurationError, match="not set: B, C"):
        required({"A": "1"}, "A", "B", "C")


def test_numbers_are_read_or_refused_by_name() -> None:
    env = {"PORT": "80", "LEAVE_S": "0.5", "EMPTY": ""}
    assert number(env, "PORT", 8080) == 80
    assert number(env, "LEAVE_S", 5.0) == 0.5
    assert (number(env, "PROCESSES", 2), number(env, "EMPTY", 2)) == (2, 2)
    for value in ("eighty", "-1", "8.5"):
        with pytest.raises(ConfigurationError, match=rf"PORT must be a whole number, 0 or more, got '{value}'"):
            number({"PORT": value}, "PORT", 8080)
    for value in ("nan", "inf", "-0.1", "soon"):
        with pytest.raises(ConfigurationError, match=rf"LEAVE_S must be a number, 0 or more, got '{value}'"):
            number({"LEAVE_S": value}, "LEAVE_S", 5.0)
