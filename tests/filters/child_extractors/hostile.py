"""Extractors that raise, crash, hang, sleep, print and grow: what the child process has to stand."""

import ctypes
import logging
import os
import sys
import time

_kept = []


def good(html: str) -> str:
    return html.upper()


def raises(html: str) -> str:
    raise KeyError("no such thing")


def exits(html: str) -> str:
    sys.exit("bye")


def crashes(html: str) -> str:
    return ctypes.string_at(0)


def spins(html: str) -> str:
    while True:
        pass


def spins_in_c(html: str) -> str:
    return str(sum(range(10**12)))


def sleeps(html: str) -> str:
    time.sleep(3600)
    return ""


def prints(html: str) -> str:
    print("to standard output")
    os.write(1, b"and to its file descriptor")
    logging.getLogger("x").error("and to a log")
    sys.stdin.read()
    return "printed"


def grows(html: str) -> str:
    _kept.append(bytearray(int(html)))
    _kept[-1][::4096] = b"x" * len(_kept[-1][::4096])
    return str(os.getpid())


def pid(html: str) -> str:
    return str(os.getpid())


def none(html: str) -> None:
    return None


def surrogates(html: str) -> str:
    return "a\ud800b\0c"
