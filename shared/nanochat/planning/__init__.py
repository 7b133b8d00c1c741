"""What a run will be, worked out before it starts and without torch.

pretraining.py  a config's model and horizon, as recipe, trainer and command line all see them
memory.py       bytes that a rank will hold
stages.py       the stages of a job or pipeline, with tokens, steps and FLOPs
cost.py         what FLOPs take in time and money on named hardware
"""
