"""Compute in memory: command families, their channels, and the streams that programs become."""
