"""Calls of browsers are recorded by the gateway itself, where it is told to."""

from __future__ import annotations

import asyncio
import wave
from contextlib import asynccontextmanager
from io import BytesIO
from threading import Event
from uuid import uuid4

import numpy as np
import pytest
from web_server import serving, until

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.audio.recorder import StereoRecorder
from dialog.errors import CarrierError, NotSupportedError
from dialog.message import PCM_16K
from dialog.testing.doubles import HummingTTS
from dialog.testing.web import WebCaller
from dialog.voip.call import CallSettings
from dialog.voip.voip import VoIP
from dialog.voip.web import messages as ms
from dialog.voip.web.gateway import WebGateway


@asynccontextmanager
async def a_call(directory, *, record=False):
    """A caller who is greeted: ``(caller, gateway, voip)``."""
    voips = []

    def take(voip):
        voips.append(voip)
        settings = AgentSettings(record=record)
        Agent(voip=voip, tts=HummingTTS(ms_per_char=20), greeting="Good day to you.", settings=settings).activate()

    gateway = WebGateway(recordings=directory, call_settings=CallSettings(wrap_up_s=1.0))
    gateway.on("voip", take)
    async with serving(gateway) as url:
        async with WebCaller.connect(url, token=gateway.token(), audio=[PCM_16K]) as caller:
            yield caller, gateway, voips[0]


async def bytes_of(pieces) -> bytes:
    return b"".join([piece async for piece in pieces])


async def test_an_agent_that_records_leaves_both_sides_in_a_file(tmp_path):
    urls = []
    async with a_call(tmp_path / "deeper", record=True) as (caller, gateway, voip):
        voip.on(VoIP.RECORDING_URL, urls.append)
        await until(lambda: gateway.calls[0]._taps)
        caller.say((8000 * np.sin(np.arange(16_000) / 5)).astype("<i2").tobytes())
        await caller.wait_for(ms.AgentTranscript, lambda said: said.state == "played")
        await caller.hang_up()
        await until(lambda: urls)
        assert urls == [f"recording:{voip.metadata.call_id}"]
        sound = await bytes_of(gateway.download_recording(urls[0]))
    with wave.open(BytesIO(sound)) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 16_000)
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert np.abs(both[:, 0]).max() > 7000, "the caller is on the left"
    assert np.abs(both[:, 1]).max() > 3000, "the agent on the right"
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == [f"{voip.metadata.call_id}.wav"]


async def test_a_recording_is_stopped_and_removed(tmp_path):
    async with a_call(tmp_path) as (caller, gateway, voip):
        await voip.start_recording()
        await voip.start_recording()
        assert len(gateway.calls[0]._taps) == 1
        await voip.stop_recording()
        assert not gateway.calls[0]._taps
        await voip.remove_recording()
        await caller.hang_up()
        await until(lambda: voip.end is not None)
    assert not list(tmp_path.iterdir())


async def test_a_recording_is_removed_while_it_is_being_written(tmp_path, monkeypatch):
    begun, goes_on, written = Event(), Event(), Event()
    write = StereoRecorder.write

    def slowly(self, *args):
        begun.set()
        assert goes_on.wait(10)
        write(self, *args)
        written.set()

    monkeypatch.setattr(StereoRecorder, "write", slowly)
    async with a_call(tmp_path) as (caller, _, voip):
        await voip.start_recording()
        await caller.hang_up()
        await until(begun.is_set)
        removing = asyncio.create_task(voip.remove_recording())
        asyncio.get_running_loop().call_soon(goes_on.set)
        await removing
        assert written.is_set()
    assert not list(tmp_path.iterdir())


async def test_what_cannot_be_recorded_or_fetched_is_told(tmp_path):
    async with a_call(None) as (_, gateway, voip):
        with pytest.raises(NotSupportedError, match="recordings="):
            await voip.start_recording()
        with pytest.raises(NotSupportedError):
            gateway.download_recording(f"recording:{uuid4()}")
    async with a_call(tmp_path) as (_, gateway, voip):
        for strange in ("https://carrier.example/1.wav", "recording:../../etc/passwd"):
            with pytest.raises(NotSupportedError):
                await bytes_of(gateway.download_recording(strange))
        with pytest.raises(CarrierError, match="not there"):
            await bytes_of(voip.download_recording(f"recording:{uuid4()}"))


async def test_a_directory_that_cannot_be_written_to_costs_the_recording_alone(tmp_path):
    (tmp_path / "file").write_text("in the way")
    failures = []
    async with a_call(tmp_path / "file" / "below") as (caller, _, voip):
        voip.on(VoIP.ERROR, failures.append)
        await voip.start_recording()
        await caller.hang_up()
        await until(lambda: failures)
        assert "cannot be kept" in str(failures[0].error)
        assert voip.end.reason == "caller_hangup"
    await asyncio.sleep(0)
