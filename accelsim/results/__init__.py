"""What a run says: one Result with cycles, traffic, energy and bounds, overall and per operator."""
