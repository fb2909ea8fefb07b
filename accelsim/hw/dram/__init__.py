"""DRAM: devices as data, their timing constraints, and what issues or checks commands."""
