"""One run of one program: its figures, or why there are none, and what else the machine did meanwhile."""
import json
import os
import platform
import signal
import subprocess
import tempfile
import time

NOISE = 0.15  # cores of other processes, from which on a run is marked
NOISE_FROM = 0.1  # s; /proc/stat counts in ticks of 10 ms: it says nothing of a shorter run
TICKS = os.sysconf("SC_CLK_TCK")

ABSENT = "does not apply"  # the program has no such thing: neither its fault nor ours


def busy_seconds():
    """CPU time that was used on this machine, or taken from it (steal)."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq, steal = (int(n) for n in file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def end(child):
    try:
        os.killpg(child.pid, signal.SIGKILL)  # a session of its own: the program and its children, nobody else
    except ProcessLookupError:
        pass


def wait(child, limit):
    """-> status, rusage, whether it had to be ended."""
    begun, late = time.monotonic(), False
    try:
        while True:
            pid, status, used = os.wait4(child.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status), used, late
            if not late and time.monotonic() - begun > limit:
                late = True
                end(child)
            time.sleep(0.01)
    except BaseException:  # Ctrl-C goes to us alone
        end(child)
        os.wait4(child.pid, 0)
        raise


def outcome(status, late, limit, text, complaint):
    if late:
        return {"failed": f"hung: ended after {limit:g} s"}
    last = (complaint.splitlines() or [f"status {status}"])[-1][:160]
    if status == 2 or "not supported" in last:
        return {"failed": ABSENT}
    if status:
        return {"failed": last}
    try:
        return {"figures": json.loads(text.strip().splitlines()[-1])["figures"]}
    except (ValueError, IndexError, KeyError, TypeError):
        return {"failed": "printed no result"}


def run_once(command, limit):
    """-> {"figures": {...}} or {"failed": why}; with wall_s, and others_cores in use by others."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        busy, begun = busy_seconds(), time.monotonic()
        try:
            child = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as error:
            return {"failed": f"cannot be started: {error.strerror}", "wall_s": 0, "others_cores": 0}
        status, used, late = wait(child, limit)
        child.returncode = status
        wall = time.monotonic() - begun
        others = max(0.0, busy_seconds() - busy - used.ru_utime - used.ru_stime) / max(wall, 0.01)
        out.seek(0), err.seek(0)
        run = outcome(status, late, limit, out.read().decode(errors="replace"),
                      err.read().decode(errors="replace").strip())
    run["others_cores"] = round(others, 3) if wall > NOISE_FROM else 0.0
    run["wall_s"] = round(wall, 3)
    return run


def is_noisy(run):
    return run.get("others_cores", 0) > NOISE


def machine():
    cpu = "unknown"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    return {"processor": cpu, "cpus": len(os.sched_getaffinity(0)), "kernel": platform.release(),
            "load": os.getloadavg()[0], "date": time.strftime("%Y-%m-%d %H:%M:%S %z")}
