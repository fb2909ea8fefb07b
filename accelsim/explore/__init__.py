"""Many designs instead of one: sweeps over parameters, on all cores, resumable."""
