"""A process a device: what the replica's own process knows of its workers, and the workers.

devices.py         which devices there are, and who gets which
frames.py          what the two sides say to each other, and how that lies on the wire
flight.py          a request on its way, as the replica's process sees it
estimate.py        how many tokens a request will take, before it has been tokenized
choice.py          whose turn it is: least loaded first, a known beginning where that costs nothing
worker.py          one worker: its process, its channel, what it has to do
supervisor.py      starts it, notices its end and its silence, starts it again
pool.py            all of them: admission, dispatch, loss and retry, swaps
totals.py          the workers' metrics added up, across restarts
worker_process.py  the worker's side: python -m nanochat_inference.pool.worker_process
outbox.py          what it has to say, a frame a step
usage.py           what its process uses

Only worker_process.py, and what it alone imports, loads torch.
"""
