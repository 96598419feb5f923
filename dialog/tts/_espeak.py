"""The espeak-ng library, loaded once per process and used by one thread at a time.

The library is not thread-safe: two utterances at once mix up their voices or corrupt the heap. So
one lock covers choosing the voice, its settings and the synthesis. :mod:`ctypes` releases the
interpreter's lock meanwhile; each callback takes it again for a few microseconds.

Source of constants and structures: ``speak_lib.h`` of espeak-ng 1.52.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec import Struct

from dialog.errors import ConfigurationError, MissingExtra, ProviderError

__all__ = ["SAMPLE_RATE", "Settings", "SpokenWord", "check_voice", "installed", "synthesise"]

SAMPLE_RATE = 22050
"""What the formant voices of espeak-ng produce, in Hz."""

_SYNCHRONOUS = 2
_DO_NOT_EXIT = 0x8000
_CHUNK_MS = 60
_UTF8 = 1
_CHARACTER_POSITIONS = 1
_RATE, _VOLUME, _PITCH = 1, 2, 3
_LIST_END, _WORD, _SENTENCE, _CLAUSE_END = 0, 1, 2, 5


class Settings(Struct, frozen=True, kw_only=True):
    """How a voice speaks."""

    voice: str = "en-us"
    """A voice, if need be with a variant: ``en-us``, ``en-gb-x-rp``, ``en-us+m3``."""
    rate: int = 165
    """Words a minute, 80 to 450."""
    pitch: int = 50
    """0 to 99."""
    volume: int = 100
    """Percent; over 100 may distort."""

    def __post_init__(self) -> None:
        for name, low, high in (("rate", 80, 450), ("pitch", 0, 99), ("volume", 0, 200)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigurationError(f"espeak: {name} must be from {low} to {high}, got {value}")


class SpokenWord(Struct, frozen=True, kw_only=True):
    """A word of the text: where it stands and when it begins."""

    position: int
    """Index of its first character in the text."""
    length: int
    """In characters."""
    at_ms: float
    """From the start of the audio."""


Sink = Callable[[bytes, tuple[SpokenWord, ...]], bool]
"""Takes 60 ms of s16le audio and the words announced with it; false stops the synthesis at once."""


class _Id(ctypes.Union):
    _fields_ = (("number", c_int), ("name", c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", c_int),
        ("unique_identifier", c_uint),
        ("text_position", c_int),
        ("length", c_int),
        ("audio_position", c_int),
        ("sample", c_int),
        ("user_data", c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(c_int, c_void_p, c_int, POINTER(_Event))


def installed() -> bool:
    """Whether the package with the library is there."""
    return importlib.util.find_spec("espeakng_loader") is not None


@lru_cache(maxsize=1)
def _names() -> tuple[frozenset[str], frozenset[str]]:
    """Voices in lower case, and variants, as the package's data folder has them."""
    import espeakng_loader

    data = Path(espeakng_loader.get_data_path())
    voices = frozenset(path.name.lower() for path in (data / "lang").rglob("*") if path.is_file())
    variants = frozenset(path.name for path in (data / "voices" / "!v").iterdir() if path.is_file())
    return voices, variants


def check_voice(voice: str) -> None:
    """Refuse a voice that espeak-ng does not have.

    Raises:
        MissingExtra: espeak-ng is not installed.
        ConfigurationError: There is no such voice or variant; the message lists some.
    """
    if not installed():
        raise MissingExtra("espeakng-loader", "local")
    voices, variants = _names()
    base, plus, variant = voice.partition("+")
    if base.lower() not in voices:
        some = ", ".join(sorted(name for name in voices if name.startswith("en")))
        raise ConfigurationError(f"espeak: no voice {base!r}; English ones are {some}")
    if plus and variant not in variants:
        some = ", ".join(name for name in ("f2", "f3", "m1", "m3", "m7") if name in variants)
        raise ConfigurationError(f"espeak: no variant {variant!r} for {voice!r}; some are {some}")


