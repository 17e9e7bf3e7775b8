"""CARAFE's reassembly: its definition, and the fast ways to compute it on CPU and GPU."""

from models.carafe.operator import reassemble

__all__ = ["reassemble"]
