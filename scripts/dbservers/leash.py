"""Runs, in its own place, a program that the kernel stops when the parent dies: PARENT SIGNAL UID GID PROGRAM ARGS."""

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
    # A shell makes programs in the background ignore these signals, and the server would inherit that.
    signal.signal(number, signal.SIG_DFL)
if sys.platform == "linux":
    # This comes after setuid, because setuid clears the setting.
    libc.prctl(PR_SET_PDEATHSIG, stop)
    if os.getppid() != parent:
        sys.exit("the parent is gone")
os.execvp(sys.argv[5], sys.argv[5:])
