"""The command line: one module per group of commands, none of which imports numpy at the top.

main        the program: commands, exit codes, errors as one line
options     what several commands take: ARCH, WORKLOAD, --set, --mapper, --memory, --json
terminal    what a command prints, and where; output files are tried before work starts
"""
