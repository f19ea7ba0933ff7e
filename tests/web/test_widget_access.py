"""Random visitors of one shop, against a model that knows the rules and nothing of how they are kept."""

import shutil
import tempfile
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from attrs import Factory, define
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from visits import OTHER_SITE, Browser, opened

from convsdk.web import Limits

PEOPLE = ("ann@shop.example", "bob@shop.example")
ENOUGH = Limits(visitor_per_minute=1_000_000, address_per_minute=1_000_000)
browsers = st.sampled_from(range(3))
people = st.sampled_from(PEOPLE)


@define
class Talk:
    """A conversation: whose address it is under, whether that was proven, and what visitors may read of it."""

    last_at: object
    who: str | None = None
    is_verified: bool = False
    texts: list = Factory(list)
    answers: int = 0


@define
class Session:
    """A visitor of a browser: what their page said, what was proven when, what they wrote and uploaded."""

    seen_at: object
    who: str | None = None
    is_proof: bool = False
    proven_at: object = None
    proof: str | None = None
    talks: list = Factory(list)
    files: list = Factory(list)


class Widget(RuleBasedStateMachine):
    """Browsers, agents, mails and the clock; after every step each browser reads what the model says."""

    @initialize()
    def open_shop(self):
        self.stack = ExitStack()
        folder = Path(tempfile.mkdtemp())
        self.stack.callback(shutil.rmtree, folder)
        self.shop = self.stack.enter_context(opened("memory:", folder, limits=ENOUGH))
        self.browsers = [Browser(self.shop), Browser(self.shop, site=OTHER_SITE), Browser(self.shop, keep=False)]
        self.sessions = [None] * 3
        self.talks = {}
        self.files = {}
        self.dead = []
        self.said = 0
        for who in PEOPLE:
            self.receive_mail(who)

    def teardown(self):
        if hasattr(self, "stack"):
            self.stack.close()

    @property
    def now(self):
        return self.shop.clock()

    def secret(self, number):
        return self.browsers[number].cookie or self.browsers[number].token

    def session(self, number):
        """Give the session that a browser has by now; each request puts its end off."""
        found = self.sessions[number]
        if found and self.now >= found.seen_at + timedelta(days=30):
            self.sessions[number] = found = None
        if found and self.now >= found.seen_at + timedelta(hours=1):
            found.seen_at = self.now
        return found

    def is_proven(self, session):
        return session.proven_at is not None and self.now < session.proven_at + timedelta(days=1)

    def readable(self, session):
        """Give what a session may read: its own, and while it is proven what is verified of that person."""
        known = [number for number, one in self.talks.items() if one.is_verified and one.who == session.proof]
        return {*session.talks, *(known if self.is_proven(session) else ())}

    def name(self, session, who, *, is_proof):
        """Give the newest conversation of a session that takes what `who` says, named after them if it has no name."""
        for number in reversed(session.talks):
            talk = self.talks[number]
            if who is None or talk.who in {None, who}:
                if talk.who is None and who is not None:
                    talk.who, talk.is_verified = who, is_proof
                return number
        return None

    # -- what happens

    @rule(number=browsers)
    def open_chat(self, number):
        self.begin(number)

    def begin(self, number):
        self.browsers[number].open()
        self.sessions[number] = self.session(number) or Session(seen_at=self.now)
        return self.sessions[number]

    @rule(number=browsers, has_file=st.booleans())
    def say(self, number, has_file):
        browser = self.browsers[number]
        self.said += 1
        session = self.begin(number)
        files = [browser.upload(f"{self.said}".encode()).json()["id"]] if has_file else []

        found = browser.say(f"said {self.said}", attachments=files)

        is_proof = session.is_proof and self.is_proven(session)
        number = self.name(session, session.who, is_proof=is_proof)
        if number is None:
            self.talks[found] = Talk(last_at=self.now, who=session.who, is_verified=is_proof)
            session.talks.append(number := found)
        assert found == number
        self.talks[number].texts.append(f"said {self.said}")
        self.talks[number].last_at = self.now
        self.files |= dict.fromkeys(files, number)
        session.files += files

    @rule(number=browsers)
    def upload(self, number):
        session = self.begin(number)
        file = self.browsers[number].upload().json()["id"]
        self.files[file] = None
        session.files.append(file)

    @rule(number=browsers, who=people, is_proof=st.booleans())
    def identify(self, number, who, is_proof):
        browser, session = self.browsers[number], self.begin(number)
        secret = self.secret(number)
        answer = browser.prove(email=who) if is_proof else browser.identify(email=who)

        is_fresh = session.proven_at is not None and self.now < session.proven_at + timedelta(hours=1)
        if (session.who, session.is_proof) == (who, is_proof) and (is_fresh or not is_proof):
            return
        if session.who not in {None, who}:
            self.dead.append(secret)
            self.sessions[number] = session = Session(seen_at=self.now)
        session.seen_at = self.now
        self.name(session, who, is_proof=is_proof)
        if is_proof:
            session.who, session.is_proof, session.proven_at, session.proof = who, True, self.now, who
            self.dead.append(secret)
        elif not self.is_proven(session):
            session.who, session.is_proof = who, False
        assert answer.json()["is_proven"] is self.is_proven(session)

    @rule(number=browsers, who=people)
    def fill_in_form(self, number, who):
        session = self.session(number)
        if session is None or session.who is not None:
            return  # which of two addresses then counts is a question of the core's
        assert self.browsers[number].submit(email=who).status_code == 200
        self.name(session, who, is_proof=False)

    @rule(number=browsers)
    def reset(self, number):
        if self.session(number):
            self.dead.append(self.secret(number))
        self.browsers[number].reset()
        self.sessions[number] = None

    @rule(who=people)
    def mail(self, who):
        self.receive_mail(who)

    def receive_mail(self, who):
        self.said += 1
        number = self.shop.mail(who, f"mail {self.said}")
        talk = self.talks.setdefault(number, Talk(last_at=self.now, who=who, is_verified=True))
        talk.texts.append(f"mail {self.said}")

    @precondition(lambda self: any(self.sessions))
    @rule(data=st.data(), is_note=st.booleans())
    def answer(self, data, is_note):
        written = sorted({number for one in self.sessions if one for number in one.talks})
        if not written:
            return
        number = data.draw(st.sampled_from(written))
        self.said += 1
        if is_note:
            self.shop.hub.note(number, f"note {self.said}", by="Kim")
            return
        self.shop.hub.reply(number, f"answer {self.said}", by="Kim")
        self.talks[number].texts.append(f"answer {self.said}")
        self.talks[number].last_at = self.now
        self.talks[number].answers += 1

    @rule(pause=st.sampled_from([timedelta(minutes=30), timedelta(hours=25), timedelta(days=29), timedelta(days=31)]))
    def wait(self, pause):
        self.shop.clock.advance(seconds=pause.total_seconds())

    # -- what holds

    @invariant()
    def each_reads_its_own(self):
        for number, browser in enumerate(self.browsers):
            session = self.session(number)
            readable = self.readable(session) if session else set()
            files = {one for one, at in self.files.items() if session and (one in session.files or at in readable)}

            assert set(browser.conversations()) == readable
            for one, talk in self.talks.items():
                assert browser.texts(one) == (talk.texts if one in readable else None)
            assert {one for one in self.files if browser.get(f"/files/{one}").status_code == 200} == files

    @invariant()
    def session_says_what_is_its_own(self):
        for number, browser in enumerate(self.browsers):
            session, told = self.session(number), browser.session()
            assert (told is None) is (session is None)
            if session:
                newest = max(session.talks, key=lambda one: (self.talks[one].last_at, one), default=None)
                assert told["conversation"] == newest
                assert told["unread"] == sum(self.talks[one].answers for one in session.talks)
                assert told["is_proven"] is self.is_proven(session)

    @invariant()
    def old_tokens_open_nothing(self):
        for secret in self.dead[-3:]:
            headers = {"Authorization": f"Bearer {secret}"}
            assert self.shop.ask("GET", "/widget/chat/conversations", headers=headers).status_code == 401


TestWidget = pytest.mark.once(Widget.TestCase)
TestWidget.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
