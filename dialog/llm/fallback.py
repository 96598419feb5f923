"""A chain of models: when one fails, the next goes on, within the same reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, cast

from dialog.errors import AuthenticationError, ConfigurationError, ProviderError, StateError
from dialog.llm.continuation import Seam, continued
from dialog.llm.llm import LLM, Entry, Finish, LLMEvent, LLMRequest, ModelSwitched, TextDelta, ToolCall
from dialog.net.circuit import Circuit, chain_circuits
from dialog.watchdog import Watchdog

__all__ = ["FallbackLLM"]

logger = logging.getLogger(__name__)

_PROBE = LLMRequest(items=(Entry(role="user", text="Hello?"),))


class FallbackLLM(LLM):
    """Asks the first of its models that is worth asking, and the next one when it fails.

    A model has failed when it refuses the request, breaks off, or gives nothing for ``timeout_s``. As
    long as it gave no words, the next one answers in its place, also when it declined to answer at all.
    After words were given, which the caller may have heard, the next one is told them and goes on from
    there. Tools are called only once a model has finished: none is called twice.

    After ``failures`` in a row a model is not asked for a while, in none of the calls of this loop that
    have it in a chain like this; then it is asked something small beside the conversation, and takes its
    place again when it answers. When all are in that state, all are tried.

    Args:
        llms: In the order in which they are preferred; they are closed with this one.
        timeout_s: How long a model may give nothing: before its first result, and between two.
        failures: So many in a row, and a model is left out.
        probe_after_s: So long after that it is first asked again; each failure doubles the wait.

    Raises:
        ConfigurationError: There is no model, or a value is out of its range.
    """

    def __init__(
        self, llms: Sequence[LLM], *, timeout_s: float = 4.0, failures: int = 2, probe_after_s: float = 15.0
    ) -> None:
        if not llms:
            raise ConfigurationError("FallbackLLM: give it at least one model")
        if timeout_s <= 0:
            raise ConfigurationError(f"FallbackLLM: need timeout_s > 0, got {timeout_s}")
        Circuit(failures=failures, probe_after_s=probe_after_s)  # refuses what is out of range, already here
        self._llms = tuple(llms)
        self._timeout_s = timeout_s
        self._failures = failures
        self._probe_after_s = probe_after_s
        self._circuits: tuple[Circuit, ...] = ()
        self._probes: set[asyncio.Task[None]] = set()
        self._last = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<FallbackLLM {', '.join(llm.name for llm in self._llms)}>"

    @property
    def name(self) -> str:
        """See :attr:`LLM.name`."""
        return f"FallbackLLM({', '.join(llm.name for llm in self._llms)})"

    @property
    def circuits(self) -> tuple[Circuit, ...]:
        """Of each model, whether it is worth asking."""
        if not self._circuits:
            identities = [llm.identity for llm in self._llms]
            circuits = chain_circuits(identities, failures=self._failures, probe_after_s=self._probe_after_s)
            self._circuits = tuple(circuits)
        return self._circuits

    async def stream(self, request: LLMRequest) -> AsyncIterator[LLMEvent]:
        """See :meth:`LLM.stream`. A :class:`ModelSwitched` tells when another model answers than before.

        Raises:
            ProviderError: All models failed; the message names each one's reason.
            StateError: After :meth:`close`.
        """
        if self._closed:
            raise StateError("FallbackLLM: used after close, which an agent does with its call: make one for each")
        self._probe()
        order = self._order()
        if order[0] != self._last:
            reason = "it is tried again" if order[0] < self._last else "it has failed repeatedly"
            yield self._switch(self._last, order[0], reason)
        said = ""
        reasons: list[str] = []
        retryable = False
        for place, number in enumerate(order):
            last = place == len(order) - 1
            reply = _Reply(self._llms[number], request, said, self._timeout_s, may_decline=last)
            async with aclosing(cast("Any", reply.events())) as events:
                async for event in events:
                    yield event
            said = reply.said
            if reply.error is None:
                if self.circuits[number].succeeded():
                    logger.info("%s answers again", self._llms[number].name)
                return
            if not reply.declined:
                self._failed(number, reply.error)
            retryable = retryable or reply.error.retryable
            reasons.append(f"{self._llms[number].name}: {reply.error}")
            if not last:
                yield self._switch(number, order[place + 1], str(reply.error), after_words=bool(said.strip()))
        raise ProviderError("fallback", f"no model answered ({'; '.join(reasons)})", retryable=retryable)

    def warm(self) -> None:
        """Prepare every model: the second one is needed when there is no time to lose."""
        for llm in self._llms:
            llm.warm()

    async def close(self) -> None:
        """Close every model."""
        self._closed = True
        for probe in tuple(self._probes):
            probe.cancel()
        if self._probes:
            await asyncio.wait(tuple(self._probes))
        for llm in self._llms:
            await llm.close()

    def _order(self) -> list[int]:
        numbers = range(len(self._llms))
        return [n for n in numbers if self.circuits[n].closed] or list(numbers)

    def _switch(self, before: int, after: int, reason: str, *, after_words: bool = False) -> ModelSwitched:
        self._last = after
        old, new = self._llms[before].name, self._llms[after].name
        logger.warning("%s answers instead of %s%s: %s", new, old, ", from its last word on" * after_words, reason)
        return ModelSwitched(model=new, instead_of=old, reason=reason)

    def _failed(self, number: int, error: ProviderError) -> None:
        # A request that is wrong in itself is refused at once: that says nothing of the next one.
        hopeless = isinstance(error, AuthenticationError)
        if (error.retryable or hopeless) and self.circuits[number].failed(self._now(), hopeless=hopeless):
            logger.warning("%s is left out after repeated failures: %s", self._llms[number].name, error)

    def _probe(self) -> None:
        for llm, circuit in zip(self._llms, self.circuits, strict=True):
            if circuit.due(self._now()):
                probe = asyncio.get_running_loop().create_task(self._ask(llm, circuit), name=f"probe of {llm.name}")
                self._probes.add(probe)
                probe.add_done_callback(self._probes.discard)

    async def _ask(self, llm: LLM, circuit: Circuit) -> None:
        """Ask a model something small, only to learn whether it answers."""
        reply = _Reply(llm, _PROBE, "", self._timeout_s, may_decline=True)
        try:
            async with aclosing(cast("Any", reply.events())) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        break
        except BaseException:
            circuit.abandoned()
            raise
        if reply.error is not None:
            circuit.failed(self._now())
            logger.info("%s does not answer yet: %s", llm.name, reply.error)
        elif circuit.succeeded():
            logger.info("%s answers again", llm.name)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


class _Reply:
    """One model's part in a reply."""

    def __init__(self, llm: LLM, request: LLMRequest, said: str, timeout_s: float, *, may_decline: bool) -> None:
        self.said = said
        """All words that were given so far, also by the models before."""
        self.error: ProviderError | None = None
        """Why it failed, if it did."""
        self.declined = False
        """It would not answer this request, which is no fault of its server."""
        self._llm = llm
        self._request = request
        self._timeout_s = timeout_s
        self._may_decline = may_decline

    async def events(self) -> AsyncIterator[LLMEvent]:
        """What it gives; a failure ends this quietly and is told by :attr:`error`."""
        seam: Seam | None = None
        request = self._request
        if self.said.strip():
            seam, request = Seam(self.said), continued(request, self.said)
        calls: list[ToolCall] = []
        finish: Finish | None = None
        watchdog = Watchdog(self._timeout_s)
        stream: Any = self._llm.stream(request)
        try:
            while finish is None:
                with watchdog:
                    event = await anext(stream, None)
                if event is None:
                    self._fail("its stream ended before it had finished")
                    return
                if isinstance(event, TextDelta):
                    text = event.text if seam is None else seam.feed(event.text)
                    if text:
                        self.said += text
                        yield event if seam is None else TextDelta(text)
                elif isinstance(event, ToolCall):
                    calls.append(event)
                elif isinstance(event, Finish):
                    finish = event
                else:
                    yield event
        except TimeoutError:
            self._fail(f"it gave nothing for {self._timeout_s:g} s")
            return
        except ProviderError as exc:
            self.error = exc
            return
        except (StateError, ConfigurationError):
            raise  # a mistake of the program, which the next model would only hide
        except Exception as exc:  # a model of the user's own
            self._fail(f"it raised {exc!r}", exc)
            return
        finally:
            watchdog.close()
            await stream.aclose()
        if finish.reason == "refused" and not self.said.strip() and not self._may_decline:
            self.declined = True
            self._fail("it declined to answer")
            return
        rest = seam.close() if seam is not None else ""
        if rest:
            yield TextDelta(rest)
        for call in calls:
            yield call
        yield finish

    def _fail(self, reason: str, cause: Exception | None = None) -> None:
        self.error = ProviderError(self._llm.name, reason, retryable=True)
        self.error.__cause__ = cause
