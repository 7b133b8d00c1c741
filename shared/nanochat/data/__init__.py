"""From folders of text to batches of token ids.

registry.py   which dataset a name or a path means, and whether it is whole (torch- and pyarrow-free)
shards.py     the documents of its two splits
catalogue.py  public datasets that have a name (catalogue.json)
hub/          their download
disk.py       room for them
builtin.py    datasets made from what the machine already has
packing.py    documents into rows, best fit
sources.py    where a stream of documents stands, and how to get back there
loader.py     resumable batches, prepared ahead of the training step
"""
