"""One flush to the disk for all that wait for one."""

import asyncio
import threading
import time

from tunesmith.dialogue.flushes import Flushes


class Disk:
    """A flush that ends when `go` is set; what was written when it began is on the disk then."""

    def __init__(self):
        self.written, self.on_disk, self.flushes = 0, 0, 0
        self.go = threading.Event()

    def flush(self):
        begun_with = self.written
        self.flushes += 1
        self.go.wait(5)
        self.on_disk = max(self.on_disk, begun_with)


def test_many_share_a_flush_and_each_is_on_the_disk_when_it_goes_on():
    disk = Disk()
    flushed, early = Flushes(disk.flush), []

    async def call():
        disk.written += 1
        mine = disk.written
        await flushed()
        early.extend([mine] if disk.on_disk < mine else [])

    async def main():
        first = [asyncio.create_task(call()) for _ in range(50)]
        while not disk.flushes:
            await asyncio.sleep(0)
        second = [asyncio.create_task(call()) for _ in range(50)]  # while the first flush is under way
        await asyncio.sleep(0)
        disk.go.set()
        await asyncio.gather(*first, *second)

    asyncio.run(main())
    assert early == []
    assert disk.flushes == 2


def test_a_flush_that_fails_fails_those_who_wait_for_it_and_no_other():
    fails = [OSError("full"), None]

    def flush():
        time.sleep(0)
        if error := fails.pop(0):
            raise error

    async def main():
        flushed = Flushes(flush)
        results = await asyncio.gather(flushed(), flushed(), return_exceptions=True)
        await flushed()
        return results

    assert [type(each) for each in asyncio.run(main())] == [OSError, OSError]
    assert fails == []
