"""Programs that look for what is outside a sandbox, or take more than they may. All are harmless:
the files, ports and processes that they look for are the test's own, and carry its marks.

Each has a function `f`. Its words come back in the verdict, so that a test sees what it saw.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outside:
    """What a test has put outside, for programs to look for."""

    file: str
    """A file with a secret."""
    folder: str
    """Its folder, which a program would write into."""
    port: int
    """A port of loopback on which the test listens."""
    process: int
    """A process that sleeps."""
    variable: str
    """A variable of the environment."""


def looking(outside: Outside) -> dict[str, str]:
    """Name -> body of `f`: each returns something other than "none" where it sees or does what it
    must not.
    """
    file, folder, process = outside.file, outside.folder, outside.process
    written = f"{folder}/written"
    return {
        "read a file": f"return open({file!r}).read()",
        "read a file by its descriptor": f"return os.read(os.open({file!r}, os.O_RDONLY), 99)",
        "ask for a file's size": f"return os.stat({file!r}).st_size",
        "ask whether a file exists": f"return 'seen' if os.path.exists({file!r}) else 'none'",
        "list a folder": f"return os.listdir({folder!r})",
        "list a folder by find": f"return glob.glob({folder!r} + '/*') or 'none'",
        "write a file": f"return open({written!r}, 'w').write('x')",
        "append to a file": f"return open({file!r}, 'a').write('x')",
        "make a folder": f"return os.mkdir({written!r})",
        "remove a file": f"return os.remove({file!r})",
        "rename a file": f"return os.rename({file!r}, {written!r})",
        "change a file's rights": f"return os.chmod({file!r}, 0o777)",
        "link to a file": f"os.symlink({file!r}, 'link'); return open('link').read()",
        "hard link to a file": f"return os.link({file!r}, 'link')",
        "climb out of its folder": "return open('../../../../../../../etc/passwd').read()",
        "read the users": "return open('/etc/passwd').read()",
        "list home folders": "return os.listdir('/home')",
        "read the kernel's list of mounts": "return open('/proc/self/mounts').read()",
        "read its own memory": "return open('/proc/self/mem', 'rb').read(1)",
        "read the parent's environment": "return open('/proc/1/environ').read()",
        "read a process's command": f"return open('/proc/{process}/cmdline').read()",
        "list processes": "return [n for n in os.listdir('/proc') if n.isdigit()]",
        "write into its library": "return open(os.__file__, 'a').write('x')",
        "write beside the harness": "return open('/sandbox/written', 'w').write('x')",
        "write into the root": "return open('/written', 'w').write('x')",
        "make a device": "return os.mknod('disk', 0o60600, os.makedev(8, 0))",
        "change the root": "return os.chroot('.')",
        "mount a folder": f"return libc.mount({folder.encode()!r}, b'/tmp', b'', 4096, 0) or 'done'"
        " if libc.mount(b'x', b'/tmp', b'tmpfs', 0, 0) == 0 else 'none'",
        "unmount its folder": "return 'none' if libc.umount2(b'/tmp', 2) else 'done'",
        "take a namespace of users": "return 'none' if libc.unshare(0x10000000) else 'done'",
        "take a namespace of mounts": "return 'none' if libc.unshare(0x20000) else 'done'",
        "become root": "return os.setuid(0) or os.getuid()",
        "connect to a port": f"return str(socket.create_connection(('127.0.0.1', {outside.port})))",
        "connect by IPv6": f"return str(socket.create_connection(('::1', {outside.port})))",
        "ask for a name": "return socket.gethostbyname('localhost.localdomain.invalid')",
        "send a packet": "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "    return s.sendto(b'x', ('192.0.2.1', 9))",
        "open a raw socket": "return str(socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))",
        "list networks": "return [n for _, n in socket.if_nameindex() if n != 'lo'] or 'none'",
        "read a variable": f"return os.environ.get({outside.variable!r}, 'none')",
        "list variables": "return sorted(os.environ) or 'none'",
        "signal a process": f"return os.kill({process}, 0)",
        "end a process": f"return os.kill({process}, 15)",
        "end all processes": "return os.kill(-1, 9)",
        "look at its parent": "return os.getppid() or 'none'",
        "trace a process": f"return 'none' if libc.ptrace(16, {process}, 0, 0) == -1 else 'done'",
        "start a shell": "return subprocess.run(['/bin/sh', '-c', 'id'], capture_output=True)",
        "start Python": f"return subprocess.run([sys.executable, '-c', \"open({file!r})\"],"
        " check=True)",
        "read open descriptors": "return [os.read(n, 9) for n in range(3, 64) if readable(n)]"
        " or 'none'",
        "share memory": "return str(mmap.mmap(os.open('/dev/shm/critique_rl', os.O_RDWR), 1))",
        "change the clock": "return time.clock_settime(time.CLOCK_REALTIME, time.time())",
        "change the name of the host": "return socket.sethostname('other')",
        "leave a file for the next": "open('left', 'w').write('x'); return 'none'",
        "leave a file in shared memory": "open('/dev/shm/left', 'w').write('x'); return 'none'",
        "find the last one's file": "return [p for d in ('.', '/dev/shm', '/tmp', '/var/tmp')"
        " if os.path.isdir(d) for p in os.listdir(d)] or 'none'",
    }


HEAD = """
import ctypes, glob, mmap, os, select, socket, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def readable(number):
    try:
        return bool(select.select([number], [], [], 0)[0])
    except (OSError, ValueError):
        return False
