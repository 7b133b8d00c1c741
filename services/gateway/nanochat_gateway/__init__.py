"""The public door: pages, the OpenAI API over inference, and the training API passed on to the trainer.

Knows no tensors, no tokenizer and no database; it holds no state besides open connections.
"""
