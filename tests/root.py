"""What only root may do, mount a file system or be another user: tests of it are skipped for anybody else, and say so."""

from __future__ import annotations

import os

import pytest

# Nobody else can mount or change a user id, so there is nothing to try; with CI=true a skipped test is a failure all the same.
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this; `sudo make test` runs it, too")
