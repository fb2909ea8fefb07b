"""Workload library: Hugging Face configs, SCALE-Sim topologies and YAML operator graphs."""
