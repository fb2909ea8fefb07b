"""Library of accelerators, one YAML file each; ``accelsim show NAME`` draws one."""
