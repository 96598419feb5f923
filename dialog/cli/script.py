"""Scripts of the simulated caller: read from files, and spoken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dialog.demo.script import Step, parse_script
from dialog.errors import ConfigurationError
from dialog.testing.caller import Caller, Heard

__all__ = ["read_script", "speak"]

_BREATH_S = 0.3


def read_script(path: Path) -> tuple[Step, ...]:
    """The steps of a script file; see :mod:`dialog.demo.script`.

    Raises:
        ConfigurationError: It cannot be read, or is no script.
    """
    try:
        return parse_script(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc}") from exc
    except ConfigurationError as exc:
        raise ConfigurationError(f"{path}: {exc}") from exc


async def speak(
    caller: Caller, steps: Sequence[Step | Path], on_heard: Callable[[Heard], object] = lambda _: None
) -> None:
    """Let the caller say everything, each when its time has come; ``on_heard`` is told what came before it.

    Raises:
        NothingHeard: The agent did not speak, or not to an end.
        CallEnded: The call ended.
    """
    for step in steps:
        if isinstance(step, Path) or step.barge_in_ms is None:
            on_heard(await caller.listen())
            await caller.clock.sleep(_BREATH_S)
        else:
            # Speech from before the caller's last words is not the reply that he interrupts.
            since = caller.spoken[-1].ended_ms if caller.spoken else 0.0
            while (begun := await caller.wait_for_speech()) < since:
                await caller.clock.sleep(0.02)
            await caller.clock.sleep(max(0.0, (begun + step.barge_in_ms - caller.now_ms()) / 1000))
        await caller.say(step if isinstance(step, Path) else step.say)
