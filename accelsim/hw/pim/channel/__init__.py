"""A channel whose banks compute: its state, its compiled clock, its specification, its checker."""
