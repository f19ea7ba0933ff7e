"""What does an installed plugin add to the start of the program?

Fifty distributions, each as `convsdk new-channel` writes it, are installed into a temporary environment, and none into
another one. In turn, round by round, a process of each is timed:

    none        `load_plugins()` with what this environment has
    many        the same with the fifty besides
    a plugin    what one of the fifty adds, (many - none) / 50
    an import   what a bare `import` of one of them takes, after what they import of convsdk and of others

All are milliseconds of the processor, the median of the rounds; `of none` and `a plugin` are medians of what each round
gave. Wall time would be that of whatever else the machine does.
The adapters' byte code is compiled before, as pip does it.
"""

import argparse
import base64
import hashlib
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median

from convsdk.cli.authoring import written

LOAD = "from convsdk.plugins import load_plugins; p = load_plugins(); assert not p.broken; "
SHARED = "import convsdk.plugins, convsdk.core.texts, hashlib, hmac, httpx, msgspec; from time import process_time; "


def name_of(number: int) -> str:
    """Give the channel type of that plugin."""
    return f"bench_{number:02}"


def wheel(folder: Path, name: str) -> Path:
    """Write the wheel of a channel as `convsdk new-channel` writes it, and give its path."""
    texts = {path.as_posix(): text for path, text in written(name).items()}
    groups = tomllib.loads(texts["pyproject.toml"])["project"]["entry-points"]
    info = f"convsdk_{name}-0.1.0.dist-info"
    files = {path.removeprefix("src/"): text for path, text in texts.items() if path.startswith("src/")} | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: convsdk-{name}\nVersion: 0.1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: benchmark\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "\n".join(
            line for group, points in groups.items() for line in (f"[{group}]", *map(" = ".join, points.items()))
        ),
    }
    rows = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""])
    path = folder / f"convsdk_{name}-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in files.items():
            archive.writestr(inner, text)
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def environment(folder: Path, wheels: list[Path]) -> Path:
    """Give the Python of a new environment with `wheels`, and with everything that this one has."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (own,) = (folder / "lib").glob("python*/site-packages")
    (own / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n", "utf-8")
    if wheels:
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
        subprocess.run([*pip, "--disable-pip-version-check", *wheels], check=True)
    return python


def spent_ms(python: Path, program: str, folder: Path) -> float:
    """Give the processor's time of a process with the program."""
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([python, "-c", program], cwd=folder, check=True)
    after = getrusage(RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def printed(python: Path, program: str, folder: Path) -> str:
    """Give what a process with the program prints."""
    return subprocess.run([python, "-c", program], cwd=folder, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugins", type=int, default=50, help="how many (50)")
    parser.add_argument("--rounds", type=int, default=15, help="how often each is timed (15)")
    options = parser.parse_args()
    names = [name_of(number) for number in range(options.plugins)]
    imports = SHARED + "began = process_time(); import " + ", ".join(f"convsdk_{name}" for name in names)
    imports += "; print((process_time() - began) * 1000)"
    rounds = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        empty = environment(folder / "none", [])
        full = environment(folder / "many", [wheel(folder, name) for name in names])
        for number in range(options.rounds + 1):
            none, many = spent_ms(empty, LOAD, folder), spent_ms(full, LOAD, folder)
            bare = float(printed(full, imports, folder))
            if number:  # the first one warms up
                rounds.append((none, many, many / none, (many - none) / len(names), bare / len(names)))
    none, many, ratio, each, bare = map(median, zip(*rounds, strict=True))
    print(f"{'none':>9}{'many':>9}{'of none':>9}{'a plugin':>10}{'an import':>11}")
    print(f"{none:>9.0f}{many:>9.0f}{ratio:>9.2f}{each:>10.2f}{bare:>11.2f}")


if __name__ == "__main__":
    main()
