"""Speech to speech: models that hear the caller and speak for themselves, behind one interface."""
