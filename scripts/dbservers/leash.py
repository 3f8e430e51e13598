"""Becomes another program that the kernel stops when its parent dies: PARENT SIGNAL UID GID PROGRAM ARGS."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

parent, stop, uid, gid = (int(word) for word in sys.argv[1:5])
libc = ctypes.CDLL(None)

if uid >= 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    # A shell ignores these for what it puts in the background, and that would pass to the server.
    signal.signal(number, signal.SIG_DFL)
if sys.platform == "linux":
    # After setuid, which clears the setting.
    libc.prctl(PR_SET_PDEATHSIG, stop)
    if os.getppid() != parent:
        sys.exit("the parent is gone")
os.execvp(sys.argv[5], sys.argv[5:])