class _Library:
    """The loaded library. Its methods are called with :data:`_lock` held."""

    def __init__(self) -> None:
        import espeakng_loader

        path = espeakng_loader.get_library_path()
        try:
            self._lib: Any = ctypes.CDLL(path)
        except OSError as exc:
            raise ProviderError("espeak", f"cannot load {path}: {exc}", retryable=False) from exc
        self._declare()
        # Kept for the life of the process: the library calls it through a bare pointer.
        self._callback = _Callback(self._chunk)
        data = str(espeakng_loader.get_data_path()).encode()
        rate = self._lib.espeak_Initialize(_SYNCHRONOUS, _CHUNK_MS, data, _DO_NOT_EXIT)
        if rate != SAMPLE_RATE:
            raise ProviderError("espeak", f"initialising answered {rate}, not {SAMPLE_RATE} Hz", retryable=False)
        self._lib.espeak_SetSynthCallback(self._callback)
        self._sink: Sink | None = None
        self._error: BaseException | None = None

    def _declare(self) -> None:
        lib = self._lib
        lib.espeak_Initialize.argtypes = [c_int, c_int, c_char_p, c_int]
        lib.espeak_SetSynthCallback.argtypes = [_Callback]
        lib.espeak_SetSynthCallback.restype = None
        lib.espeak_SetVoiceByName.argtypes = [c_char_p]
        lib.espeak_SetParameter.argtypes = [c_int, c_int, c_int]
        # text, size, position, position type, end position, flags, identifier, user data
        lib.espeak_Synth.argtypes = [c_char_p, c_size_t, c_uint, c_int, c_uint, c_uint, POINTER(c_uint), c_void_p]

    def synthesise(self, text: str, settings: Settings, sink: Sink) -> None:
        lib = self._lib
        if lib.espeak_SetVoiceByName(settings.voice.encode()) != 0:
            raise ConfigurationError(f"espeak: refuses the voice {settings.voice!r}")
        for parameter, value in ((_RATE, settings.rate), (_VOLUME, settings.volume), (_PITCH, settings.pitch)):
            lib.espeak_SetParameter(parameter, value, 0)
        data = text.replace("\0", " ").encode()
        identifier = c_uint(0)
        self._sink, self._error = sink, None
        try:
            code = lib.espeak_Synth(
                data, len(data) + 1, 0, _CHARACTER_POSITIONS, 0, _UTF8, ctypes.byref(identifier), None
            )
        finally:
            self._sink = None
        if self._error is not None:
            raise self._error
        if code != 0:
            raise ProviderError("espeak", f"synthesis of {len(text)} characters answered {code}", retryable=False)

    def _chunk(self, wav: int | None, samples: int, events: Any) -> int:
        """Called by the library for every chunk; 1 stops it."""
        sink = self._sink
        if sink is None:
            return 1
        try:
            words: list[SpokenWord] = []
            index = 0
            while (event := events[index]).type != _LIST_END:
                if event.type == _WORD:
                    at_ms = event.sample * 1000.0 / SAMPLE_RATE
                    words.append(SpokenWord(position=event.text_position - 1, length=event.length, at_ms=at_ms))
                index += 1
            audio = ctypes.string_at(wav, samples * 2) if wav and samples > 0 else b""
            return 0 if sink(audio, tuple(words)) else 1
        except BaseException as exc:  # must not unwind through the C frames; raised again after them
            self._error = exc
            return 1


_lock = threading.Lock()
_library: _Library | None = None


def synthesise(text: str, settings: Settings, sink: Sink) -> None:
    """Speak ``text`` into ``sink``, chunk by chunk, as mono s16le at :data:`SAMPLE_RATE`.

    Blocks for about a millisecond per second of speech, and while another thread speaks.

    Raises:
        MissingExtra: espeak-ng is not installed.
        ConfigurationError: There is no such voice.
        ProviderError: The library failed.
    """
    global _library
    if not installed():
        raise MissingExtra("espeakng-loader", "local")
    with _lock:
        if _library is None:
            _library = _Library()
        _library.synthesise(text, settings, sink)
