"""From text to token ids and back, and from conversations to rows that the model learns.

special.py    the nine special tokens
bpe.py        the byte-level BPE: encoding, its file
merges.py     its training
compression.py   how few tokens texts of several kinds need
chat.py       a conversation as token ids
huggingface.py, chat_template.jinja   both as the libraries of Hugging Face have them
"""
