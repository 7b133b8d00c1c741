"""The model's step on a CPU, in C++: what decoding costs there is reading weights, and a step of hundreds of small
operations spends its time between them.

build.py     finds or compiles the library for this machine's instructions
library.py   its functions, for Python
model.py     a GPT's weights packed for it, float32 or int8, and its cache
*.h api.cpp  the step itself: model.h reads from top to bottom; linear.h and attention.h are what takes the time

gpt.py defines the model; this must equal it (tests/numerics/native). A product's row is summed in one fixed order,
whatever else is in the batch, so a sequence's tokens never depend on its neighbours. Devices other than the CPU, and
machines without a C++ compiler, run gpt.py itself.
"""
