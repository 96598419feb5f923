"""How somebody can be reached: name, telephone, e-mail, address."""

from __future__ import annotations

import re
from typing import ClassVar, Final

from dialog.answers.answer import Answer, Text
from dialog.answers.forms import Form, Question
from dialog.answers.words import ORDINALS, digits_in, plain, stretches
from dialog.errors import ConfigurationError, MissingExtra

__all__ = ["Email", "Name", "Phone", "address"]

_LEAD_IN: Final = re.compile(
    r"^(?:(?:um+|uh+|er+|well|yes|yeah|sure|ok|okay|hi|hello|so)[ ,.]+)*"
    r"(?:(?:my|the) (?:full )?name(?:'s| is)|my name|this is|i am|i'm|it is|it's|call me|that's|that is)?[ ,:]*",
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"[^\W\d_]+(?:['\u2019.-][^\W\d_]+)*\.?")
_NOT_A_NAME: Final = frozenset([
    "yes", "no", "yeah", "okay", "ok", "sure", "what", "why", "who", "sorry", "pardon", "hello", "hi", "please",
    "thanks", "thank", "you", "i", "don't", "know",
])  # fmt: skip
_MOST_WORDS: Final = 6
_SIGNS: Final = {
    "dot": ".",
    "period": ".",
    "point": ".",
    "underscore": "_",
    "dash": "-",
    "hyphen": "-",
    "minus": "-",
    "plus": "+",
    "at": "@",
}
_EMAIL: Final = re.compile(
    r"[a-z0-9](?:[a-z0-9._%+-]{0,62}[a-z0-9])?@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,24}"
)
_EMAIL_LEAD_IN: Final = re.compile(r"^.*?\b(?:is|it's|address is|to)\s+(?=.*(?:@|\bat\b))", re.IGNORECASE)


class Name(Answer[str]):
    """The name of a person, as it is written: "my name is ada lovelace" is ``Ada Lovelace``. May be spelled."""

    hint = "Please say your name."
    patient: ClassVar[bool] = True

    def said(self, text: str) -> str | None:
        """The name, without what leads up to it."""
        rest = _LEAD_IN.sub("", text.strip())
        if re.search(r"\d", rest):
            return None
        words = [word.rstrip(".") if len(word) > 3 else word for word in _WORD.findall(rest)]
        words = _joined(words)
        if not 1 <= len(words) <= _MOST_WORDS or all(word.lower() in _NOT_A_NAME for word in words):
            return None
        return " ".join(word if any(letter.isupper() for letter in word[1:]) else _capital(word) for word in words)

    def masked(self, value: str) -> str:
        """The initials."""
        return " ".join(f"{word[0]}." for word in value.split())


class Phone(Answer[str]):
    """A telephone number, in E.164; checked by Google's rules for the numbers of all countries.

    Args:
        region: The country in which a number without a country code lies: ``US``, ``GB``.

    Raises:
        ConfigurationError: There is no such region.
        MissingExtra: ``phonenumbers`` is not installed.
    """

    hint = "Please say or type in the telephone number, with its area code."
    keys = 15
    patient: ClassVar[bool] = True

    def __init__(self, region: str = "US") -> None:
        try:
            import phonenumbers
        except ImportError as exc:
            raise MissingExtra("phonenumbers", "answers") from exc
        if region not in phonenumbers.SUPPORTED_REGIONS:
            raise ConfigurationError(f"there is no region {region!r}: give two letters, such as US")
        self._library = phonenumbers
        self._region = region

    def said(self, text: str) -> str | None:
        """The number, if it is one that can exist."""
        plus = "+" if re.search(r"\bplus\b|\+", text.lower()) else ""
        return self._checked(plus + digits_in(text))

    def pressed(self, keys: str) -> str | None:
        """The number; ``*`` in front stands for the plus."""
        number = keys.removeprefix("*")
        return self._checked(("+" if keys.startswith("*") else "") + number) if number.isdecimal() else None

    def readback(self, value: str) -> str:
        """Digit by digit, in the groups in which the country writes it."""
        library = self._library
        style = library.PhoneNumberFormat
        number = library.parse(value)
        home = library.region_code_for_number(number) == self._region
        written = library.format_number(number, style.NATIONAL if home else style.INTERNATIONAL)
        groups = re.findall(r"\d+", written)
        return f"{'' if home else 'plus '}{', '.join(' '.join(group) for group in groups)}"

    def masked(self, value: str) -> str:
        """The last four digits."""
        return f"a number ending in {' '.join(value[-4:])}"

    def _checked(self, number: str) -> str | None:
        library = self._library
        try:
            parsed = library.parse(number, self._region)
        except library.NumberParseException:
            return None
        if not library.is_valid_number(parsed):
            return None
        return str(library.format_number(parsed, library.PhoneNumberFormat.E164))


