"""Number formats, rounding and accumulators: what a datapath does to a value."""
