"""Tools that a model calls while it writes. There is one: the calculator.

calculator.py   evaluates an expression in a sandbox and prints the result as training data does
"""

from nanochat.tools.calculator import Calculator

__all__ = ["Calculator"]
