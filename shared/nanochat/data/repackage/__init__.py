"""Makes a dataset out of text: JSONL, plain text or parquet, of any size, in bounded memory.

documents.py   the documents of files and folders, one after the other
splitting.py   documents of sane length
shuffle.py     a random order of more than fits into memory
shards.py      parquet shards, the last one for validation
repackage.py   from the one to the other
"""
