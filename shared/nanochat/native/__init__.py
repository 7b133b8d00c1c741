"""C++ for the CPU: the model's step when it answers, and parts of a training step.

What decoding costs is reading weights, and a step of hundreds of small operations spends its time between them.

build.py     finds or compiles the libraries for this machine's instructions
library.py   their functions, for Python
*.h api.cpp  the step itself: model.h reads from top to bottom; linear.h and attention.h are what takes the time
training*    parts of a training step, in a library of their own: attention and the head's losses, with gradients

gpt.py defines the model; the step, packed by engine/packed_model.py, must equal it (tests/numerics/native). A product's
row is summed in one fixed order, whatever else is in the batch, so a sequence's tokens never depend on its neighbours.
Devices other than the CPU, and machines without a C++ compiler, run gpt.py itself.
"""
