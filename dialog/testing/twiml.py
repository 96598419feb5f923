"""TwiML as the simulated carrier reads it."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from msgspec import Struct

from dialog.errors import RemoteProtocolError

__all__ = ["Verb", "parse", "stream_parameters"]

LIMIT = 64 * 1024
"""Characters of a document that the carrier fetches."""


class Verb(Struct, frozen=True):
    """One element of a TwiML document."""

    name: str
    attributes: dict[str, str]
    text: str = ""
    nouns: tuple[Verb, ...] = ()

    def get(self, name: str, default: str = "") -> str:
        """An attribute."""
        return self.attributes.get(name, default)

    def find(self, name: str) -> Verb | None:
        """The first noun of that name."""
        return next((noun for noun in self.nouns if noun.name == name), None)


def parse(document: str) -> tuple[Verb, ...]:
    """The verbs of a document, in their order.

    Raises:
        RemoteProtocolError: It is not TwiML; the message says why.
    """
    if len(document) > LIMIT:
        raise RemoteProtocolError(f"TwiML of {len(document)} characters, at most {LIMIT} are taken")
    if "<!DOCTYPE" in document or "<!ENTITY" in document:
        raise RemoteProtocolError("TwiML with a document type")
    try:
        root = ET.fromstring(document.encode())  # noqa: S314 - bounded, and without entities: checked above
    except ET.ParseError as exc:
        raise RemoteProtocolError(f"TwiML does not parse (12100): {exc}") from exc
    if root.tag != "Response":
        raise RemoteProtocolError(f"TwiML starts with <{root.tag}>, not <Response>")
    return tuple(_verb(element) for element in root)


def stream_parameters(stream: Verb) -> dict[str, str]:
    """The parameters of a ``<Stream>``, which its ``start`` carries."""
    return {noun.get("name"): noun.get("value") for noun in stream.nouns if noun.name == "Parameter"}


def _verb(element: ET.Element) -> Verb:
    text = (element.text or "").strip()
    return Verb(element.tag, dict(element.attrib), text, tuple(_verb(child) for child in element))
