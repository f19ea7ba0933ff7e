"""The same task by the Django ORM as people usually write it: `get_or_create` and `create` in one `atomic` block.

The tables are those of limit.py, with its indexes and without the foreign keys that Django would add: less work, not
more. Both databases are as durable as everybody's here: WAL and synchronous=FULL, synchronous_commit=on.
"""

from typing import Any, ClassVar

import django
from django.conf import settings
from django.db import connections, models, transaction
from limit import BODY, EVENT, Postgresql
from psycopg.conninfo import conninfo_to_dict

if not settings.configured:
    settings.configure(USE_TZ=True)
    django.setup()


class Contact(models.Model):
    """A person."""

    name = models.TextField(null=True)  # noqa: DJ001  (the column of limit.py)
    created_at = models.BigIntegerField()
    root_id = models.BigIntegerField(null=True)

    class Meta:
        """Where it is."""

        app_label, db_table, managed = "limit", "contact", False

    def __str__(self) -> str:
        return f"contact {self.pk}"


class Identifier(models.Model):
    """An address of a contact."""

    kind = models.TextField()
    value = models.TextField()
    contact = models.ForeignKey(Contact, models.CASCADE)

    class Meta:
        """Where it is."""

        app_label, db_table, managed = "limit", "identifier", False
        unique_together: ClassVar = [("kind", "value")]

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


class Conversation(models.Model):
    """What is said with an address on a channel."""

    identifier = models.ForeignKey(Identifier, models.CASCADE)
    channel = models.TextField()
    status = models.TextField(default="open")
    last_at = models.BigIntegerField()

    class Meta:
        """Where it is."""

        app_label, db_table, managed = "limit", "conversation", False
        unique_together: ClassVar = [("identifier", "channel")]

    def __str__(self) -> str:
        return f"conversation {self.pk}"


class Message(models.Model):
    """One message of a conversation."""

    conversation = models.ForeignKey(Conversation, models.CASCADE)
    channel = models.TextField()
    external_id = models.TextField()
    body = models.TextField()
    created_at = models.BigIntegerField()

    class Meta:
        """Where it is."""

        app_label, db_table, managed = "limit", "message", False
        unique_together: ClassVar = [("channel", "external_id")]

    def __str__(self) -> str:
        return self.external_id


class Outbox(models.Model):
    """An event to tell others."""

    topic = models.TextField()
    payload = models.TextField()
    created_at = models.BigIntegerField()

    class Meta:
        """Where it is."""

        app_label, db_table, managed = "limit", "outbox", False

    def __str__(self) -> str:
        return f"{self.topic} {self.pk}"


def sqlite(path: str) -> dict[str, Any]:
    """Give the settings of an SQLite file, as its documentation recommends them for more than one process."""
    pragmas = "pragma journal_mode=wal; pragma synchronous=full; pragma cache_size=-65536;"
    options = {"transaction_mode": "IMMEDIATE", "init_command": pragmas}
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "OPTIONS": options}


def postgresql(url: str) -> dict[str, Any]:
    """Give the settings of a PostgreSQL database."""
    said = conninfo_to_dict(url, options=f"-c search_path={Postgresql.SCHEMA} -c synchronous_commit=on")
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    known = {setting: str(said.pop(name)) for name, setting in names.items() if name in said}
    return {"ENGINE": "django.db.backends.postgresql", "OPTIONS": said} | known


class DjangoOrm:
    """A program on one database, known to Django as `alias`."""

    def __init__(self, alias: str, database: dict[str, Any]) -> None:
        connections.settings[alias] = connections.configure_settings({"default": database})["default"]
        self._alias = alias

    def store(self, sender: str, external_id: str, now: int) -> None:
        """Store one message under its sender's contact."""

        def new_contact() -> Contact:
            return Contact.objects.using(self._alias).create(name="Ann", created_at=now)

        with transaction.atomic(using=self._alias):
            identifier, _ = Identifier.objects.using(self._alias).get_or_create(
                kind="email", value=sender, defaults={"contact": new_contact}
            )
            conversation, is_new = Conversation.objects.using(self._alias).get_or_create(
                identifier=identifier, channel="mail", defaults={"last_at": now}
            )
            if not is_new:
                conversation.last_at = now
                conversation.save(update_fields=["last_at"])
            Message.objects.using(self._alias).create(
                conversation=conversation, channel="mail", external_id=external_id, body=BODY, created_at=now
            )
            Outbox.objects.using(self._alias).create(topic="message.received", payload=EVENT, created_at=now)

    def close(self) -> None:
        """Close the connection of this thread."""
        connections[self._alias].close()
