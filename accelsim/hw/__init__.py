"""Hardware blocks. One room per block: its parameters, its cycles, its energy, its arithmetic."""
