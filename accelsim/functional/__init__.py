"""The numbers: executes the tile program that was timed, on bytes, and judges every operator.

    seeded values ──▶ memory ──▶ execute (program order or the clock's) ──▶ captures ──▶ check

What an operator should have given is ``reference``; how near it must be is ``tolerance``, derived
from how the program computes it (``lowering``).
"""
