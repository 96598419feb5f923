"""Audio: formats, codecs, conversion, levels, files."""
