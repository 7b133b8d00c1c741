"""Downloads parquet shards from the Hugging Face hub; no cut, crash or liar on the way leaves a wrong file.

client.py     requests: redirects, keys, errors, what is worth another try; the list of files
patience.py   how long to wait before that
part.py       one file while it is incomplete: what is on the disk, and of which version
transfer.py   one file from its first byte to its final name
ledger.py     which shards are known to be right
threads.py    blocking calls that end with their caller
download.py   a dataset: what is missing, in which order, side by side
"""
