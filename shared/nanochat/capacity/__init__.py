"""How many inference replicas hold a latency target: measured curves of one replica, arrivals, and a simulation.

curves.py      what a step costs, by rows and by tokens of context; a JSON file
simulator.py   what would become of each request, step by step
sizing.py      the target, and the fewest replicas that hold it
load.py        the same arrivals against a real gateway; measure.py takes the curves from one

When requests come, and one request's course, are of any load test: bench/serving/.
"""
