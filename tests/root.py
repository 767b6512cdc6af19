"""What only root may do on a host, such as mounting a file system: tests of it are skipped for anybody else, and said so."""

from __future__ import annotations

import os

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system; `sudo make test` runs this too")
