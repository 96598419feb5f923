"""Cutting a streamed reply into the pieces that a voice takes well.

Every piece knows which characters of the reply it stands for, so that what was heard can be told in
the model's own words. The text passes a chain of filters first (:mod:`dialog.agent.shaping.filters`).
"""

from __future__ import annotations

from dialog.agent.shaping.characters import Characters
from dialog.agent.shaping.filters import Edit, FilterFactory, Said, TextFilter, each_word
from dialog.agent.shaping.markdown import Markdown
from dialog.agent.shaping.pieces import Piece, Run
from dialog.agent.shaping.shapers import SentenceShaper, Shaper, TokenShaper, default_filters, shaper_for
from dialog.agent.shaping.spoken import SpokenForms

__all__ = [
    "Characters",
    "Edit",
    "FilterFactory",
    "Markdown",
    "Piece",
    "Run",
    "Said",
    "SentenceShaper",
    "Shaper",
    "SpokenForms",
    "TextFilter",
    "TokenShaper",
    "default_filters",
    "each_word",
    "shaper_for",
]
