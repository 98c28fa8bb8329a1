"""Says in one line whether this machine can run Carpool; exits 2 where it cannot.

Runs before anything is installed, so it uses the standard library only and syntax old Pythons can read.
"""

import platform
import sys


def complaint():
    """Why this machine is not supported, or None."""
    if sys.version_info < (3, 11):  # noqa: UP036 (this is what finds out)
        version = platform.python_version()
        return "Carpool needs Python 3.11 or newer, this is " + version + ": try make PYTHON=python3.11"
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return "Carpool supports Linux on x86-64, this is " + platform.system() + " on " + platform.machine()
    with open("/proc/cpuinfo") as cpuinfo:
        if "avx2" not in cpuinfo.read():
            return "Carpool needs a processor with AVX2"
    return None


if __name__ == "__main__":
    message = complaint()
    if message:
        sys.stderr.write(message + "\n")
        sys.exit(2)
