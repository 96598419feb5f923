"""Ready-made tools: the model may hang up, transfer the call to somebody on a list, and write to the caller.

::

    class FrontDesk(OpenAIAgent):
        end_call = end_call_tool()
        transfer_call = transfer_call_tool({"billing": "+15550100", "a person": "+15550101"})
    send_sms = send_sms_tool()

The first two act when the caller has heard all that the agent says in that turn, and not when the caller speaks
over it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Literal

from dialog.agent.agent import Agent
from dialog.agent.tools import ends_conversation, tool
from dialog.errors import ConfigurationError
from dialog.sms.sms import SMS

__all__ = ["end_call_tool", "send_sms_tool", "transfer_call_tool"]

_TEL = re.compile(r"\+[1-9]\d{6,14}|(?:sip|client):\S{1,255}")
_END_CALL = (
    "End the phone call. Use it only when the caller has said goodbye or wants nothing more, and say goodbye yourself."
)
_SEND_SMS = (
    "Send a text message to the caller's own phone number: an address, a confirmation, a link. Offer it first, and use "
    "it only when the caller agrees. `text` is what they will read."
)
_TRANSFER_CALL = "Connect the caller to somebody else, after telling them so. The conversation with you ends with it."


def end_call_tool(*, description: str = _END_CALL) -> Callable[[Agent], Coroutine[Any, Any, str]]:
    """Make a tool ``end_call`` to be set in an agent's class: it hangs up once the goodbye was heard.

    When the model has said nothing in that turn it is asked once more, for a goodbye. A caller who speaks
    over it is answered, and the call goes on.

    Args:
        description: Tells the model when to use it.
    """

    async def end_call(self: Agent) -> str:
        self.hang_up()
        return "the call ends when the caller has heard you: say goodbye if you have not"

    end_call.__doc__ = description
    return ends_conversation(tool(name="end_call")(end_call))


def transfer_call_tool(
    destinations: Mapping[str, str], *, back_within_s: float | None = None, description: str = _TRANSFER_CALL
) -> Callable[..., Coroutine[Any, Any, str]]:
    """Make a tool ``transfer_call`` to be set in an agent's class: it transfers once the reply was heard.

    The model chooses among names, never numbers: whatever a caller talks it into, it cannot dial what is
    not on the list (toll fraud).

    Args:
        destinations: What each name dials: a number in E.164, ``sip:…`` or ``client:…``.
        back_within_s: The caller comes back if nobody answers by then; ``None``: the call ends.
        description: Tells the model when to use it.

    Raises:
        ConfigurationError: There are no destinations, or one of them cannot be dialled.
    """
    if not destinations:
        raise ConfigurationError("transfer_call_tool needs at least one destination")
    for name, tel in destinations.items():
        if not name.strip() or not _TEL.fullmatch(tel):
            raise ConfigurationError(
                f"transfer_call_tool: {name!r} must dial a number in E.164 such as +15550100123, or sip:… or client:…"
            )
    if back_within_s is not None and back_within_s <= 0:
        raise ConfigurationError(f"transfer_call_tool: back_within_s must be positive, got {back_within_s}")
    allowed = dict(destinations)

    async def transfer_call(self: Agent, destination: str) -> str:
        self.transfer_to(allowed[destination], back_within_s=back_within_s)
        return f"the caller is connected to {destination} when they have heard you: tell them if you have not"

    transfer_call.__doc__ = description
    # The names are the model's choice; the list is known only here.
    transfer_call.__annotations__["destination"] = Literal[tuple(allowed)]
    return ends_conversation(tool(name="transfer_call")(transfer_call))


def send_sms_tool(
    sms: SMS | None = None, *, timeout_s: float = 15.0, description: str = _SEND_SMS
) -> Callable[..., Coroutine[Any, Any, str]]:
    """Make a tool ``send_sms`` to be set in an agent's class: it writes to the caller.

    The model chooses the words, never the number: it is the one at the other side of the call.

    Args:
        sms: Sends it; unless given, the carrier of the call, from the number of the call.
        timeout_s: Longest time for it, in seconds.
        description: Tells the model when to use it.
    """

    async def send_sms(self: Agent, text: str) -> str:
        if sms is None:
            await self.voip.send_sms(text)
        else:
            metadata = self.voip.metadata
            await sms.send_sms(metadata.to if metadata.direction == "outbound" else metadata.from_, text)
        return "sent"

    send_sms.__doc__ = description
    return tool(name="send_sms", timeout_s=timeout_s)(send_sms)
