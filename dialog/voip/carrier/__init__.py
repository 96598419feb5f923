"""What gateways to telephone carriers have in common: admission, streams, peers, placed calls, HTTP."""
