"""Voice activity: hears in the caller's audio, on this machine, when speech starts and stops."""
