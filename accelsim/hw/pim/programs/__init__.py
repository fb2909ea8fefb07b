"""How operators become streams of PIM commands, family by family."""
