"""A restaurant's front desk that runs without any account, and a caller for it."""