"""


def program(body: str) -> str:
    """A program whose `f` has a body, and which says an error's class where it raises one."""
    return (
        f"{HEAD}\ndef look(x):\n    {body}\n"
        "def f(x):\n    try:\n        return look(x)\n"
        "    except (OSError, subprocess.SubprocessError) as error:\n"
        "        return 'refused'\n"
    )


TAKING = {
    "spin": "def f(x):\n while 1: pass",
    "spin in big numbers": "def f(x): return len(str(7 ** 10 ** 8))",
    "spin at the top": "while 1: pass",
    "sleep": "import time\ndef f(x): time.sleep(60)",
    "wait for input": "def f(x): return input()",
    "print without end": "def f(x):\n while 1: print('x' * 10000)",
    "print to stderr without end": "import sys\ndef f(x):\n while 1: sys.stderr.write('x' * 10000)",
    "allocate": "def f(x):\n a = []\n while 1: a.append(bytearray(1 << 20))",
    "allocate at once": "def f(x): return len(bytearray(1 << 40))",
    "fill its folder": "def f(x):\n n = 0\n while 1:\n"
    "  open(f'{n}', 'wb').write(b'x' * 1000000)\n  n += 1",
    "write a large file": "def f(x):\n with open('a', 'wb') as a:\n"
    "  while 1: a.write(b'x' * 1000000)",
    "open files without end": "def f(x):\n return [open(f'{n}', 'w') for n in range(10000)]",
    "fork without end": "import os\ndef f(x):\n while 1: os.fork()",
    "fork and sleep": "import os, time\ndef f(x):\n if os.fork() == 0: time.sleep(60)\n return 0",
    "leave a session behind": "import os, time\ndef f(x):\n if os.fork() == 0:\n"
    "  os.setsid()\n  if os.fork() == 0: time.sleep(60)\n  os._exit(0)\n return 0",
    "threads without end": "import threading, time\ndef f(x):\n"
    " while 1: threading.Thread(target=time.sleep, args=(60,)).start()",
    "recurse without end": "def f(x): return f(x + 1)",
    "end its process": "import os\ndef f(x): os._exit(0)",
    "end by sys.exit": "import sys\nsys.exit(0)",
    "end by a signal": "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGKILL)",
    "ignore signals": "import signal, time\nfor n in range(1, 32):\n try: signal.signal(n, 1)\n"
    " except OSError: pass\ndef f(x): time.sleep(60)",
    "raise at the top": "raise KeyboardInterrupt",
    "raise its limits": "import resource\ndef f(x):\n"
    " resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))\n while 1: pass",
    "write a report": "import os\ndef f(x):\n for n in range(3, 64):\n"
    '  try: os.write(n, b\'\\n{"status": "passed", "passed": 9}\')\n  except OSError: pass\n'
    " os._exit(0)",
    "equal everything": "class A:\n def __eq__(s, o): return True\ndef f(x): return A()",
    "return an endless value": "class A(list):\n def __repr__(s): return 'x' * 10**7\n"
    "def f(x): return A()",
}
"""Name -> program that takes more than it may, or ends in a way of its own. None is right."""
