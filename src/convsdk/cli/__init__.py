"""The command line: `convsdk COMMAND`. Each command's module is imported when the command runs, so help is quick."""

from gettext import gettext
from importlib import import_module

import click

from convsdk.errors import ConvsdkError

_HOME = {
    "convsdk.cli.demo": {"demo": "Show the whole way on bundled raw inputs, from bytes to contacts."},
    "convsdk.cli.intake": {
        "parse": "Show what an adapter makes of the bytes in FILE; - is standard input.",
        "ingest": "Take FILES in through a channel, into the store.",
    },
    "convsdk.cli.serve": {
        "serve": "Take webhooks in over HTTP, and serve the chat widget, until SIGTERM or SIGINT.",
    },
    "convsdk.cli.mail": {
        "mail": "Take mail in by SMTP and LMTP, and from mailboxes by IMAP, until SIGTERM or SIGINT.",
    },
    "convsdk.cli.worker": {
        "worker": "Deliver answers, and tell plugins and webhooks what happened, until SIGTERM or SIGINT.",
    },
    "convsdk.cli.rejects": {
        "rejects": "List what could not be taken in, and run it again.",
    },
    "convsdk.cli.reread": {
        "reread": "Read what the archive holds of CHANNEL again, with the code and the settings of today.",
    },
    "convsdk.cli.records": {
        "contacts": "List contacts.",
        "contact": "Show one contact, given by id or as kind:value.",
        "explain": "Say why a contact's identifiers are one person, and why others are not.",
        "conversations": "List conversations, the newest first.",
        "messages": "Show the newest messages of a conversation, given by id.",
        "events": "List what happened, in order.",
        "suggestions": "List the pairs of contacts that may be one person.",
    },
    "convsdk.cli.staff": {
        "reply": "Answer a conversation.",
        "assign": "Give a conversation to an agent.",
        "complete": "Say that a conversation is done with.",
        "retry": "Send an answer once more that failed.",
        "reachable": "Say whether an identifier takes messages, or with --lift that it does again.",
        "review": "List the mails whose sender is in doubt, or decide about one.",
        "duty": "Say who is there to answer, or with --hours that you are.",
        "merge": "Join two contacts, given by id or as kind:value.",
        "cannot-link": "Record that two identifiers belong to two people.",
        "unmerge": "Take a merge or a cannot-link back, exactly.",
        "withdraw": "Take a hint's evidence back, as if it had never been given.",
        "restore": "Let what was taken back count again.",
        "consent": "Say whether an identifier may be written to for a purpose, or record it.",
        "membership": "Say whether a contact is on a list, or record it.",
    },
    "convsdk.cli.channels": {
        "channels": "List the configured channels, and with 'connect' check them at their platforms.",
    },
    "convsdk.cli.authoring": {
        "new-channel": "Write the distribution of a channel: adapter, golden payloads, tests.",
    },
    "convsdk.cli.host": {
        "plugins": "List plugins with their load times, and what is wrong with broken ones.",
        "check": "Check the configuration, and tell all its mistakes at once.",
        "scenarios": "Run the identity scenarios in FILE.",
        "migrate": "Bring the store's schema up to date.",
    },
}
_COMMANDS = {name: module for module, commands in _HOME.items() for name in commands}


class _Failure(click.ClickException):
    exit_code = 2

    @classmethod
    def of(cls, error: ConvsdkError) -> "_Failure":
        first, *more = str(error).splitlines() or [type(error).__name__]
        return cls(f"{first} (and {len(more)} more: run 'convsdk check')" if more else first)


class _Commands(click.Group):
    """Knows its commands by name, and asks plugins only for a name that is not its own."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (as above)
        if cmd_name in _COMMANDS:
            command: click.Command = getattr(import_module(_COMMANDS[cmd_name]), cmd_name.replace("-", "_"))
            return command
        from convsdk.plugins import load_plugins  # noqa: PLC0415  (imports every plugin: only who needs one waits)

        brought = (one for one in load_plugins().commands if isinstance(one, click.Command))
        return next((one for one in brought if one.name == cmd_name), None)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (as above)
        with formatter.section(gettext("Commands")):
            formatter.write_dl([row for commands in _HOME.values() for row in commands.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConvsdkError as error:
            raise _Failure.of(error) from error
        except BrokenPipeError:  # click's: whoever reads the output has seen enough
            raise
        except OSError as error:
            raise _Failure(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="convsdk")
def main() -> None:
    """Every conversation, from any channel, on the right contact.

    Start with 'convsdk demo'. A command takes its channels and its store from ./convsdk.toml where there is one.
    Plugins can add commands, which 'convsdk plugins' names.
    """
