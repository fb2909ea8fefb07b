"""Systems of several parts over many steps: a memory and an ASIC, token after token."""
