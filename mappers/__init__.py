"""Mapping strategies, one per file. Each registers itself with ``accelsim.mapping.registry``."""
