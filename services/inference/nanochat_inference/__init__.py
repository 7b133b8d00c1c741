"""The inference service: answers POST /v1/generate with the promoted checkpoint.

In the replica's own process, which loads no torch:
settings.py       NANOCHAT_INFERENCE_*
app.py            the application: routes, errors, start and stop
routes.py         HTTP in, events out (event_stream.py)
service.py        one replica: what it serves now, what it accepts
model_watcher.py  follows the choice of model
pool/             a process a device: choice, supervision, swaps, metrics

In a worker (pool/worker_process.py):
preparation.py    a request becomes sequences
batching/         request.py, scheduler.py (torch-free), calls.py, runner.py (the engine's thread)
loaded_model.py   a checkpoint in memory, with its caches and its scheduler
metrics.py        what is counted; gpu.py what the GPU is doing
"""
