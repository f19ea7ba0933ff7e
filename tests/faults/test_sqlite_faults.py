"""Real faults under a SQLite file. This file is the tests and, run as a script, the program that meets a fault.

A fault is made by another process wherever it can: closing a second descriptor of the file here would let go of the
locks that SQLite holds on it (https://www.sqlite.org/howtocorrupt.html).
"""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from convsdk.core.events import MessageReceived
from convsdk.core.model import Outcome, Trust
from convsdk.errors import ConfigError, ConvsdkError, TransientError
from convsdk.hub import Hub
from convsdk.store import sqlite
from convsdk.testing.builders import NOON, hint

pytestmark = pytest.mark.once  # a disk's doing

KNOWN = 200


@pytest.fixture
def path(tmp_path):
    """Give where a store can be made."""
    return str(tmp_path / "shop.db")


def message(number, text="Hello"):
    """Build the message of that number, of one of fifty people."""
    said = hint("", email=f"p{number % 50}@shop.example", trust=Trust.CHANNEL)
    return MessageReceived(external_id=f"m{number}", hint=said, at=NOON, text=text)


def receive(hub, number, text="Hello"):
    """Take one message in, and give what was decided."""
    return hub.receive("shop", [message(number, text)])[0].decision.outcome


def fill(path, messages=KNOWN):
    """Make a store with so many messages in it, all in the file itself and none in its log."""
    with closing(Hub(f"sqlite:///{path}")) as hub:
        hub.receive("shop", [message(number, "x" * 500) for number in range(messages)])


def kept(path):
    """Give how many messages a new process finds in the file, once it is found sound."""
    code = "import sqlite3, sys\nfile = sqlite3.connect(sys.argv[1])\n"
    code += "assert file.execute('pragma integrity_check').fetchall() == [('ok',)]\n"
    code += "print(file.execute('select count(*) from message').fetchone()[0])"
    return int(subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True).stdout)


def by_another(code, *arguments):
    """Do something to files in another process."""
    subprocess.run([sys.executable, "-c", f"import sys; from pathlib import Path\n{code}", *arguments], check=True)


