"""Every error that Dialog raises or reports.

::

    DialogError
    ├── ConfigurationError          a setting is missing, wrong or contradictory
    │   ├── MissingPublicURL        the gateway cannot name its own address
    │   ├── MissingExtra            an optional package is not installed
    │   └── UnsupportedFormat       two participants share no audio format
    ├── StateError                  a method was called in a state that does not allow it
    ├── NotSupportedError           this carrier or provider cannot do that
    ├── ClientToolError             a tool that the client has declared failed there, or was not answered
    ├── LimitError                  a bound (queue, body, text) was exceeded
    ├── RemoteProtocolError         bytes from the network break the protocol
    ├── ProviderError               an STT, TTS, LLM or speech-to-speech provider failed
    │   ├── AuthenticationError     … because it refused the credentials
    │   ├── SpeechFailed            … and a script has nobody to speak with
    │   └── RecognitionFailed       … and a script has nobody to listen with
    ├── CarrierError                a command to the carrier (hang up, transfer, SMS …) failed
    ├── DestinationRefused          the settings do not let calls reach that number or address
    ├── CallNotAnswered             a call that was placed reached nobody: busy, no answer, a machine …
    ├── CallHungUp                  the call ended while a script was in it
    ├── Timeout                     what a script waited for did not come in time
    ├── NotUnderstood               the caller did not give an answer that would do
    └── UserCodeError               a listener, tool, hook or ``inference`` raised
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AuthenticationError",
    "CallHungUp",
    "CallNotAnswered",
    "CarrierError",
    "ClientToolError",
    "ConfigurationError",
    "DestinationRefused",
    "DialogError",
    "LimitError",
    "MissingExtra",
    "MissingPublicURL",
    "NotSupportedError",
    "NotUnderstood",
    "ProviderError",
    "RecognitionFailed",
    "RemoteProtocolError",
    "SpeechFailed",
    "StateError",
    "Timeout",
    "UnsupportedFormat",
    "UserCodeError",
]


class DialogError(Exception):
    """Root of all errors of Dialog; ``code`` is a stable word for logs and wires."""

    code = "error"


class ConfigurationError(DialogError):
    """A setting is missing, wrong or contradicts another."""

    code = "configuration"


class MissingPublicURL(ConfigurationError):
    """The public URL of the gateway is needed and was not given."""

    code = "missing_public_url"


class MissingExtra(ConfigurationError):
    """An optional package is not installed; the message names the extra that brings it."""

    code = "missing_extra"

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'dialog[{extra}]'")
        self.package = package
        self.extra = extra


class UnsupportedFormat(ConfigurationError):
    """Two participants share no audio format that Dialog can convert between."""

    code = "unsupported_format"


class StateError(DialogError):
    """A method was called in a state that does not allow it (``post`` before ``open``)."""

    code = "state"


class NotSupportedError(DialogError):
    """This carrier or provider cannot do what was asked."""

    code = "not_supported"


class ClientToolError(DialogError):
    """A tool that runs at the caller's client failed, or gave no answer; the text is for the model."""

    code = "client_tool"


class LimitError(DialogError):
    """A bound was exceeded; the message names the bound and its value."""

    code = "limit"


class RemoteProtocolError(DialogError):
    """What came from the network breaks its protocol."""

    code = "remote_protocol"


class ProviderError(DialogError):
    """A provider failed; ``retryable`` says whether trying again can help."""

    code = "provider"

    def __init__(self, provider: str, reason: str, *, retryable: bool) -> None:
        super().__init__(f"{provider}: {reason}")
        self.provider = provider
        self.retryable = retryable


class AuthenticationError(ProviderError):
    """A provider refused the credentials; never worth a retry."""

    code = "authentication"

    def __init__(self, provider: str, reason: str) -> None:
        super().__init__(provider, reason, retryable=False)


class SpeechFailed(ProviderError):
    """Nothing is said any more, or this was not: the voice has failed; ``__cause__`` is what it reported."""

    code = "speech_failed"


class RecognitionFailed(ProviderError):
    """The caller is not understood any more: who listens has given up; ``__cause__`` is what it reported."""

    code = "recognition_failed"


class CarrierError(DialogError):
    """A command to the carrier failed; the message names the call, if it was for one, and what to do."""

    code = "carrier"

    def __init__(
        self,
        carrier: str,
        call: str,
        reason: str,
        *,
        status: int = 0,
        carrier_code: int = 0,
        retry_after_s: float | None = None,
        in_doubt: bool = False,
    ) -> None:
        super().__init__(f"{carrier} call {call}: {reason}" if call else f"{carrier}: {reason}")
        self.carrier = carrier
        self.call = call
        self.status = status
        self.carrier_code = carrier_code
        self.retry_after_s = retry_after_s
        """The carrier asked for so long a pause."""
        self.in_doubt = in_doubt
        """Whether the command was carried out is not known: no answer came, or one that does not tell."""


class DestinationRefused(DialogError):
    """The settings do not let calls reach a number or an address; nobody was asked."""

    code = "destination_refused"


class CallNotAnswered(DialogError):
    """A call that was placed reached nobody.

    ``reason`` is that of the call's end:

    ``busy``, ``no_answer``, ``failed``, ``canceled``, ``machine``, or why it ended before somebody answered.
    """

    code = "call_not_answered"

    def __init__(self, call: str, reason: str, detail: str = "") -> None:
        super().__init__(f"call {call} was not answered: {reason}{detail and f' ({detail})'}")
        self.call = call
        self.reason = reason
        self.detail = detail


class CallHungUp(DialogError):
    """The call ended while a script was in it.

    ``reason`` is that of the call's end: ``caller_hangup``, ``machine``, ``transferred`` … ``last_spoken`` is what the
    caller heard of what was being said.
    """

    code = "call_hung_up"

    def __init__(self, call: str, reason: str, detail: str = "", *, last_spoken: str = "") -> None:
        super().__init__(f"call {call} has ended: {reason}{detail and f' ({detail})'}")
        self.call = call
        self.reason = reason
        self.detail = detail
        self.last_spoken = last_spoken
        self.recorded: Any = None
        """Of a message that was being recorded: the :class:`~dialog.agent.scripts.recording.RecordedMessage`."""


class Timeout(DialogError, TimeoutError):
    """What a script waited for did not come in time: words, keys, a mark."""

    code = "timeout"


class NotUnderstood(DialogError):
    """The caller was asked as often as wanted, and has not given an answer that would do; ``heard`` is the last one."""

    code = "not_understood"

    def __init__(self, message: str, heard: str) -> None:
        super().__init__(message)
        self.heard = heard


class UserCodeError(DialogError):
    """Code of the framework's user raised; ``__cause__`` is what it raised."""

    code = "user_code"
