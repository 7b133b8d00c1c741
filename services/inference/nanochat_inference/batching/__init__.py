"""Many requests in one batch.

request.py    a request on its way, and the events that its client waits for
scheduler.py  which of them run in the next step (counts slots; no tensors)
calls.py      calculator calls beside it, each answered in time
runner.py     the engine's thread: runs the steps, tells the clients
"""