def run_as_program(name, *arguments, wrapped=()):
    """Run a function of this file as a program, and give the lines that it prints."""
    command = [*wrapped, sys.executable, __file__, name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def meet(hub, number, text="Hello"):
    """Take messages in until there is an error; give it, and the number of the first message that is not kept."""
    while True:
        try:
            receive(hub, number, text)
        except ConvsdkError as error:
            return error, number
        number += 1


# -- no room


def meet_full_disk(folder):
    """Fill a disk of one megabyte, make room, and go on: what the program in the two tests below does."""
    path, ballast = Path(folder, "shop.db"), Path(folder, "ballast")
    ballast.write_bytes(bytes(200_000))
    hub = Hub(f"sqlite:///{path}")
    error, number = meet(hub, 0, "x" * 2000)
    again, _ = meet(hub, number, "x" * 2000)
    contacts = len(list(hub.contacts(limit=100)))
    ballast.unlink()
    outcome = receive(hub, number)
    hub.close()
    print(type(error).__name__, type(again).__name__, error.retry_after_s, error)  # noqa: T201  (what the test reads)
    print(number + 1, kept(str(path)), contacts, outcome.value)  # noqa: T201  (as above)


def is_mountable():
    """Say whether a disk can be mounted here, in a name space of our own."""
    unshare = shutil.which("unshare")
    command = [unshare or "false", "-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "disk", "/mnt"]
    return unshare is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(
    not is_mountable(), reason="NOT TESTED: a real full disk, which needs unshare and name spaces for users"
)
def test_full_disk_is_transient(tmp_path):
    """On a disk without room each message is refused and none half kept; with room again the same hub goes on."""
    mounted = f'mount -t tmpfs -o size=1m disk {tmp_path} && exec "$@"'

    told, found = run_as_program("meet_full_disk", tmp_path, wrapped=("unshare", "-rm", "sh", "-c", mounted, "mounted"))

    assert told.startswith("TransientError TransientError 10 ")
    assert "has no room: free space on its disk, and try again" in told
    expected, stored, contacts, outcome = found.split()
    assert stored == expected
    assert int(contacts) > 0
    assert outcome in {"created", "attached"}


def test_full_file_is_transient(path):
    """SQLite's own answer to a full disk, made by a bound on the pages: nothing is half kept, and it goes on."""
    with closing(Hub(f"sqlite:///{path}")) as hub:
        receive(hub, 0)
        pages = hub.store._one("pragma page_count", ())[0] + 5  # noqa: SLF001  (no setting of the product)
        hub.store._one(f"pragma max_page_count = {pages}", ())  # noqa: SLF001  (as above)
        error, number = meet(hub, 1, "x" * 2000)
        with pytest.raises(TransientError, match="has no room") as full:
            hub.receive("shop", [message(number), message(number + 1, "x" * 100_000)])
        before = kept(path)
        hub.store._one("pragma max_page_count = 100000", ())  # noqa: SLF001  (as above)

        outcome = receive(hub, number)

    assert isinstance(error, TransientError)
    assert full.value.retry_after_s == 10
    assert before == number
    assert outcome in {Outcome.CREATED, Outcome.ATTACHED}
    assert kept(path) == number + 1


def meet_limit(path):
    """Write until the operating system refuses to let the file grow, then let it."""
    import resource  # noqa: PLC0415  (there is none on Windows)

    hub = Hub(f"sqlite:///{path}")
    receive(hub, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{path}-wal").stat().st_size + 100_000, hard))
    error, number = meet(hub, 1, "x" * 2000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    outcome = receive(hub, number)
    hub.close()
    print(type(error).__name__, error)  # noqa: T201  (what the test reads)
    print(number + 1, kept(str(path)), outcome.value)  # noqa: T201  (as above)


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: Windows has no limit on the size of a file")
def test_write_that_the_system_refuses_is_transient(path):
    """A failing write is told with what to look at; the message before it stands, and the same hub goes on."""
    told, found = run_as_program("meet_limit", path)

    assert told.startswith("TransientError ")
    assert "look at its disk (faults, space, quota), and try again" in told
    expected, stored, outcome = found.split()
    assert stored == expected
    assert outcome in {"created", "attached"}


# -- no permission


def meet_refusal(folder, mode):
    """Work on a file, or in a folder, that this user may not write, and then may."""
    path = Path(folder, "shop.db")
    fill(path)
    path.chmod(0o444 if mode == "file" else 0o666)
    # With the log files that it can make there, the store opens, and is refused when it writes.
    Path(folder).chmod(0o777 if mode == "file" else 0o555)
    owner = os.fork()
    if owner == 0:
        if os.getuid() == 0:  # to whom nothing is forbidden
            os.setgid(65534)
            os.setuid(65534)
        try:
            error, _ = meet(Hub(f"sqlite:///{path}"), KNOWN)
        except ConvsdkError as refused:
            error = refused
        print(type(error).__name__, error, flush=True)  # noqa: T201  (what the test reads)
        os._exit(0)
    os.waitpid(owner, 0)
    Path(folder).chmod(0o755)
    path.chmod(0o644)
    for left in Path(folder).glob("shop.db-*"):
        left.unlink()
    with closing(Hub(f"sqlite:///{path}")) as hub:
        print(receive(hub, KNOWN).value)  # noqa: T201  (as above)
    print(kept(str(path)))  # noqa: T201  (as above)


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: Windows has other permissions")
@pytest.mark.parametrize(
    ("mode", "remedy"),
    [
        ("file", "cannot be written to: let this user write the file and its folder, and start again"),
        ("folder", "give the path of a writable file"),
    ],
)
def test_file_that_may_not_be_written_is_an_error_of_the_configuration(mode, remedy):
    """Who may not write the file or make its log is told what to permit, and everything is still there."""
    # Not pytest's folder: another user may not enter that.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)

        told, outcome, found = run_as_program("meet_refusal", folder, mode)

    assert told.startswith("ConfigError ")
    assert remedy in told
    assert (outcome, found) == ("attached", str(KNOWN + 1))


# -- another process


@contextmanager
def writing(path):
    """Let another process hold the write lock of the file."""
    code = "import sqlite3, sys\nfile = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    code += "file.execute('begin immediate')\nprint('held', flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", code, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield
        process.stdin.close()
        process.wait()


def test_lock_that_is_held_too_long_is_transient(path, monkeypatch):
    """Who waits longer than the busy timeout is told to try again; readers wait for nobody, and the hub goes on."""
    fill(path)
    monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_S", 0.05)
    with closing(Hub(f"sqlite:///{path}")) as hub:
        with writing(path):
            with pytest.raises(TransientError, match="is busy with another writer: try again") as busy:
                receive(hub, KNOWN)
            contacts = list(hub.contacts(limit=100))

        outcome = receive(hub, KNOWN)

    assert busy.value.retry_after_s == 1
    assert len(contacts) == 50
    assert outcome is Outcome.ATTACHED
    assert kept(path) == KNOWN + 1


def test_lock_that_is_let_go_in_time_is_waited_for(path):
    """A writer that ends within the busy timeout costs nothing but time."""
    fill(path)
    code = "import sqlite3, sys, time\nfile = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    code += "file.execute('begin immediate')\nprint('held', flush=True)\ntime.sleep(0.3)\nfile.execute('rollback')"
    with closing(Hub(f"sqlite:///{path}")) as hub:
        process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
        process.stdout.readline()

        outcome = receive(hub, KNOWN)
        process.communicate()

    assert outcome is Outcome.ATTACHED


# -- a damaged file


DAMAGE = """
file = Path(sys.argv[1]).open('r+b')
size = file.seek(0, 2)
for page in range(int(sys.argv[2]), size // 4096):
    file.seek(page * 4096)
    file.write(bytes([255, 0, 129, 7]) * 1024)
"""


def read_all(hub):
    """Read every message."""
    return [one for talk in hub.conversations(limit=1000) for one in hub.messages(talk.id, limit=1000).items]


def test_damaged_page_is_told_with_what_to_do(path):
    """Reading and writing what lies on it is refused; with the bytes put back, the same hub goes on."""
    fill(path)
    shutil.copy(path, f"{path}.sound")
    with closing(Hub(f"sqlite:///{path}")) as hub:
        by_another(DAMAGE, path, "4")
        with pytest.raises(ConfigError, match=r"is damaged: stop all who use it, and restore a backup .*malformed"):
            read_all(hub)
        with pytest.raises(ConfigError, match="is damaged"):
            receive(hub, KNOWN)
        by_another("Path(sys.argv[1]).write_bytes(Path(sys.argv[2]).read_bytes())", path, f"{path}.sound")

        outcome = receive(hub, KNOWN)
        read = read_all(hub)

    assert outcome is Outcome.ATTACHED
    assert len(read) == KNOWN + 1
    assert kept(path) == KNOWN + 1


def test_file_overwritten_with_garbage_is_told(path):
    """A running hub says what the file is not any more, once it reads it; a new one refuses it and leaves it alone."""
    fill(path)
    garbage = b"certainly no database, and long enough to be looked at. " * 20_000
    with closing(Hub(f"sqlite:///{path}")) as hub:
        by_another(
            "Path(sys.argv[1]).write_bytes(b'certainly no database, and long enough to be looked at. ' * 20000)", path
        )
        with pytest.raises(ConfigError, match=r"(is damaged|is no database any more): stop all who use it"):
            read_all(hub)

    with pytest.raises(ConfigError, match="give the path of a writable file"):
        Hub(f"sqlite:///{path}")
    assert Path(path).read_bytes() == garbage


# -- a file that is gone


@pytest.mark.parametrize("is_replaced", [False, True])
def test_file_that_is_moved_away_is_noticed(path, is_replaced):
    """Nothing is acknowledged that would be lost with the process; where the file is put back, the same hub goes on."""
    fill(path)
    with closing(Hub(f"sqlite:///{path}")) as hub:
        receive(hub, KNOWN)
        Path(path).rename(f"{path}.away")
        if is_replaced:
            Path(path).write_bytes(b"garbage")
        with pytest.raises(ConfigError, match=r"was deleted or replaced while it was in use.*put it back"):
            receive(hub, KNOWN + 1)
        contacts = list(hub.contacts(limit=100))
        Path(f"{path}.away").replace(path)

        outcome = receive(hub, KNOWN + 1)

    assert len(contacts) == 50
    assert outcome is Outcome.ATTACHED
    assert kept(path) == KNOWN + 2


def test_deleted_file_is_noticed_by_every_call(path):
    """No write is acknowledged, however often it is tried, and a store opened anew is empty and works."""
    fill(path)
    with closing(Hub(f"sqlite:///{path}")) as hub:
        for one in Path(path).parent.iterdir():
            one.unlink()
        for number in range(3):
            with pytest.raises(ConfigError, match="start again on what is there now"):
                receive(hub, KNOWN + number)

    with closing(Hub(f"sqlite:///{path}")) as hub:
        assert receive(hub, 0) is Outcome.CREATED


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
