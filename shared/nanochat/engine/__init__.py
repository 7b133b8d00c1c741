"""Turns prompts into text with a model, many rows at a time.

params.py            what a caller may ask of sampling, torch-free
penalties.py         logit_bias and penalties for repeating
grammar.py           response_format: which tokens may come next
grammar_compiler.py  response_format to a grammar, in a process of its own (grammar_process.py)
json_schemas.py      what of JSON Schema no grammar can say
filters.py           top_k, top_p and min_p
sampling.py          draws tokens from logits, and their log probabilities
choosing.py          all of these for one batch: the end of a step
text.py              bytes of tokens to characters, stop strings
sequence.py          one row's life: prompt, sampled and forced tokens, tool calls, the end
slots.py             which sequence sits in which slot of the cache
plan.py              how many tokens of each row are computed in a step; pace.py how many of all
backend.py           what computes it: native_backend.py, torch_backend.py
decode_graphs.py     decoding on CUDA as a recording
prefix_cache.py      beginnings of prompts that were computed before
quality.py           what int8 weights cost a model
step.py              one step of the model over rows in cache slots
generate.py          the offline loop: prompts in, completions out

Which requests run together, cancelling and deadlines are the inference service's.
"""
