"""Notes: a small service with a database, for Slipway's demo and tests."""
