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
from weakref import WeakKeyDictionary

from dialog.agent.agent import Agent
from dialog.agent.menus import MenuLoop
from dialog.agent.tools import ends_conversation, ends_turn, tool
from dialog.errors import ConfigurationError
from dialog.sms.sms import SMS

__all__ = ["end_call_tool", "press_keys_tool", "send_sms_tool", "transfer_call_tool", "warm_transfer_tool"]

_TEL = re.compile(r"\+[1-9]\d{6,14}|(?:sip|client):\S{1,255}")
_KEYS = re.compile(r"[0-9A-D*#wW]{1,32}")
_WARM_TRANSFER = (
    "Hand the caller over to somebody else, who is asked first and told what it is about, while the caller waits. Tell "
    "the caller to hold the line. `summary` is one or two sentences for the one who takes over."
)
_PRESS_KEYS = (
    "Press keys on the telephone, when a machine at the other end offers a menu. Say nothing to a machine. `keys` are "
    "the keys, in their order."
)
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
    allowed = _checked_destinations("transfer_call_tool", destinations)
    if back_within_s is not None and back_within_s <= 0:
        raise ConfigurationError(f"transfer_call_tool: back_within_s must be positive, got {back_within_s}")

    async def transfer_call(self: Agent, destination: str) -> str:
        self.transfer_to(allowed[destination], back_within_s=back_within_s)
        return f"the caller is connected to {destination} when they have heard you: tell them if you have not"

    transfer_call.__doc__ = description
    # The names are the model's choice; the list is known only here.
    transfer_call.__annotations__["destination"] = Literal[tuple(allowed)]
    return ends_conversation(tool(name="transfer_call")(transfer_call))


def warm_transfer_tool(
    destinations: Mapping[str, str], *, ring_s: float = 25.0, description: str = _WARM_TRANSFER
) -> Callable[..., Coroutine[Any, Any, str]]:
    """Make a tool ``warm_transfer`` to be set in an agent's class: somebody is asked before they get the caller.

    Once the reply was heard, the caller waits with music. The one who is called hears the model's summary, and
    takes the call or not (:meth:`~dialog.agent.agent.Agent.brief`); if not, the caller is back with the agent.

    Args:
        destinations: What each name dials, in E.164; the model chooses among the names.
        ring_s: How long it may ring there, in seconds.
        description: Tells the model when to use it.

    Raises:
        ConfigurationError: There are no destinations, or one of them cannot be dialled.
    """
    allowed = _checked_destinations("warm_transfer_tool", destinations)

    async def warm_transfer(self: Agent, destination: str, summary: str) -> str:
        self.warm_transfer_to(allowed[destination], summary=summary, ring_s=ring_s)
        return f"{destination} is asked when the caller has heard you: tell them to hold the line if you have not"

    warm_transfer.__doc__ = description
    warm_transfer.__annotations__["destination"] = Literal[tuple(allowed)]
    return ends_conversation(tool(name="warm_transfer")(warm_transfer))


def press_keys_tool(*, max_rounds: int = 3, description: str = _PRESS_KEYS) -> Callable[..., Coroutine[Any, Any, str]]:
    """Make a tool ``press_keys`` to be set in an agent's class: it finds its way through the menus of a machine.

    After it the model is not asked again before the other side has said something. When the same menu is heard again,
    the model is told so, and what it has pressed before; after ``max_rounds`` times the agent hangs up (``ivr_loop``).

    Args:
        max_rounds: So often the same menu may be heard.
        description: Tells the model when to use it.

    Raises:
        ConfigurationError: ``max_rounds`` is below 1.
    """
    if max_rounds < 1:
        raise ConfigurationError(f"press_keys_tool: max_rounds must be at least 1, got {max_rounds}")
    loops: WeakKeyDictionary[Agent, MenuLoop] = WeakKeyDictionary()

    async def press_keys(self: Agent, keys: str) -> str:
        if not _KEYS.fullmatch(keys):
            return "nothing was pressed: keys are 0-9 * # A-D, and w for a pause of half a second"
        heard = self.heard_last()
        rounds, before = loops.setdefault(self, MenuLoop()).press(heard, keys)
        if rounds > max_rounds:
            self.hang_up("ivr_loop")
            return f"nothing was pressed: this menu was heard {rounds} times, and the call ends now"
        self.send_digits(keys)
        if before:
            return f"pressed {keys}. This menu was heard before; then you pressed {', '.join(before)}: try another way"
        return f"pressed {keys}"

    press_keys.__doc__ = description
    return ends_turn(tool(name="press_keys")(press_keys))


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


def _checked_destinations(who: str, destinations: Mapping[str, str]) -> dict[str, str]:
    if not destinations:
        raise ConfigurationError(f"{who} needs at least one destination")
    for name, tel in destinations.items():
        if not name.strip() or not _TEL.fullmatch(tel):
            raise ConfigurationError(
                f"{who}: {name!r} must dial a number in E.164 such as +15550100123, or sip:… or client:…"
            )
    return dict(destinations)
