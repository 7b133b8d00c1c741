"""What a series of runs of many sizes says together, read from their checkpoints. Torch-free.

runs.py     a series' finished runs, and those that are missing
fit.py      for each FLOP budget the best size, and how it grows with the budget
picture.py  the curves as one SVG
"""
