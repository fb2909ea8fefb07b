"""Gradients of what belongs to sequences of tokens."""

from __future__ import annotations
