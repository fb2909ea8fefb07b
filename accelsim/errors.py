"""Faults a user can act on."""


class AccelsimError(Exception):
    """A fault the user can act on; its message is one clear line."""


class CapacityError(AccelsimError):
    """Something does not fit into a memory; the message says what, how much and where."""
