"""Real distributions for tests: wheels of one module each, installed by pip into an environment of their own."""

import base64
import hashlib
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile


def wheel(folder, name, source, *, entry_points=""):
    """Write the wheel of distribution `name`, whose one module is `source`, and give its path.

    Without `entry_points`, it announces that module as a plugin of its own name.
    """
    module = name.replace("-", "_")
    announced = entry_points or f"[convsdk.plugins]\n{name.removeprefix('convsdk-')} = {module}\n"
    info = f"{module}-1.0.dist-info"
    files = {
        f"{module}.py": textwrap.dedent(source),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": announced,
    }
    rows = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""])
    path = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in files.items():
            archive.writestr(inner, text)
    return path


def _digest(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def environment(folder, wheels):
    """Give the Python of a new environment with `wheels` installed, and everything that the tests themselves see."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    ours = sysconfig.get_path("purelib")
    (own,) = (folder / "lib").glob("python*/site-packages")
    # Read as a site of its own, so that an editable install of ours is found as well.
    (own / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n", encoding="utf-8")
    if wheels:
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
        subprocess.run([*pip, "--disable-pip-version-check", *wheels], check=True)
    return python
