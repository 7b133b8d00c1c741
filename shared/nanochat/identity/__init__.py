"""Conversations about who a model is, written by any OpenAI-compatible endpoint from a persona.

drawing.py     what each conversation is to be like: topic, tone, turns, drawn from a seed
checks.py      what is refused: wrong roles, placeholders, another model's name, what was there before
generator.py   asks the endpoint, many at once, and appends what passes to a JSONL file
"""
