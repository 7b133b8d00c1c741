"""Load on an OpenAI-compatible address, ours or another's, and what its clients saw of it. Torch-free.

client.py    one streamed request, and when its tokens came
prompts.py   what is asked for: random token ids, or words
load.py      many requests: so many at once, or at random times
arrivals.py  such times, with lengths
figures.py   latencies, rates and errors of a run, and who met a target
sweep.py     one load after the other
plot.py      a sweep as a picture
cases.py     a long prompt among streams, a second turn, memory over many requests
"""
