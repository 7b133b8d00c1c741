"""Measures: a service from outside, the engine from inside, and what the machine under them could do at most.

serving/        load on any OpenAI-compatible address, torch-free
machine.py      the machine: its peaks, and what others took of it meanwhile
decoding.py     times of the offline engine at so many streams
timing.py       such times, ours or a peer's, and what they are of the machine's peaks
work.py         what a step must read and multiply, by a model's sizes
plain.py        the same model in plain PyTorch, one prompt and its samples: something to compare with
random_model.py a model with random weights whose answers never end early
report.py       the files

Which commands there are, how peers are started and what is printed is the command line's (cli/).
"""
