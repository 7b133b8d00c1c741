"""What runs text that a model wrote, so that it can harm nothing.

calculator.py    one expression, while an answer is written
sandbox.py       whole programs: limits, and what became of them; bubblewrap.py and seccomp.py confine them
examination.py   whether a program passes tests that it cannot tamper with
inside/          what runs in the sandbox beside the program
"""
