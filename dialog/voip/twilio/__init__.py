"""voip/twilio."""
