"""A file of customers is read when it changes."""

import json
import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from odingw.customers import CustomerRefresher, Directory, FileSource
from tests.customer_documents import document
from tests.customer_sources import Threads, at_once, new_folder
from tests.process import GatewayProcess


class Volume:
    """A folder of files as Kubernetes mounts a ConfigMap: changed by swapping one link."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "customers.json"
        self._number = 0
        self.path.symlink_to("..data/customers.json")

    def write(self, *names: str) -> None:
        """Give it another content."""
        self._number += 1
        made = self.folder / f"..version_{self._number}"
        made.mkdir()
        (made / "customers.json").write_text(json.dumps([document(name) for name in names]))
        # The same size and time do not hide it.
        os.utime(made / "customers.json", (1_700_000_000, 1_700_000_000))
        link = self.folder / "..data_tmp"
        link.symlink_to(made.name)
        link.replace(self.folder / "..data")


class PollTests(SynchronousTestCase):
    def refresher(self, path: Path, threads: Threads | None = None) -> CustomerRefresher:
        source = FileSource(path, defer_to_thread=threads or at_once)
        return CustomerRefresher(Directory(), source, 300, Clock(), Logger("odingw"))

    def names(self, refresher: CustomerRefresher) -> set[str]:
        self.successResultOf(refresher.poll())
        return set(refresher.directory.customers)

    def test_links_that_are_swapped(self) -> None:
        volume = Volume(new_folder(self))
        volume.write("acme")
        refresher = self.refresher(volume.path)
        self.successResultOf(refresher.start())
        self.addCleanup(refresher.stop)
        self.assertEqual({"acme"}, self.names(refresher))
        for name in ("beta", "gama"):
            volume.write(name)
            self.assertEqual({name}, self.names(refresher))

    def test_it_is_read_once_for_each_change(self) -> None:
        path = new_folder(self) / "customers.json"
        refresher = self.refresher(path)
        self.successResultOf(refresher.start())
        self.addCleanup(refresher.stop)
        for text, failures in (("", 1), ("[", 2)):
            path.unlink(missing_ok=True)
            if text:
                path.write_text(text)
            for _ in range(3):
                self.names(refresher)
            self.assertEqual(failures, refresher.failures)
        path.write_text(json.dumps([document("acme")]))
        self.assertEqual({"acme"}, self.names(refresher))
        path.unlink()
        for _ in range(3):
            self.assertEqual({"acme"}, self.names(refresher))
        self.assertEqual(3, refresher.failures)

    def test_a_file_system_that_hangs(self) -> None:
        path = new_folder(self) / "customers.json"
        path.write_text(json.dumps([document("acme")]))
        threads = Threads()
        refresher = self.refresher(path, threads)
        refresher.start()
        self.addCleanup(refresher.stop)
        self.successResultOf(refresher.poll())
        threads.run()
        looks = [refresher.poll() for _ in range(3)]
        self.assertEqual(1, len(threads.waiting))
        self.assertNoResult(looks[0])
        threads.run()
        for look in looks:
            self.successResultOf(look)


class ProcessTests(SynchronousTestCase):
    def test_links_that_are_swapped(self) -> None:
        volume = Volume(new_folder(self))
        volume.write("acme")
        gateway = GatewayProcess(f'[gateway.customer_source]\nfile = "{volume.path}"\n')
        self.addCleanup(gateway.stop)
        gateway.start().wait_for("1 customers with 0 access keys are let in")
        volume.write("acme", "beta")
        gateway.wait_for("2 customers with 0 access keys are let in")
