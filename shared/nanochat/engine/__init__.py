"""Turns prompts into text with a model, many rows at a time.

params.py     what a caller may ask of sampling, torch-free
sampling.py   draws tokens from logits, and their log probabilities
text.py       bytes of tokens to characters, stop strings
sequence.py   one row's life: prompt, sampled and forced tokens, tool calls, the end
slots.py      which sequence sits in which slot of the cache
step.py       one step of the model over rows in cache slots
generate.py   the offline loop: prompts in, completions out

Which requests run together, cancelling and deadlines are the inference service's.
"""
