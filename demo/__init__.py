"""Real small guests under a libvirt of their own, which cannot meet the system's: for trying the product and for its tests.

``with PrivateLibvirt.start() as lab: lab.add(Guest(name="vm-web-01"))``, or ``python -m demo -- COMMAND``. Uses the
standard library and libvirt-python only, and nothing of ``app``: what it says about a guest is said independently.
"""

from demo.guest import COUNTER_AT, STANDARD_GUESTS, Guest, Shape
from demo.lab import LabError, PrivateLibvirt

__all__ = ["COUNTER_AT", "STANDARD_GUESTS", "Guest", "LabError", "PrivateLibvirt", "Shape"]
