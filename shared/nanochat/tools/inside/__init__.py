"""What runs inside the sandbox. Each file is handed in as text, never imported here, and stands by itself.

limits.py       bounds the process, which then becomes the program
examination.py  the two sides of an examination: tests that ask, a program that answers
"""
