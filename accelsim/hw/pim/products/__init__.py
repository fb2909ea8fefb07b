"""What a product of a tile program is in the banks of a channel, family by family."""
