"""voip."""
