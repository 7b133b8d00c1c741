"""The `nanochat` command: the embedded stack, the demo, and a client of the REST API. One file a group of commands."""
