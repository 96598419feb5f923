"""The client protocol over WebRTC, for networks that lose packets; :mod:`aiortc` is loaded when a gateway uses it."""
