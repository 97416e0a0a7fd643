"""What the contestants of `futures` do, in Python: with asyncio or gevent. Prints the same numbers."""

import resource
import statistics
import sys
import time

with_what, case, count, path, alive, limit = sys.argv[1:]
count, alive, limit = int(count), float(alive), float(limit)
try:
    if with_what == "gevent":
        import gevent
        from gevent import subprocess
    else:
        import asyncio
        from asyncio import subprocess
except ImportError:
    sys.exit(77)


def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def check(output):
    assert output == b"hello\n", output


# ---- asyncio ----


async def asyncio_in_turn():
    walls = []
    for _ in range(count):
        start = time.perf_counter()
        child = await asyncio.create_subprocess_exec(path)
        assert await child.wait() == 0
        walls.append((time.perf_counter() - start) * 1e6)
    return walls


async def asyncio_alive():
    async def one():
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        child = await asyncio.create_subprocess_exec(path, **pipes)
        check((await child.communicate())[0])
        return -1

    return await asyncio.gather(*(one() for _ in range(count)))


async def asyncio_communicate():
    child = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    output, _ = await child.communicate(b"x" * (count << 20))
    assert len(output) == count << 20
    return [-1]


async def asyncio_limits():
    async def one():
        child = await asyncio.create_subprocess_exec(path, stdout=subprocess.DEVNULL)
        start = time.perf_counter()
        try:
            await asyncio.wait_for(child.wait(), limit)
        except asyncio.TimeoutError:
            late = (time.perf_counter() - start - limit) * 1e6
        child.kill()
        await child.wait()
        return late

    return await asyncio.gather(*(one() for _ in range(count)))


# ---- gevent ----


def gevent_in_turn():
    walls = []
    for _ in range(count):
        start = time.perf_counter()
        assert subprocess.Popen([path]).wait() == 0
        walls.append((time.perf_counter() - start) * 1e6)
    return walls


def gevent_alive():
    def one():
        child = subprocess.Popen(
            [path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        check(child.communicate()[0])
        return -1

    return [task.get() for task in gevent.joinall([gevent.spawn(one) for _ in range(count)])]


def gevent_communicate():
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    output, _ = child.communicate(b"x" * (count << 20))
    assert len(output) == count << 20
    return [-1]


def gevent_limits():
    def one():
        child = subprocess.Popen([path], stdout=subprocess.DEVNULL)
        start = time.perf_counter()
        try:
            child.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            late = (time.perf_counter() - start - limit) * 1e6
        child.kill()
        child.wait()
        return late

    return [task.get() for task in gevent.joinall([gevent.spawn(one) for _ in range(count)])]


work = globals()[with_what + "_" + case.replace(" ", "_")]
memory, cpu_before, start = status("VmRSS:"), cpu(), time.perf_counter()
numbers = work() if with_what == "gevent" else asyncio.run(work())
wall = time.perf_counter() - start - (alive if case == "alive" else 0)
print(wall * 1e3, (cpu() - cpu_before) * 1e3, status("VmHWM:") - memory, status("Threads:"), -1, statistics.median(numbers))
