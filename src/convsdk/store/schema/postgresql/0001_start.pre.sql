-- Times are microseconds since 1970 (UTC). Every key leads with workspace_id; no transaction spans two workspaces.
-- Keys are ordered byte by byte, as every store orders them, whatever the database's own collation.

-- Ids of rows of any kind. A transaction takes blocks: a value is the first of 32 ids.
create sequence row_id increment by 32;

create table workspace (
  id bigint generated always as identity primary key,
  name text collate "C" not null unique
);

-- One row for each identifier and epoch; rows are never deleted. The row of epoch 0 is the identifier's immutable id.
create table identifier (
  workspace_id bigint not null,
  id bigint not null,
  kind text collate "C" not null,
  scope text collate "C" not null,
  value text collate "C" not null,
  epoch integer not null,
  since bigint,  -- null: epoch 0, or an epoch that later evidence took back
  since_hint text collate "C",
  contact_id bigint,  -- its home; follow contact.root_id from there
  trust integer,  -- null: only typed beside another identifier
  is_owned boolean not null,
  is_founder boolean not null,  -- its home contact goes where this identifier goes
  spelling text not null,
  form integer not null,  -- the version of the canonical form
  primary key (workspace_id, id)
);
create unique index identifier_key on identifier (workspace_id, kind, scope, value, epoch);
create index identifier_contact on identifier (workspace_id, contact_id) where contact_id is not null;

-- A contact is a pointer target: a merge sets root_id (its own id where it stands for itself) and moves nothing.
create table contact (
  workspace_id bigint not null,
  id bigint not null,
  root_id bigint not null,
  created_at bigint not null,
  how text not null,
  hint text not null,
  primary key (workspace_id, id)
);
create index contact_root on contact (workspace_id, root_id);

create table hint (
  workspace_id bigint not null,
  key text collate "C" not null,
  at bigint not null,
  anchor_id bigint,
  visitor_id bigint,
  trust integer not null,
  may_create boolean not null,
  is_joint boolean not null,  -- it names several identifiers that count: see claim
  is_withdrawn boolean not null default false,
  channel text not null,
  how text not null,
  by text not null,
  conversation_id bigint,
  evidence jsonb,  -- null: the columns say all of it
  decision jsonb not null,
  primary key (workspace_id, key)
);
create index hint_anchor on hint (workspace_id, anchor_id, is_joint, trust, may_create, at, key) -- the first of each class
  where anchor_id is not null;
create index hint_visitor on hint (workspace_id, visitor_id, at) where visitor_id is not null;
create index hint_pair on hint (workspace_id, anchor_id, visitor_id) -- which cookies came with an anchor
  where anchor_id is not null and visitor_id is not null and not is_withdrawn;

-- What a hint says of identifiers beside its anchor: a link, or a note (only typed, or a role mailbox).
create table claim (
  workspace_id bigint not null,
  identifier_id bigint not null,
  at bigint not null,
  key text collate "C" not null,  -- of its hint
  anchor_id bigint not null,
  trust integer not null,
  is_link boolean not null,
  is_withdrawn boolean not null default false,
  primary key (workspace_id, identifier_id, at, key)
);
create index claim_anchor on claim (workspace_id, anchor_id, at);
create index claim_hint on claim (workspace_id, key);

create table ruling (
  workspace_id bigint not null,
  id text collate "C" not null,
  kind text not null,
  a_id bigint not null,
  b_id bigint not null,
  at bigint not null,
  by text not null,
  reason text not null,
  is_withdrawn boolean not null default false,
  primary key (workspace_id, id)
);
create index ruling_a on ruling (workspace_id, a_id);
create index ruling_b on ruling (workspace_id, b_id);

create table withdrawal (
  workspace_id bigint not null,
  id bigint not null,
  target text not null,
  is_ruling boolean not null,
  at bigint not null,
  by text not null,
  is_undone boolean not null,
  primary key (workspace_id, id)
);

create table trait (
  workspace_id bigint not null,
  identifier_id bigint not null,
  id bigint not null,
  name text not null,
  value text not null,
  trust integer not null,
  at bigint not null,
  key text collate "C" not null,  -- of its hint
  primary key (workspace_id, identifier_id, id)
);

create table consent (
  workspace_id bigint not null,
  identifier_id bigint not null,
  id bigint not null,
  purpose text not null,
  state text not null,
  at bigint not null,
  key text collate "C" not null,  -- of its hint
  trust integer not null,
  by text not null,
  place text not null,
  wording text not null,
  wording_version text not null,
  primary key (workspace_id, identifier_id, id)
);

create table membership (
  workspace_id bigint not null,
  contact_id bigint not null,
  id bigint not null,
  list text not null,
  state text not null,
  at bigint not null,
  how text not null,
  by text not null,
  primary key (workspace_id, contact_id, id)
);

-- Filed by an identifier, or a cookie while nobody is named; set once, never moved.
create table conversation (
  workspace_id bigint not null,
  id bigint not null,
  channel text collate "C" not null,
  thread text collate "C" not null,
  subject text not null,
  identifier_id bigint,
  visitor_id bigint,
  filed_id bigint,  -- identifier_id, else visitor_id: what lists are read by
  opened_at bigint not null,
  opened_by text collate "C" not null,
  last_at bigint not null,
  trust integer,
  status text not null,
  messages integer not null,
  unread integer not null,
  assignee text not null,
  primary key (workspace_id, id)
) with (fillfactor = 85); -- room for updates that touch no index
create index conversation_thread on conversation (workspace_id, channel, thread);
create index conversation_filed on conversation (workspace_id, filed_id, opened_at) where filed_id is not null;
create index conversation_opened on conversation (workspace_id, opened_at);

create table message (
  workspace_id bigint not null,
  id bigint not null,
  conversation_id bigint not null,
  channel text collate "C" not null,
  external_id text collate "C" not null,
  direction text not null,
  at bigint not null,
  text text not null,
  html text not null,
  attachments jsonb not null,
  status text not null,
  primary key (workspace_id, conversation_id, id)
);
create unique index message_external on message (workspace_id, channel, external_id);

create table outbox (
  workspace_id bigint not null,
  id bigint not null,
  type text not null,
  version integer not null,
  at bigint not null,
  payload jsonb not null,
  xact xid8 not null default pg_current_xact_id(), -- ids rise, but transactions end in any order: see notices()
  primary key (workspace_id, id)
);
create index outbox_xact on outbox (workspace_id, xact, id);

-- How far a long work has come, written with what it did: it goes on from there after a crash.
create table checkpoint (
  workspace_id bigint not null,
  name text collate "C" not null,
  position text not null,
  primary key (workspace_id, name)
);


-- The token of the last transaction in each slot of a program: what was committed when its connection broke.
create table last_transaction (
  workspace_id bigint not null,
  slot text collate "C" not null,
  token text not null,
  at timestamptz not null default now(),
  primary key (workspace_id, slot)
) with (fillfactor = 20); -- room for updates that touch no index
