"""Turn taking: who speaks when. Pure state machines, fed with signals and a clock's reading."""

from dialog.agent.turns.settings import BACKCHANNELS, BargeIn, Endpointing, Silence, TurnModel, TurnSettings
from dialog.agent.turns.taking import TurnTaking

__all__ = ["BACKCHANNELS", "BargeIn", "Endpointing", "Silence", "TurnModel", "TurnSettings", "TurnTaking"]
