import pytest

from dialog.errors import ConfigurationError
from dialog.net.urls import http_url, join, query_string, websocket_url


@pytest.mark.parametrize(
    ("given", "ws", "http"),
    [
        ("https://api.x.com", "wss://api.x.com", "https://api.x.com"),
        ("wss://api.x.com/", "wss://api.x.com", "https://api.x.com"),
        ("http://127.0.0.1:80/base/", "ws://127.0.0.1:80/base", "http://127.0.0.1:80/base"),
        ("ws://h:1", "ws://h:1", "http://h:1"),
    ],
)
def test_base_urls_are_taken_with_either_scheme(given, ws, http):
    assert websocket_url(given) == ws
    assert http_url(given) == http


@pytest.mark.parametrize("bad", ["", "api.x.com", "ftp://x", "https://", "wss://[x"])
def test_what_is_no_url_is_refused(bad):
    with pytest.raises(ConfigurationError):
        websocket_url(bad)


def test_query_has_lower_case_booleans_repeated_lists_and_no_none():
    query = {"a": True, "b": False, "k": ("x y", "z&"), "n": None, "i": 3, "e": ()}
    assert query_string(query) == "a=true&b=false&k=x%20y&k=z%26&i=3"


def test_join_keeps_the_path_and_query_of_the_base():
    assert join("ws://h/proxy", "/v1/listen", {"a": 1}) == "ws://h/proxy/v1/listen?a=1"
    assert join("ws://h?t=9", "x") == "ws://h/x?t=9"
