"""Benchmarks: protocols as data, systems under test, scores, and what is written of them."""

from __future__ import annotations

from .protocols import PROTOCOLS, Protocol

__all__ = ["PROTOCOLS", "Protocol"]
