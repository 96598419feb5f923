"""What the front desk understands: its sentences, and how they are pronounced.

The sentences were chosen by trying them over a telephone line in several synthetic voices: "six
o'clock" is taken for "eight o'clock" at 8 kHz, so tables are booked from seven on, and short answers
such as "yes" are left out because longer sentences begin alike.
"""

from __future__ import annotations

from dialog.stt.grammar import Grammar

__all__ = ["DAYS", "GRAMMAR", "NUMBERS", "TIMES"]

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}
"""How many people a table can be booked for."""
TIMES = {"seven": "19:00", "seven thirty": "19:30", "eight": "20:00", "eight thirty": "20:30", "nine": "21:00"}
"""When a table can be booked for."""

GRAMMAR = Grammar(
    patterns=(
        "hello and good evening",
        # opening hours
        "what are your opening hours on {day}",
        "when are you open on {day}",
        "are you open on {day} evening",
        # booking
        "i would like to book a table please",
        "i would like to book a table for {people} people on {day} at {time}",
        "can i have a table for {people} people on {day} evening at {time}",
        "i need to cancel my reservation",
        # the restaurant
        "what is the address of the restaurant",
        "where can i find your restaurant",
        "is there parking near the restaurant",
        "do you have vegetarian food",
        "what do you have for children",
        "can i bring my dog to the restaurant",
        "how much is the lunch menu",
        # a person
        "i want to talk to a human please",
        "can i speak to a person please",
        "please connect me to the manager",
        # the conversation
        "what can you do for me",
        "no that is not what i said",
        "yes that is correct",
        "wait a moment please",
        "one moment i have a question",
        "stop please i have another question",
        "sorry to interrupt you but i have a question",
        "thank you very much and goodbye",
        "goodbye and thank you for your help",
    ),
    slots={"day": DAYS, "people": tuple(NUMBERS), "time": tuple(TIMES)},
    # How the formant voices sound at 8 kHz, where "th" and "s" are all but lost.
    pronunciations={
        "thursday": ("TH UH R Z D EY", "TH ER V D EY"),
        "saturday": ("AE B ER D EY",),
        "six": ("S IH K",),
    },
)
