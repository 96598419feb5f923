"""The front desk of a restaurant: opening hours, bookings, and a person for everything else.

It answers by rules, so it needs no account. With another base class (``OpenAIAgent``) the prompt and
the tools are the same, and a model takes the place of the rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias

from dialog.agent.tools import tool
from dialog.demo.phrases import DAYS, GRAMMAR, NUMBERS, TIMES
from dialog.llm.rules import Rule
from dialog.presets import RuleAgent
from dialog.stt.grammar import Grammar

__all__ = ["GREETING", "NOT_UNDERSTOOD", "SYSTEM", "VOICE", "FrontDesk"]

Day: TypeAlias = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

VOICE = "en-gb-x-rp"
"""The espeak-ng voice of the front desk; its callers have others."""
GREETING = "Welcome to Luigi's. How can I help you?"
NOT_UNDERSTOOD = "I am sorry, I did not understand that. Could you say it in other words?"
SYSTEM = """\
You are the front desk of Luigi's, on the phone. Answer in one or two short sentences, as one \
speaks; no lists, no symbols. Take opening hours and bookings from your tools only, never from memory. Book \
only when you know the number of people, the day and the time. Tables are booked from 19:00 to 21:00, for two \
to eight people. The address is 12 Harbour Street, opposite the old lighthouse. Parking is behind the house and \
free for guests. Half of the menu is vegetarian. Children have their own menu, dogs are welcome on the terrace, \
and the lunch menu is eighteen dollars. When the caller asks for a person, transfer the call; \
when they say goodbye, end it. A caller's words \
"[unclear]" mean that they could not be understood: say so, and ask for other words."""

_HOURS: Mapping[str, str] = {
    "monday": "",
    "tuesday": "from five in the afternoon until ten in the evening",
    "wednesday": "from five in the afternoon until ten in the evening",
    "thursday": "from five in the afternoon until ten in the evening",
    "friday": "from noon until eleven in the evening",
    "saturday": "from noon until eleven in the evening",
    "sunday": "from noon until nine in the evening",
}

_DAY = rf"(?P<day>{'|'.join(DAYS)})"
_PEOPLE = rf"(?P<people>{'|'.join(NUMBERS)}|\d+)"
# Longest first, or "seven" would end "seven thirty".
_TIME = rf"(?P<time>{'|'.join(sorted(TIMES, key=len, reverse=True))}|\d\d?:\d\d)"


def _booking(match: re.Match[str]) -> dict[str, Any]:
    people, time = match["people"].lower(), match["time"].lower()
    return {
        "people": NUMBERS[people] if people in NUMBERS else int(people),
        "day": match["day"].lower(),
        "time": TIMES.get(time, time),
    }


def _day(match: re.Match[str]) -> dict[str, Any]:
    return {"day": match["day"].lower()}


class FrontDesk(RuleAgent):
    """Answers the phone of Luigi's."""

    grammar: ClassVar[Grammar] = GRAMMAR
    """What a small recogniser needs to listen for."""
    voice: ClassVar[str] = VOICE
    person: ClassVar[str] = ""
    """Number of the person whom callers are transferred to; empty: nobody is there."""
    fallback: ClassVar[str] = NOT_UNDERSTOOD
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(pattern=rf"table for {_PEOPLE} people on {_DAY}.* at {_TIME}$", tool="book_table", arguments=_booking),
        Rule(
            pattern="book a table",
            reply="Gladly. For how many people, on which day, and at what time between seven and nine?",
        ),
        Rule(
            pattern="cancel my reservation|human|person|manager",
            tool="transfer_to_person",
            failure="I am sorry, I could not connect you. Please call again after five.",
        ),
        Rule(pattern=rf"\b(?:hours|open) on {_DAY}", tool="opening_hours", arguments=_day),
        Rule(
            pattern="address|find your restaurant",
            reply="We are at twelve Harbour Street, opposite the old lighthouse.",
        ),
        Rule(pattern="parking", reply="Yes, there is parking behind the house. It is free for our guests."),
        Rule(pattern="vegetarian", reply="Yes, half of our menu is vegetarian."),
        Rule(pattern="for children", reply="Children have a menu of their own, and there is a small playground."),
        Rule(pattern="my dog", reply="Dogs are welcome on our terrace."),
        Rule(pattern="lunch menu", reply="The lunch menu is eighteen dollars, with a soup and a coffee."),
        Rule(
            pattern="what can you do",
            reply="I can tell you our opening hours, book a table for you, or connect you with a person. "
            "You may also ask about our address, parking, and the menu.",
        ),
        Rule(pattern="not what i said", reply="I am sorry. Please say it once more."),
        Rule(pattern="that is correct", reply="Very good. Is there anything else?"),
        Rule(pattern="wait a moment|question", reply="Of course. I am listening."),
        Rule(pattern="goodbye", tool="end_call", result=""),
        Rule(pattern="good evening|hello", reply="Good evening. What can I do for you?"),
    )

    def __init__(self, **options: Any) -> None:
        options.setdefault("system", SYSTEM)
        options.setdefault("greeting", GREETING)
        super().__init__(**options)

    @tool(idempotent=True)
    async def opening_hours(self, day: Day) -> str:
        """When the restaurant is open on a day of the week.

        Args:
            day: The day of the week.
        """
        hours = _HOURS[day]
        return f"On {day.title()} we are open {hours}." if hours else f"On {day.title()} we are closed."

    @tool
    async def book_table(self, people: int, day: Day, time: str) -> str:
        """Book a table for this week.

        Args:
            people: How many people come, two to eight.
            day: The day of the week.
            time: When, in 24-hour HH:MM, from 19:00 to 21:00.
        """
        if not _HOURS[day]:
            return f"I am sorry, on {day.title()} we are closed. Which other day would suit you?"
        if not 2 <= people <= 8:
            return "I am sorry, I can only book tables for two to eight people."
        if time not in TIMES.values():
            return "I am sorry, I can only book tables from seven to nine, every half hour."
        spoken = next(words for words, clock in TIMES.items() if clock == time)
        number = next(word for word, count in NUMBERS.items() if count == people)
        return f"Your table for {number} people on {day.title()} at {spoken} is booked. We look forward to seeing you."

    @tool(timeout_s=20)
    async def transfer_to_person(self) -> str:
        """Connect the caller with a person who works at the restaurant."""
        if not self.person:
            return "I am sorry, nobody is free to talk to you at the moment. Please call again after five."
        # A transfer cuts what is on the line: the sentence first.
        await self.dispatch_message("One moment please, I connect you.")
        await self.voip.transfer_to(self.person)
        return "You are connected."

    @tool(timeout_s=20)
    async def end_call(self) -> str:
        """Say goodbye and end the call. Only when the caller has said goodbye."""
        await self.dispatch_message("Thank you for calling. Goodbye!", allow_interrupt=False)
        await self.voip.hangup()
        return "The call has ended."
