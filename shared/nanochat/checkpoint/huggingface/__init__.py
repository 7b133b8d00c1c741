"""Folders of Hugging Face's layout: config.json, model.safetensors, tokenizer.json, and what transformers reads beside.

layouts.py    our names and constants in transformers' NanoChat class, and in ours
exporter.py   a checkpoint as such a folder
importer.py   and back
exported/     the model class that is copied into a folder where transformers has none
"""
