"""The agent's side of a call from a browser, an app or a script."""

from __future__ import annotations

from typing import ClassVar

from dialog.voip.voip import VoIP

__all__ = ["WebVoIP"]


class WebVoIP(VoIP):
    """A call over the client protocol, in whatever process its agent runs.

    Its :attr:`audio_format` is what client and server have agreed on. ``metadata.from_`` is the user whom the token
    names, ``metadata.to`` the agent that was asked for. It cannot be transferred or sent a text message.
    """

    captions: ClassVar[bool] = True

    @property
    def user(self) -> str:
        """Who talks, as the host's server has signed it; empty: nobody in particular."""
        return self.metadata.from_

    @property
    def agent(self) -> str:
        """Which agent was asked for; empty: none in particular."""
        return self.metadata.to
