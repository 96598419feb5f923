"""Every parser of what comes from the network, as a function of bytes.

A target returns, whatever it is given: what it may raise, it catches. Anything else that comes out of it is a finding.
The same functions are fed by hypothesis in the suite (``test_parsers.py``), and for as long as you like by atheris
(``make fuzz``). A new parser brings its line in ``TARGETS``, and one example of what it reads in ``corpus/``.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from typing import Any
from unittest.mock import patch
from uuid import UUID

import answered
import asked
import between
from inputs import BETWEEN, CORPUS, NOBODY, in_a_loop, seeds, texts

import dialog.s2s.streaming
import dialog.stt.streaming
import dialog.tts.sockets
import dialog.voip.sip.leg
import dialog.voip.sip.session
from dialog.calls.checkpoint import Checkpoint
from dialog.calls.delivery.signature import WebhookInvalid, verify_webhook
from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import LimitError, NotSupportedError, ProviderError, RemoteProtocolError, StateError
from dialog.llm.anthropic import AnthropicLLM
from dialog.llm.chat import ChatDecoder
from dialog.llm.decoding import Decoder
from dialog.llm.messages import MessagesDecoder
from dialog.llm.openai import OpenAILLM
from dialog.llm.response_events import ResponsesDecoder
from dialog.llm.sse import SSEParser
from dialog.message import MULAW_8K, PCM_16K, PCM_24K, Message
from dialog.net.frames import FrameError, FrameReader
from dialog.net.http1 import BadResponseError, ResponseReader
from dialog.participant import Participant
from dialog.s2s.deepgram import DeepgramAgentS2S
from dialog.s2s.elevenlabs import ElevenLabsAgentS2S
from dialog.s2s.gemini import GeminiLiveS2S
from dialog.s2s.grok import GrokS2S
from dialog.s2s.openai import OpenAIRealtimeS2S
from dialog.s2s.s2s import S2S, SessionSpec
from dialog.stt.azure import AzureSTT
from dialog.stt.cartesia import CartesiaSTT
from dialog.stt.deepgram import DeepgramSTT
from dialog.stt.elevenlabs import ElevenLabsSTT
from dialog.stt.flux import DeepgramFluxSTT
from dialog.stt.openai import OpenAIRealtimeSTT
from dialog.stt.stt import STT
from dialog.tts.azure import AzureTTS
from dialog.tts.cartesia import CartesiaTTS
from dialog.tts.deepgram import DeepgramTTS
from dialog.tts.elevenlabs import ElevenLabsTTS
from dialog.tts.openai import OpenAITTS
from dialog.tts.tts import TTS
from dialog.voip.call import CallSettings
from dialog.voip.carrier.http import Refusal, parse_fields
from dialog.voip.sip import rtp, sdp
from dialog.voip.sip.media import RtpPort
from dialog.voip.sip.messages import Incoming, parse, reply
from dialog.voip.sip.switchboard import SIPSettings, SIPSwitchboard
from dialog.voip.sip.transactions import Transactions
from dialog.voip.streams.detect import DetectedStream
from dialog.voip.telnyx.events import decode_event, decode_message, metadata_of
from dialog.voip.telnyx.signature import TelnyxSignature
from dialog.voip.telnyx.stream import TelnyxStream, decode_state
from dialog.voip.twilio import forms
from dialog.voip.twilio.stream import TwilioStream
from dialog.voip.web.messages import decode_server_message
from dialog.voip.web.rtc.offers import decode_offer
from dialog.voip.web.stream import WebStream
from dialog.voip.web.switchboard import Refusal as WebRefusal
from dialog.voip.web.tokens import SessionSecrets, SessionTokens
from dialog.workers.frames import decode

__all__ = ["BETWEEN", "CORPUS", "TARGETS", "seeds"]

# Callers and carriers.

TELNYX = TelnyxSignature(base64.b64encode(bytes(32)).decode(), time=lambda: 1_700_000_000)


def twilio_stream(data: bytes) -> None:
    stream = TwilioStream()
    for text in texts(data):
        with suppress(RemoteProtocolError):
            stream.receive(text)
    if stream.stream_sid:
        stream.media(b"x")
        stream.mark("x")


def telnyx_stream(data: bytes) -> None:
    stream = TelnyxStream(MULAW_8K)
    for text in texts(data):
        with suppress(RemoteProtocolError):
            stream.receive(text)


def carrier_streams(data: bytes) -> None:
    stream = DetectedStream()
    for text in texts(data):
        with suppress(RemoteProtocolError):
            stream.receive(text)
    with suppress(StateError):
        stream.media(b"x" * 640)
        stream.mark("x")
        stream.clear()


def telnyx_webhook(data: bytes) -> None:
    for text in texts(data):
        decode_state(text)
        with suppress(RemoteProtocolError):
            event = decode_event(text)
            decode_state(event.payload.client_state)
        with suppress(RemoteProtocolError):
            metadata_of(NOBODY, text)
        with suppress(RemoteProtocolError):
            decode_message(text)
    TELNYX.fault({"telnyx-timestamp": "1700000000", "telnyx-signature-ed25519": data.decode("latin-1")}, data)


FORMS = [getattr(forms, name) for name in forms.__all__ if name.endswith("Form")]


def twilio_forms(data: bytes) -> None:
    try:
        fields = parse_fields(data)
    except Refusal:
        return
    for form in FORMS:
        with suppress(RemoteProtocolError):
            decoded = forms.decode_form(form, fields)
            if isinstance(decoded, forms.VoiceForm):
                forms.metadata_of(NOBODY, decoded, fields)
    for _, value in fields:
        with suppress(RemoteProtocolError):
            forms.decode_transcription_data(value)


def web_client(data: bytes) -> None:
    stream, now = WebStream(0.0), 0.0
    for text in texts(data):
        now += 1.0
        with suppress(RemoteProtocolError, LimitError):
            stream.receive(text, now)
            if stream.state == "starting":
                stream.start("fuzz", PCM_24K)
        with suppress(RemoteProtocolError, LimitError):
            stream.receive_audio(text.encode(), now)


def web_server(data: bytes) -> None:
    for text in texts(data):
        with suppress(RemoteProtocolError):
            decode_server_message(text)


def webrtc_offer(data: bytes) -> None:
    with suppress(WebRefusal):
        decode_offer(data)


SECRETS = SessionSecrets(b"a key of thirty-two bytes, or so")


def web_secret(data: bytes) -> None:
    with suppress(RemoteProtocolError):
        SECRETS.verify(data.decode("utf-8", "replace"), NOBODY)


TOKENS = SessionTokens(b"a key of thirty-two bytes, or so")


def web_token(data: bytes) -> None:
    for text in texts(data):
        with suppress(RemoteProtocolError):
            TOKENS.verify(text)


def sip_message(data: bytes) -> None:
    with suppress(RemoteProtocolError):
        message = parse(data, ("192.0.2.1", 5060))
        if isinstance(message, Incoming):
            reply(message, 200, "OK", to_tag="x")


class _SIPNetwork:
    """A socket that takes everything, and what a switchboard needs beside it."""

    clock = SYSTEM_CLOCK

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.transactions = Transactions(lambda data, where: None)

    def via(self, peer: object, branch: str) -> str:
        return f"SIP/2.0/UDP 192.0.2.2:5060;branch={branch};rport"

    def media_host(self, peer: object) -> str:
        return "192.0.2.2"

    def contact(self, peer: object) -> str:
        return "<sip:dialog@192.0.2.2:5060>"

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        return task


class _SIPAudio(RtpPort):
    @classmethod
    async def open(cls, host: str, ports: range, clock: Clock, *, quiet_s: float) -> RtpPort:
        return cls(clock, quiet_s=quiet_s)

    @property
    def port(self) -> int:
        return 4000


async def _sip_call(data: bytes) -> None:
    network = _SIPNetwork()
    settings = SIPSettings(
        peers=[ip_network("192.0.2.0/24")], host="192.0.2.2", call=CallSettings(settle_s=0.01), close_timeout_s=1.0
    )
    switchboard = SIPSwitchboard(settings, network, lambda voip: None)
    with (
        patch.object(dialog.voip.sip.session, "RtpPort", _SIPAudio),
        patch.object(dialog.voip.sip.leg, "token_hex", lambda size: "ours"),
    ):
        for message in data.split(BETWEEN)[:20]:
            switchboard.receive(message, ("192.0.2.1", 5060))
            for _ in range(5):  # admission has so many steps
                await asyncio.sleep(0)
        await switchboard.close()
    assert not switchboard.calls
    for task in network.tasks:
        if task.done() and not task.cancelled() and task.exception() is not None:
            raise task.exception()
        task.cancel()
    if network.tasks:
        await asyncio.wait(network.tasks)


def sip_call(data: bytes) -> None:
    """The requests of a call, one after another: whatever they say, the call is over in the end."""
    in_a_loop(_sip_call(data))


def sip_description(data: bytes) -> None:
    with suppress(RemoteProtocolError, NotSupportedError):
        media = sdp.parse(data.decode("utf-8", "replace"))
        assert sdp.parse(sdp.answer(media, "192.0.2.1", 4000, 1, 1)).payload_type == media.payload_type


def rtp_packets(data: bytes) -> None:
    """Packets behind each other, each after a byte that says how long it is and another how late it comes."""
    receiver, now, end = rtp.Receiver(MULAW_8K, 0, 101), 0.0, 0.0
    while len(data) > 2:
        size, late, data = data[0], data[1], data[2:]
        packet, data = data[:size], data[size:]
        now += late / 100
        heard = receiver.tick(now)
        with suppress(RemoteProtocolError):
            heard += receiver.receive(rtp.decode(packet), now)
        for each in heard:
            if isinstance(each, rtp.Sound):
                assert each.at_ms >= end - 1e-6
                end = each.at_ms + MULAW_8K.ms(len(each.data))
                assert end <= now * 1000 + 5000 + 1e-6


# What carries it.


def _frames(data: bytes, *, masked: bool) -> None:
    """The cut between two reads must not matter."""
    whole: list[object] = []
    pieces: list[object] = []
    for told, step in ((whole, len(data) or 1), (pieces, 7)):

        def take(opcode: int, payload: str | bytes, told: list[object] = told) -> None:
            told.append((opcode, payload))

        reader = FrameReader(take, masked=masked, max_message=65_536)
        try:
            for at in range(0, len(data), step):
                reader.feed(data[at : at + step])
        except FrameError as exc:
            told.append(exc.code)
    assert whole == pieces


def websocket_server(data: bytes) -> None:
    _frames(data, masked=True)


def websocket_client(data: bytes) -> None:
    _frames(data, masked=False)


def http_response(data: bytes) -> None:
    whole, pieces = b"", b""
    broken = []
    for step in (len(data) or 1, 5):
        reader, body = ResponseReader(), b""
        try:
            for at in range(0, len(data), step):
                body += reader.feed(data[at : at + step])
                if reader.done:
                    break
            reader.eof()
        except BadResponseError:
            broken.append(step)
        whole, pieces = pieces, body
    if not broken:
        assert whole == pieces


def bridge(data: bytes) -> None:
    with suppress(RemoteProtocolError):
        for _ in decode(data):
            pass


def checkpoint(data: bytes) -> None:
    with suppress(RemoteProtocolError):
        Checkpoint.decode(data)


def webhook(data: bytes) -> None:
    head, _, body = data.partition(b"\n\n")
    headers = dict(line.partition(":")[::2] for line in head.decode("latin-1").split("\n"))
    with suppress(WebhookInvalid):
        verify_webhook("whsec_" + base64.b64encode(b"secret").decode(), headers, body, now=lambda: 1_700_000_000)
        raise AssertionError("nobody knows the secret")


# Providers.


def _decoder(make: Callable[[str, str], Decoder]) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        for step in (len(data) or 1, 11):
            decoder = make("fuzz", "model")
            with suppress(ProviderError, LimitError):
                for at in range(0, len(data), step):
                    decoder.feed(data[at : at + step])
                decoder.close()

    return target


def server_sent_events(data: bytes) -> None:
    told = []
    for step in (len(data) or 1, 3):
        parser, events = SSEParser(), []
        with suppress(LimitError):
            for at in range(0, len(data), step):
                events += parser.feed(data[at : at + step])
            events += parser.close()
        told.append(events)
    assert told[0] == told[1]


class _Socket:
    """A connection to a provider that is there, and takes everything."""

    connected = True
    failed = False
    received = 0

    def __init__(self, owner: Participant, **options: object) -> None:
        self.options = options

    def open(self) -> None: ...

    def send(self, data: bytes | str) -> bool:
        return True

    def replace(self, error: object = None) -> None: ...

    def queued_audio(self) -> list[bytes]:
        return []


@contextmanager
def _connected() -> Iterator[None]:
    with (
        patch.object(dialog.stt.streaming, "ProviderSocket", _Socket),
        patch.object(dialog.tts.sockets, "ProviderSocket", _Socket),
        patch.object(dialog.s2s.streaming, "ProviderSocket", _Socket),
    ):
        yield


def _provider(make: Callable[[], Participant], prepare: Callable[[Participant], None]) -> Callable[[bytes], None]:
    """A provider that has just connected, and hears what it hears; one that is no text is a binary frame."""

    async def run(data: bytes) -> None:
        with _connected():
            provider = make()
            provider.on(Participant.ERROR, lambda failure: failure)
            try:
                prepare(provider)
                for line in data.split(BETWEEN)[:20]:
                    try:
                        message: str | bytes = line.decode()
                    except UnicodeDecodeError:
                        message = line
                    provider._receive(message)
            finally:
                provider.dispose()
                await provider.wait_disposed()

    return lambda data: in_a_loop(run(data))


def _stt(make: Callable[[], STT]) -> Callable[[bytes], None]:
    def prepare(stt: STT) -> None:
        stt.open(MULAW_8K if MULAW_8K in stt.formats else stt.formats[0])
        stt._connected()
        if isinstance(stt, AzureSTT):
            stt._turn_now.request_id = "abc"  # that of the examples
        for at in range(5):
            stt.post(Message(uuid=NOBODY, data=bytes(stt._format.size(200)), at_ms=200.0 * at))

    return _provider(make, prepare)


def _tts(make: Callable[[], TTS]) -> Callable[[bytes], None]:
    def prepare(tts: TTS) -> None:
        tts.open(MULAW_8K)
        tts._up()
        turn = UUID(int=1)
        tts.post(Message(uuid=turn, data="Hello there, how are you? "))
        tts.post(Message(uuid=turn, data="Fine.", done=True))

    return _provider(make, prepare)


def _s2s(make: Callable[[], S2S]) -> Callable[[bytes], None]:
    def prepare(s2s: S2S) -> None:
        telephone = MULAW_8K in s2s.formats and MULAW_8K in s2s.output_formats
        into, out = (MULAW_8K, MULAW_8K) if telephone else (PCM_16K, PCM_24K)
        s2s.open(SessionSpec(input_format=into, output_format=out, system="Be kind."))
        s2s._connected()
        s2s.post(Message(uuid=NOBODY, data=bytes(into.size(200)), at_ms=0.0))

    return _provider(make, prepare)


KEY = "key"
TARGETS: dict[str, Callable[[bytes], None]] = {
    "twilio-stream": twilio_stream,
    "twilio-forms": twilio_forms,
    "twilio-request": asked.twilio_request,
    "carrier-streams": carrier_streams,
    "telnyx-stream": telnyx_stream,
    "telnyx-webhook": telnyx_webhook,
    "telnyx-request": asked.telnyx_request,
    "telnyx-answer": answered.telnyx_answer,
    "stream-request": asked.stream_request,
    "web-client": web_client,
    "web-session": asked.web_session,
    "web-server": web_server,
    "web-token": web_token,
    "web-secret": web_secret,
    "webrtc-offer": webrtc_offer,
    "webrtc-description": asked.webrtc_description,
    "webrtc-packets": asked.webrtc_packets,
    "rest-request": asked.rest_request,
    "console-request": asked.console_request,
    "console-page": asked.console_page,
    "sip-message": sip_message,
    "sip-call": sip_call,
    "sip-description": sip_description,
    "rtp": rtp_packets,
    "websocket-server": websocket_server,
    "websocket-client": websocket_client,
    "http-response": http_response,
    "bridge": bridge,
    "bridge-socket": between.bridge_socket,
    "peer-frames": between.peer_frames,
    "peer-questions": between.peer_questions,
    "peer-answers": between.peer_answers,
    "peer-requests": between.peer_requests,
    "checkpoint": checkpoint,
    "webhook": webhook,
    "sse": server_sent_events,
    "llm-chat": _decoder(ChatDecoder),
    "llm-messages": _decoder(MessagesDecoder),
    "llm-responses": _decoder(ResponsesDecoder),
    "llm-http-openai": answered.llm_http(lambda: OpenAILLM(api_key=KEY, max_retries=0)),
    "llm-http-anthropic": answered.llm_http(lambda: AnthropicLLM(api_key=KEY, max_retries=0)),
    "socket-refusal": answered.socket_refusal,
    "tool-arguments": answered.tool_arguments,
    "tool-masked": answered.masked,
    "verdict": answered.verdict,
    "stt-azure": _stt(lambda: AzureSTT(api_key=KEY)),
    "stt-cartesia": _stt(lambda: CartesiaSTT(api_key=KEY)),
    "stt-deepgram": _stt(lambda: DeepgramSTT(api_key=KEY)),
    "stt-elevenlabs": _stt(lambda: ElevenLabsSTT(api_key=KEY)),
    "stt-flux": _stt(lambda: DeepgramFluxSTT(api_key=KEY)),
    "stt-openai": _stt(lambda: OpenAIRealtimeSTT(api_key=KEY)),
    "tts-azure": answered.tts_http(lambda: AzureTTS(api_key=KEY)),
    "tts-openai": answered.tts_http(lambda: OpenAITTS(api_key=KEY)),
    "tts-cartesia": _tts(lambda: CartesiaTTS(api_key=KEY)),
    "tts-deepgram": _tts(lambda: DeepgramTTS(api_key=KEY)),
    "tts-elevenlabs": _tts(lambda: ElevenLabsTTS(api_key=KEY)),
    "s2s-deepgram": _s2s(lambda: DeepgramAgentS2S(api_key=KEY)),
    "s2s-elevenlabs": _s2s(lambda: ElevenLabsAgentS2S(api_key=KEY, agent_id="agent")),
    "s2s-elevenlabs-address": answered.elevenlabs_address,
    "s2s-gemini": _s2s(lambda: GeminiLiveS2S(api_key=KEY)),
    "s2s-grok": _s2s(lambda: GrokS2S(api_key=KEY)),
    "s2s-openai": _s2s(lambda: OpenAIRealtimeS2S(api_key=KEY)),
}
"""Name → parser."""
