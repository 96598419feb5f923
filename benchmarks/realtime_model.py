"""A model of OpenAI's realtime protocol for :class:`~emulators.World`: it hears, answers and speaks in one place.

It notes the same as the emulators of the three providers of text mode, at the same instants: when the caller's frames
arrive, when an utterance has ended, when a reply is asked for, when its first audio leaves.
"""

import asyncio
from base64 import b64decode, b64encode

import msgspec
from emulators import AUDIO_MS_PER_CHARACTER, CHUNK_MS, FASTER, TEXT, TOKEN_S, World, find, now, spoken
from rawsocket import RawSocket

_APPEND = b'{"type":"input_audio_buffer.append","audio":"'
_REPLY_MS = len(TEXT) * AUDIO_MS_PER_CHARACTER


class RealtimeWorld(World):
    """The surroundings of a server in realtime mode."""

    async def open(self) -> None:
        self.urls["REALTIME_BASE_URL"] = f"http://{await self._serve(lambda: RealtimeModel(self))}/v1"


class Created(msgspec.Struct):
    metadata: dict[str, str] = {}


class FromClient(msgspec.Struct):
    type: str
    response: Created | None = None


_from_client = msgspec.json.Decoder(FromClient)


class RealtimeModel(RawSocket):
    """One session."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.heard_ms = 0
        self.items = 0
        self.replies = 0
        self.question: tuple[int, int] | None = None
        """The turn that is to be answered next."""
        self.reply: Reply | None = None

    def opened(self) -> None:
        self.tell("session.created", session={"type": "realtime", "id": "sess_1", "model": "gpt-realtime-2.1"})

    def tell(self, kind: str, **fields: object) -> None:
        self.send(msgspec.json.encode({"type": kind, **fields}))

    def message(self, opcode: int, data: bytes) -> None:
        arrived = now()
        if opcode != 1:
            return
        if data.startswith(_APPEND):
            audio = b64decode(data[len(_APPEND) : -2])
            self.heard_ms += len(audio) // 8
            self.world.hear(self, audio, arrived)
            return
        asked = _from_client.decode(data)
        if asked.type == "session.update":
            self.tell("session.updated", session={"type": "realtime"})
        elif asked.type == "response.create":
            key, self.question = self.question, None
            if key is not None:
                self.world.figures.final_to_llm.setdefault(key, arrived - self.world.finals[key])
            self.replies += 1
            metadata = asked.response.metadata if asked.response is not None else {}
            self.reply = Reply(self, f"resp_{self.replies}", key, metadata)
        elif asked.type == "response.cancel" and self.reply is not None:
            self.reply.end("cancelled")

    def lost(self) -> None:
        if self.reply is not None:
            self.reply.over = True

    # What the script wants.

    def speech_started(self) -> None:
        self.items += 1
        start = {"audio_start_ms": max(0, self.heard_ms - 320), "item_id": f"item_{self.items}"}
        self.tell("input_audio_buffer.speech_started", **start)

    def results(self, text: str, *, final: bool) -> None:
        if not final:
            return  # words come with the end of an utterance, or later
        item = f"item_{self.items}"
        self.question = find(text.encode())
        self.tell("input_audio_buffer.speech_stopped", audio_end_ms=self.heard_ms, item_id=item)
        self.tell("input_audio_buffer.committed", item_id=item)
        self.tell("conversation.item.input_audio_transcription.completed", item_id=item, transcript=text)


class Reply:
    """One reply as it is made: a chunk at once, then faster than real time."""

    def __init__(
        self, session: RealtimeModel, name: str, key: tuple[int, int] | None, metadata: dict[str, str]
    ) -> None:
        self.session = session
        self.name = name
        self.key = key
        self.made_ms = 0
        self.over = False
        session.tell("response.created", response={"id": name, "status": "in_progress", "metadata": metadata})
        asyncio.get_running_loop().call_later(TOKEN_S, self.step)

    def step(self) -> None:
        if self.over:
            return
        if self.made_ms >= _REPLY_MS:
            self.end("completed")
            return
        first = self.key if self.made_ms == 0 else None
        part = {"response_id": self.name, "item_id": f"said_{self.name}"}
        words = TEXT[len(TEXT) * self.made_ms // _REPLY_MS : len(TEXT) * (self.made_ms + CHUNK_MS) // _REPLY_MS]
        data = b64encode(spoken(first)).decode()
        if first is not None:
            self.session.world.audio.setdefault(first, now())
        self.session.tell("response.output_audio.delta", **part, delta=data)
        self.session.tell("response.output_audio_transcript.delta", **part, delta=words)
        self.made_ms += CHUNK_MS
        asyncio.get_running_loop().call_later(CHUNK_MS / FASTER / 1000, self.step)

    def end(self, status: str) -> None:
        if not self.over:
            self.over = True
            self.session.reply = None
            self.session.tell("response.done", response={"id": self.name, "status": status})
