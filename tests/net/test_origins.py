import pytest

from dialog.net.origins import is_own


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        ("https://voice.example", "voice.example", True),
        ("http://Voice.example:8080", "voice.EXAMPLE:8080", True),
        ("https://voice.example", "voice.example:8080", False),
        ("https://voice.example.evil.example", "voice.example", False),
        ("null", "voice.example", False),
        ("http://[", "voice.example", False),
        ("http://[", "", False),
        ("http://[::1]:80", "[::1]:80", True),
    ],
)
def test_a_page_is_our_own_if_it_comes_from_the_same_host(origin, host, own):
    assert is_own(origin, host) is own
