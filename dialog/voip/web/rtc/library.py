"""What is used of ``aiortc`` and ``av``, or the word for what is missing."""

from __future__ import annotations

from dialog.errors import MissingExtra

try:
    from aiortc import (
        RTCBundlePolicy,
        RTCConfiguration,
        RTCDataChannel,
        RTCIceServer,
        RTCPeerConnection,
        RTCRtpReceiver,
        RTCRtpSender,
        RTCSessionDescription,
    )
    from aiortc.jitterbuffer import JitterFrame
    from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
    from av import AudioFrame, AudioResampler, CodecContext
    from av.audio.codeccontext import AudioCodecContext
    from av.packet import Packet
except ModuleNotFoundError as exc:
    raise MissingExtra("aiortc", "webrtc") from exc

__all__ = [
    "AudioCodecContext",
    "AudioFrame",
    "AudioResampler",
    "CodecContext",
    "JitterFrame",
    "MediaStreamError",
    "MediaStreamTrack",
    "Packet",
    "RTCBundlePolicy",
    "RTCConfiguration",
    "RTCDataChannel",
    "RTCIceServer",
    "RTCPeerConnection",
    "RTCRtpReceiver",
    "RTCRtpSender",
    "RTCSessionDescription",
]
