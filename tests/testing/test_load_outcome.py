"""Whose fault it is that a call failed."""

from __future__ import annotations

import errno
from typing import get_args

import pytest

from dialog.testing.carrier import Refused, Warned
from dialog.testing.load_outcome import FAILURES, OutcomeStatus, judge, refused
from dialog.testing.load_page import _STATUSES
from dialog.testing.twiml import Verb

CONNECT = Verb("Connect", {})


def verdict(**more):
    usual = {
        "verbs": (CONNECT,),
        "warnings": (),
        "streams": 1,
        "upgrade_status": 101,
        "media_error": None,
        "close_code": 1000,
        "cut": False,
        "by_caller": True,
        "complete": True,
        "may_end": True,
        "unanswered": 0,
        "stopped": False,
    }
    return judge(**{**usual, **more})


@pytest.mark.parametrize(("number", "status"), [(errno.EMFILE, "generator"), (errno.ECONNREFUSED, "refused")])
def test_a_generator_without_files_or_ports_does_not_blame_the_server(number, status):
    exc = Refused("http://127.0.0.1/twilio", 0, "no answer")
    exc.__cause__ = OSError(number, "no")
    assert refused(exc).status == status
    assert errno.errorcode[number] in refused(exc).detail
    media = verdict(
        streams=0,
        upgrade_status=0,
        warnings=(Warned(31920, "none"),),
        media_error=OSError(number, "no"),
        by_caller=False,
    )
    assert media.status == ("generator" if status == "generator" else "no_stream")


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({}, "done"),
        ({"complete": False}, "not_ended"),
        ({"complete": False, "stopped": True}, "stopped"),
        ({"by_caller": False}, "done"),
        ({"by_caller": False, "may_end": False}, "ended_early"),
        ({"by_caller": False, "cut": True, "close_code": 1006}, "cut"),
        ({"cut": True, "close_code": 1006}, "done"),
        ({"unanswered": 1}, "unanswered"),
        ({"unanswered": 1, "stopped": True}, "unanswered"),
        ({"by_caller": False, "verbs": (CONNECT, Verb("Say", {}))}, "said"),
        ({"verbs": (CONNECT, Verb("Say", {}))}, "done"),
        ({"streams": 0, "stopped": True}, "stopped"),
        ({"streams": 0, "verbs": ()}, "no_stream"),
        ({"streams": 0, "by_caller": False, "verbs": (Verb("Reject", {"reason": "busy"}),)}, "rejected"),
    ],
    ids=str,
)
def test_every_end_has_its_status(facts, status):
    assert verdict(**facts).status == status


def test_every_status_is_explained_on_the_page_and_all_but_two_are_failures():
    assert set(_STATUSES) == set(get_args(OutcomeStatus))
    assert set(get_args(OutcomeStatus)) - FAILURES == {"done", "stopped"}
