"""Runs the checks: `tests/deploy` says how it is called."""

import importlib
import pathlib
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

from judge import CHECKS, Skipped, Tree

HERE = pathlib.Path(__file__).parent
NOT_CHECKS = {"__main__", "judge"}


def load():
    for file in sorted(HERE.glob("*.py")):
        if file.stem not in NOT_CHECKS:
            importlib.import_module(file.stem)


def run(name, mistake):
    """What is wrong with the judgment of the tree as it is (`mistake` is None) or with a mistake planted."""
    check, began = CHECKS[name], time.monotonic()
    with Tree.copy() as tree:
        try:
            if mistake is None:
                complaints = list(check.judge(tree))
            else:
                planted = check.mistakes[mistake]
                tree.plant(planted)
                found = list(check.judge(tree))
                caught = any(planted.says in complaint for complaint in found)
                complaints = [] if caught else [f"does not catch {planted}; it says: {found}"]
        except Skipped as skipped:
            return name, mistake, [], str(skipped), time.monotonic() - began
        except Exception as error:  # A check that breaks on a planted mistake has not judged it.
            complaints = [f"{type(error).__name__}: {error}"]
    return name, mistake, complaints, None, time.monotonic() - began


def main(arguments):
    load()
    if arguments == ["--list"]:
        print(*sorted(CHECKS), sep="\n")
        return 0
    wanted = [name for name in CHECKS if not arguments or any(name.startswith(a) for a in arguments)]
    if not wanted:
        print(f"no such check: {' '.join(arguments)}", file=sys.stderr)
        return 2
    failed, skipped, took = {}, {}, {}
    with ProcessPoolExecutor(initializer=load) as pool:
        jobs = [
            pool.submit(run, name, mistake)
            for name in wanted
            for mistake in [None, *range(len(CHECKS[name].mistakes))]
        ]
        for job in as_completed(jobs):
            name, _, complaints, reason, seconds = job.result()
            took[name] = took.get(name, 0) + seconds
            failed.setdefault(name, []).extend(complaints)
            if reason:
                skipped[name] = reason
    for name in wanted:
        mistakes = len(CHECKS[name].mistakes)
        outcome = "FAILED" if failed[name] else "SKIPPED" if name in skipped else "ok"
        print(f"{outcome:7} {name} ({mistakes} mistakes planted, {took[name]:.1f} s)")
        for line in failed[name]:
            print(f"        {line}")
        if name in skipped:
            print(f"        {skipped[name]}")
    return 1 if any(failed.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
