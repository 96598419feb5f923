"""What ``Retry-After`` asks for."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.net.retryafter import retry_after_s

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("30", 30.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW + 90, localtime=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("Monday, 21-Sep-26 14:13:50 GMT", 30.0),
        ("Mon Sep 21 14:13:50 2026", 30.0),
    ],
)
def test_seconds_and_dates_are_understood_in_all_their_forms(text, wait_s):
    assert retry_after_s(text, now=lambda: NOW) == wait_s


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan", "inf", "1e999", "Mon, 99 Foo 2026 99:99:99 GMT", "\x00"])
def test_nonsense_is_no_answer(text):
    assert retry_after_s(text) is None


@given(st.text())
def test_whatever_comes_is_a_wait_or_no_answer(text):
    wait_s = retry_after_s(text)
    assert wait_s is None or 0.0 <= wait_s < float("inf")
