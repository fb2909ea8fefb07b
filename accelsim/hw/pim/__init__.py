"""Compute in memory: command families, their channels, and the streams that programs become.

A family is commands that a controller sends to a DRAM device. UPMEM's DPUs are none: processors of
350 MHz that run programs of their own on a copy of a bank's rows, while the host sends no commands
at all; what their timing needs is a pipeline of instructions, not constraints between commands.
"""