class Email(Answer[str]):
    """An e-mail address, as it is said: "ada dot lovelace at example dot com"; letters may be spelled."""

    hint = "Please say the address, for example: ada dot smith at example dot com."
    patient: ClassVar[bool] = True

    def said(self, text: str) -> str | None:
        """The address, in lower case."""
        lower = text.lower().strip().rstrip(".?!")
        written = _EMAIL.search(lower)
        if written is not None:
            return written[0]
        words: list[str] = re.findall(r"[a-z0-9@]+|[._+-]", _EMAIL_LEAD_IN.sub("", lower))
        spelled = "".join(_SIGNS.get(word, _as_digits(word)) for word in words)
        found = _EMAIL.fullmatch(spelled)
        return found[0] if found is not None else None

    def readback(self, value: str) -> str:
        """With its signs as words."""
        names = {".": "dot", "_": "underscore", "-": "dash", "+": "plus", "@": "at"}
        pieces: list[str] = re.findall(r"[a-z0-9%]+|[._+@-]", value)
        return " ".join(names.get(piece, piece) for piece in pieces)

    def masked(self, value: str) -> str:
        """The first letter, and where the mailbox is."""
        mailbox, _, domain = value.partition("@")
        return f"{mailbox[0]}...@{domain}"


class _Postcode(Answer[str]):
    hint = "Please say or type in the postal code."
    keys = 10
    patient: ClassVar[bool] = True

    def said(self, text: str) -> str | None:
        """Letters and digits, four to ten of them, at least two digits."""
        words = plain(_LEAD_IN.sub("", text.strip()))
        code = "".join("0" if word == "oh" else _as_digits(word) for word in words if word not in (",", "."))
        digits = sum(letter.isdecimal() for letter in code)
        return code.upper() if 4 <= len(code) <= 10 and digits >= 2 else None

    def readback(self, value: str) -> str:
        return " ".join(value)


class _Street(Text):
    hint = "Please say the street, and the number of the house."

    def said(self, text: str) -> str | None:
        """Street and number, the number in digits."""
        words = _LEAD_IN.sub("", text.strip()).rstrip(".").split()
        out: list[str] = []
        number: list[str] = []
        for word in [*words, ""]:
            if word and stretches(plain(word)) and word.lower() not in ORDINALS:
                number.append(word)
                continue
            if number:
                out.append(digits_in(" ".join(number)))
                number = []
            if word:
                out.append(word)
        letters = any(word[0].isalpha() for word in out)
        return " ".join(out) if letters and any(word.isdecimal() for word in out) else None


def address() -> Form:
    """A postal address in three questions: ``street`` with its number, ``city``, ``postcode``."""
    return Form(
        Question("street", "What is the street, and the number of the house?", _Street()),
        Question("city", "In which city?", Name()),
        Question("postcode", "And what is the postal code?", _Postcode()),
        summary="{street}, {city}, {postcode}",
    )


def _joined(words: list[str]) -> list[str]:
    """Words, with runs of single letters (somebody spells) as one."""
    out: list[str] = []
    spelling = False
    for word in words:
        single = len(word.rstrip(".")) == 1
        if single and spelling:
            out[-1] += word.rstrip(".").lower()
        else:
            out.append(word)
        spelling = single
    return out


def _capital(word: str) -> str:
    return "-".join(piece[:1].upper() + piece[1:] for piece in word.split("-"))


def _as_digits(word: str) -> str:
    """Digits where the word is a number ("four", "42"), else the word itself."""
    return digits_in(word) if word not in ("o", "oh") and stretches([word]) else word
