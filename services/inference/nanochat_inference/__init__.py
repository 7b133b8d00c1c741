"""The inference service: answers POST /v1/generate with the promoted checkpoint.

settings.py       NANOCHAT_INFERENCE_*
app.py            the application: routes, errors, start and stop
routes.py         HTTP in, events out
service.py        one replica: what it serves now, what it accepts
loaded_model.py   a checkpoint in memory, with its cache and its scheduler
model_watcher.py  follows the choice of model and swaps without a pause
batching/         request.py, scheduler.py (torch-free), runner.py (the engine's thread)
metrics.py        what is counted; gpu.py what the GPU is doing
"""
