"""What a model is trained on and asked: conversations, some with an answer that can be checked.

base.py          a task, a conversation, slicing
spelling.py counting.py arithmetic.py smalltalk.py    generated, from words.py and phrasing.py
dialogue.py      several exchanges of those in one conversation
custom_json.py   conversations from files
humaneval.py     Python functions, judged by running tests
rows.py          the data of published benchmarks
mixture.py       several tasks as one
registry.py      tasks by name
"""
