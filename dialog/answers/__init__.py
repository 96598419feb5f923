"""What kind of answer a question wants, and how to find it in what somebody says or types in. English.

::

    from dialog import answers

    people = await call.ask("For how many people?", answers.Number(1, 12))
    day = await call.ask("On which day?", answers.Date(), confirm=True)

Pure: nothing here hears or speaks. An :class:`Answer` of your own has a ``said`` and perhaps a ``pressed``.
"""

from dialog.answers.answer import Answer, Text
from dialog.answers.card import CardExpiry, CardNumber, Expiry, card
from dialog.answers.contact import Email, Name, Phone, address
from dialog.answers.dates import Date
from dialog.answers.forms import Form, Question
from dialog.answers.plain import Choice, Digits, Number, YesNo

__all__ = [
    "Answer",
    "CardExpiry",
    "CardNumber",
    "Choice",
    "Date",
    "Digits",
    "Email",
    "Expiry",
    "Form",
    "Name",
    "Number",
    "Phone",
    "Question",
    "Text",
    "YesNo",
    "address",
    "card",
]
