"""Scripts in ordinary threads, over the phone's own protocol: a server beside them, many calls at once."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest
from ports import free_port
from steady import steady_clock

from dialog.agent.scripts.blocking import BlockingCall
from dialog.agent.scripts.dialling import dial
from dialog.agent.scripts.server import BackgroundServer
from dialog.clock import Clock
from dialog.errors import CallHungUp, CallNotAnswered, ConfigurationError, StateError, Timeout
from dialog.testing.callee import Callee
from dialog.testing.caller import Caller
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.twilio_rest import TwilioRestEmulator
from dialog.voip.answering import MachineDetection
from dialog.voip.pacing import Pacing
from dialog.voip.twilio.gateway import TwilioGateway

ACCOUNT, TOKEN = "AC" + "0" * 32, "secret-token"
FROM, TO = "+15550100", "+15550123"
CLOCK = steady_clock(4.0)


class Voice(HummingTTS):
    made: list[HummingTTS]

    def __init__(self) -> None:
        super().__init__(ms_per_char=20.0)


class House:
    """A gateway on a port of its own, its account, and the ears and voices that were made."""

    def __init__(self, account: TwilioRestEmulator, port: int, clock: Clock) -> None:
        self.account = account
        self.url = f"http://127.0.0.1:{port}/twilio"
        self.port = port
        self.ears: list[ToldSTT] = []
        self.voices: list[HummingTTS] = []
        self.gateway = TwilioGateway(
            account_sid=ACCOUNT,
            auth_token=TOKEN,
            base_url=account.url,
            webhook_url=self.url,
            pacing=Pacing(calls_per_s=1000.0),
            clock=clock,
        )

    def stt(self) -> ToldSTT:
        self.ears.append(ToldSTT())
        return self.ears[-1]

    def tts(self) -> HummingTTS:
        self.voices.append(Voice())
        return self.voices[-1]

    def server(self, **options) -> BackgroundServer:
        settings = {"stt": self.stt, "tts": self.tts, "host": "127.0.0.1", "port": self.port, **options}
        return BackgroundServer(self.gateway, **settings)

    def rings(self, on_answer=None, **options) -> None:
        self.account.callees[TO] = Callee(on_answer=on_answer, **{"light": True, **options})


@asynccontextmanager
async def house(clock: Clock = CLOCK):
    async with TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN, clock=clock) as account:
        yield House(account, free_port(), clock)


async def types_in(caller: Caller, keys: str) -> None:
    await caller.wait_streaming()
    caller.press(keys)
    await caller.wait_ended(timeout_s=600)


async def test_a_plain_program_calls_somebody():
    async def talk(caller):
        await types_in(caller, "42#")

    def program(there: House):
        with there.server() as server:
            with server.dial(TO, from_=FROM, parameters={"name": "Ada"}) as call:
                said = call.say("Hello.")
                digits = call.gather(prompt="Your number, please.", timeout_s=30).digits
                assert call.metadata.parameter("name") == "Ada"
                assert not call.is_disconnected
            assert call.is_disconnected
            with pytest.raises(CallHungUp):
                call.say("Hello?")
            return said, digits, call.end

    async with house() as there:
        there.rings(talk)
        said, digits, end = await asyncio.to_thread(program, there)
    assert said.disconnected is False
    assert digits == "42"
    assert end.reason == "agent_hangup"
    assert there.gateway.calls == ()


async def test_everything_of_a_call_is_there_for_threads(tmp_path):
    stop = threading.Event()
    sound = b"\x55" * 800

    def program(there: House):
        with there.server() as server, server.dial(TO, from_=FROM) as call:
            call.wait_connected()
            call.post_text("One.")
            call.post_audio(sound)
            call.mark("here")
            assert call.wait_mark("here", 30)
            assert call.wait_played(30)
            threading.Timer(0.1, stop.set).start()
            assert call.say("A very long sentence that is stopped by an event. " * 5, stop=stop).interrupted
            with pytest.raises(Timeout):
                call.listen(0.2, fresh=True)
            call.clear_inbound()
            call.request_clear()
            recorded = call.record(max_s=0.5, path=tmp_path / "message.wav")
            assert recorded.why == "max"

            async def inside(script_call):
                await script_call.say("From the loop.")
                with pytest.raises(StateError, match="own thread"):
                    call.say("This would wait for itself.")
                return "back"

            assert call.run(inside) == "back"
            call.request_disconnect("done")
            assert call.run(lambda script_call: script_call.wait_over(30))
            return call.end.reason

    async with house() as there:
        there.rings()
        assert await asyncio.to_thread(program, there) == "done"
    assert (tmp_path / "message.wav").exists()


async def test_who_does_not_answer_and_who_hangs_up_are_errors():
    async def leaves(caller):
        await caller.wait_streaming()

    def program(there: House):
        with there.server() as server:
            there.rings(outcome="busy")
            with pytest.raises(CallNotAnswered, match="busy"):
                server.dial(TO, from_=FROM)
            there.rings(answered_by="machine_start")
            with pytest.raises(CallNotAnswered, match="machine"):
                server.dial(TO, from_=FROM, machine_detection=MachineDetection())
            there.rings(leaves)
            with pytest.raises(CallHungUp) as gone, server.dial(TO, from_=FROM) as call:
                call.listen(60)
            assert gone.value.reason == "caller_hangup"
            with pytest.raises(ConfigurationError):
                server.dial("not a number", from_=FROM)
        with pytest.raises(StateError, match="does not run"):
            server.dial(TO, from_=FROM)

    async with house() as there:
        await asyncio.to_thread(program, there)


async def test_fifty_threads_hold_calls_at_the_same_time():
    together = threading.Barrier(50)

    def program(there: House):
        with there.server() as server, ThreadPoolExecutor(50) as pool:

            def one(number: int) -> str:
                with server.dial(f"+155501{number:02}", from_=FROM) as call:
                    together.wait(50)  # all of them are answered
                    call.say("Hello.")
                    return call.gather(2, prompt="Who are you?", timeout_s=120).digits

            return list(pool.map(one, range(50)))

    def typing(number: int):
        async def talk(caller):
            await types_in(caller, f"{number:02}")

        return talk

    async with house(steady_clock(1.0)) as there:
        for number in range(50):
            there.account.callees[f"+155501{number:02}"] = Callee(on_answer=typing(number), light=True)
        assert await asyncio.to_thread(program, there) == [f"{number:02}" for number in range(50)]
    assert len(there.ears) == len(there.voices) == 50


async def test_a_hundred_calls_one_after_the_other_leave_nothing_to_the_next():
    async def calls(there: House, number: int):
        async with Caller.dial(
            there.url, auth_token=TOKEN, account_sid=ACCOUNT, clock=clock, from_=f"+1555{number:07}", light=True
        ) as caller:
            caller.press(f"{number:02}")
            await caller.wait_ended(timeout_s=600)

    def program(there: House, server: BackgroundServer, results: list):
        for number in range(100):
            with server.accept(60) as call:
                digits = call.gather(2, timeout_s=600).digits
                with pytest.raises(Timeout):
                    call.gather(1, timeout_s=0.05)
                call.post_text(f"Goodbye {number}.")
                results.append((digits, call.metadata.from_, there.voices[-1].texts and number))
                if number % 2:
                    call.wait_played(600)

    clock = steady_clock(20.0)
    results: list = []
    async with house(clock) as there:
        server = there.server(incoming=3)
        await asyncio.to_thread(server.start)
        held = asyncio.create_task(asyncio.to_thread(program, there, server, results))
        for number in range(100):
            await calls(there, number)
        await held
        tasks = await asyncio.to_thread(server._running.run, _tasks())
        await asyncio.to_thread(server.shutdown)
    assert [(digits, from_) for digits, from_, _ in results] == [(f"{n:02}", f"+1555{n:07}") for n in range(100)]
    said = [[text for text in voice.texts.values() if text] for voice in there.voices]
    assert said == [[f"Goodbye {number}."] for number in range(100)]
    assert tasks < 20, "nothing of a call is left"


async def _tasks() -> int:
    return len(asyncio.all_tasks())


async def test_the_hosts_loop_serves_and_its_own_thread_must_not_wait():
    async def talk(caller):
        await types_in(caller, "7")

    def program(server: BackgroundServer):
        with server.dial(TO, from_=FROM) as call:
            return call.gather(1, timeout_s=60).digits

    async with house() as there:
        there.rings(talk)
        server = there.server()
        loop = asyncio.get_running_loop()
        with pytest.raises(StateError, match="own thread"):
            server.start(loop)
        await asyncio.to_thread(server.start, loop)
        with pytest.raises(StateError, match="already"):
            await asyncio.to_thread(server.start, loop)
        assert await asyncio.to_thread(program, server) == "7"
        await asyncio.to_thread(server.shutdown)
        await asyncio.to_thread(server.shutdown)


async def test_a_shutdown_ends_every_wait():
    def program(there: House):
        server = there.server(incoming=1)
        server.start()
        call = server.dial(TO, from_=FROM)
        outcomes: dict[str, BaseException] = {}

        def wait(name, work):
            try:
                work()
            except Exception as exc:
                outcomes[name] = exc

        threads = [
            threading.Thread(target=wait, args=("listen", lambda: call.listen(600))),
            threading.Thread(target=wait, args=("accept", server.accept)),
        ]
        for thread in threads:
            thread.start()
        call.say("Hello.")
        server.shutdown()
        for thread in threads:
            thread.join(20)
        with pytest.raises(StateError):
            call.listen()
        return outcomes

    async with house() as there:
        there.rings()
        outcomes = await asyncio.to_thread(program, there)
    assert isinstance(outcomes["listen"], CallHungUp)
    assert isinstance(outcomes["accept"], StateError)


async def test_an_address_that_is_taken_is_an_error():
    async with house() as there:
        with socket.create_server(("127.0.0.1", there.port)):
            server = there.server()
            with pytest.raises(ConfigurationError, match="cannot be listened at: address already in use"):
                await asyncio.to_thread(server.start)
    with pytest.raises(ConfigurationError):
        there.server(incoming=-1)
    with pytest.raises(StateError, match="incoming"):
        there.server().accept()


async def test_dialling_in_a_coroutine():
    async def talk(caller):
        await types_in(caller, "1")

    async with house() as there:
        there.rings(talk)
        server = there.server()
        await asyncio.to_thread(server.start, asyncio.get_running_loop())
        try:
            settings = {"gateway": there.gateway, "stt": there.stt, "tts": there.tts}
            async with dial(TO, FROM, **settings) as call:
                await call.say("Hello.")
                digits = await call.gather(1, timeout_s=60)
                assert BlockingCall(call).metadata is call.metadata
            assert (digits.digits, call.end.reason) == ("1", "agent_hangup")
            with pytest.raises(ZeroDivisionError):
                async with dial(TO, FROM, **settings) as call:
                    raise ZeroDivisionError
            assert call.end.reason == "agent_hangup"
            there.rings(answered_by="machine_end_beep")
            message = MachineDetection(when_machine="leave_message", message="Please call back.")
            with pytest.raises(CallNotAnswered, match="told a message"):
                async with dial(TO, FROM, **settings, machine_detection=message):
                    pass
            assert there.voices[-1].texts
        finally:
            await asyncio.to_thread(server.shutdown)
