"""Audio as bytes: G.711, conversion, levels, mixing, recording, WAV files, voice activity.

Importing this loads no optional package; a change of sample rate needs numpy (the ``audio`` extra)
when it is set up.
"""

from dialog.audio.convert import Converter, negotiate
from dialog.audio.g711 import (
    alaw_decode,
    alaw_encode,
    alaw_to_mulaw,
    mulaw_decode,
    mulaw_encode,
    mulaw_to_alaw,
)
from dialog.audio.level import SILENCE_DBFS, LevelNormaliser, level_dbfs, peak
from dialog.audio.mix import Bed, amplify, mix
from dialog.audio.monitor import Heard, Monitor
from dialog.audio.recorder import StereoRecorder
from dialog.audio.resample import Resampler
from dialog.audio.sound import Sound, hold, thinking
from dialog.audio.vad import LevelVAD
from dialog.audio.wav import read_wav, write_wav

__all__ = [
    "SILENCE_DBFS",
    "Bed",
    "Converter",
    "Heard",
    "LevelNormaliser",
    "LevelVAD",
    "Monitor",
    "Resampler",
    "Sound",
    "StereoRecorder",
    "alaw_decode",
    "alaw_encode",
    "alaw_to_mulaw",
    "amplify",
    "hold",
    "level_dbfs",
    "mix",
    "mulaw_decode",
    "mulaw_encode",
    "mulaw_to_alaw",
    "negotiate",
    "peak",
    "read_wav",
    "thinking",
    "write_wav",
]
