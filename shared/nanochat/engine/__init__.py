"""Turns prompts into text with a model, many rows at a time.

params.py     what a caller may ask of sampling, torch-free
sampling.py   draws tokens from logits, and their log probabilities
text.py       bytes of tokens to characters, stop strings
sequence.py   one row's life: prompt, sampled and forced tokens, tool calls, the end
choosing.py   the next token of each row
slots.py      which sequence sits in which slot of the cache
plan.py       how many tokens of each row are computed in a step
backend.py    what computes it: native_backend.py, torch_backend.py
prefix_cache.py  beginnings of prompts that were computed before
step.py       one step of the model over rows in cache slots
generate.py   the offline loop: prompts in, completions out

Which requests run together, cancelling and deadlines are the inference service's.
"""
