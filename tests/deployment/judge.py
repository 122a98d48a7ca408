"""What a check is, the tree that it judges, and the mistakes that prove that it judges.

A check is a function that is given a `Tree` and yields a sentence for each thing that is wrong. It is run once
on the files as they are, where it must find nothing, and once for each of its mistakes, planted in a copy,
where it must find that one.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile
import typing

import yaml

ROOT = pathlib.Path(__file__).parents[2]
# Below target, where a hard link reaches the sources.
COPIES = ROOT / "target" / "deployment"

CHECKS: dict[str, "Check"] = {}


class Skipped(Exception):
    """What the check needs is not here; said aloud, and no failure."""


@dataclasses.dataclass(frozen=True)
class Mistake:
    """In `file`, the first `old` becomes `new` (`old` of "" puts `new` at the end), and the check says `says`.

    `new` of None removes the file.
    """

    file: str
    old: str
    new: str | None
    says: str


@dataclasses.dataclass(frozen=True)
class Check:
    judge: typing.Callable[["Tree"], typing.Iterable[str]]
    mistakes: tuple[Mistake, ...]


def check(*mistakes: Mistake):
    """Declares a check, named by its file and function: `chart.selectors`."""

    def declare(judge):
        assert mistakes, f"{judge.__name__} has no mistake that proves it"
        CHECKS[f"{judge.__module__}.{judge.__name__}"] = Check(judge, mistakes)
        return judge

    return declare


@functools.cache
def sources() -> list[str]:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in names.split("\0") if name and (ROOT / name).is_file()]


class Tree:
    """A copy of the repository that a mistake may be planted in. `cache` is for what is made of it."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.cache: dict = {}

    @classmethod
    @contextlib.contextmanager
    def copy(cls):
        COPIES.mkdir(parents=True, exist_ok=True)
        root = pathlib.Path(tempfile.mkdtemp(dir=COPIES))
        try:
            for name in sources():
                place = root / name
                place.parent.mkdir(parents=True, exist_ok=True)
                # An editor may just be putting another in its place.
                with contextlib.suppress(FileNotFoundError):
                    os.link(ROOT / name, place)
            yield cls(root)
        finally:
            shutil.rmtree(root)

    def plant(self, mistake: Mistake):
        place = self.root / mistake.file
        text = place.read_text()
        assert mistake.old in text, f"{mistake.file} has no {mistake.old!r}: plant another mistake"
        # The file is the repository's own: a new one takes its place.
        place.unlink()
        if mistake.new is not None:
            place.write_text(
                text.replace(mistake.old, mistake.new, 1) if mistake.old else text + mistake.new
            )

    def text(self, name: str) -> str:
        return (self.root / name).read_text()

    def yaml(self, name: str):
        return yaml.safe_load(self.text(name))

    def files(self, pattern: str) -> list[pathlib.Path]:
        return sorted(self.root.glob(pattern))

    def once(self, key, make: typing.Callable[[], typing.Any]):
        """What `make` gives, made once for this tree."""
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]

    def run(self, *command: str, **options) -> subprocess.CompletedProcess:
        """Runs a program in the tree; its exit code is the caller's to judge."""
        return subprocess.run(
            command, cwd=self.root, capture_output=True, text=True, check=False, **options
        )
