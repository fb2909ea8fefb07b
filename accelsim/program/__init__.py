"""The tile program: per-unit instruction streams over explicit buffers, addresses and dependencies.

Builder ──▶ Program ──▶ verify ──▶ engine (a clock)
                              └──▶ functional (numbers)
"""
