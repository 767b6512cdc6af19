"""A capture's FIFO: nobody takes it away while its capture lives, and it goes whole when it does not."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

from app.fifo import Rendezvous, drop_abandoned_fifos, make_fifo


def test_fifo_is_made_while_others_look_for_abandoned_ones(tmp_path: Path) -> None:
    where, tidied = Rendezvous(tmp_path, None), threading.Event()

    def tidy() -> None:
        while not tidied.is_set():
            drop_abandoned_fifos(where)

    tidier = threading.Thread(target=tidy)
    tidier.start()
    try:
        for number in range(300):
            fifo = make_fifo(where, str(number))
            assert stat.S_ISFIFO(fifo.path.stat().st_mode)
            fifo.drop(settled=True)
    finally:
        tidied.set()
        tidier.join()
    assert list(tmp_path.iterdir()) == []


def test_only_the_fifo_of_a_dead_capture_is_dropped(tmp_path: Path) -> None:
    where = Rendezvous(tmp_path, None)
    living, dead = make_fifo(where, "living"), make_fifo(where, "dead")
    os.close(dead.lock)  # as the end of its process would
    assert drop_abandoned_fifos(where) == [dead.folder]
    assert [path.name for path in tmp_path.iterdir()] == [living.folder.name]
    living.drop(settled=True)
