"""How good a model is.

bpb.py                  bits per byte of text
chat.py                 right answers to tasks
core.py core_tasks.py   CORE, an in-context benchmark of 22 tasks
samples.py              what it says, for people
"""
