"""Checkpoints under $NANOCHAT_HOME/checkpoints/<run>/<stage>/step_000500/.

manifest.py   which ones are complete, found and verified (torch-free)
store.py      saving, loading and pruning them
optimizer_state.py   a file a rank, read by any number of ranks
imports.py    models from elsewhere: published.py, pickled.py (nanochat's own files), huggingface/ (and to there)
"""
