-- Times are microseconds since 1970 (UTC). Every key leads with workspace_id; no transaction spans two workspaces.

create table workspace (
  id integer primary key,
  name text not null unique,
  next_id integer not null default 1
) strict;

-- One row for each identifier and epoch; rows are never deleted. The row of epoch 0 is the identifier's immutable id.
create table identifier (
  workspace_id integer not null,
  id integer not null,
  kind text not null,
  scope text not null,
  value text not null,
  epoch integer not null,
  since integer,                -- null: epoch 0, or an epoch that later evidence took back
  since_hint text,
  contact_id integer,           -- its home; follow contact.root_id from there
  trust integer,                -- null: only typed beside another identifier
  is_owned integer not null,
  is_founder integer not null,  -- its home contact goes where this identifier goes
  spelling text not null,
  form integer not null,        -- the version of the canonical form
  primary key (workspace_id, id)
) strict, without rowid;
create unique index identifier_key on identifier (workspace_id, kind, scope, value, epoch);
create index identifier_contact on identifier (workspace_id, contact_id) where contact_id is not null;

-- A contact is a pointer target: a merge sets root_id (its own id where it stands for itself) and moves nothing.
create table contact (
  workspace_id integer not null,
  id integer not null,
  root_id integer not null,
  created_at integer not null,
  how text not null,
  hint text not null,
  primary key (workspace_id, id)
) strict, without rowid;
create index contact_root on contact (workspace_id, root_id);

create table hint (
  workspace_id integer not null,
  key text not null,
  at integer not null,
  anchor_id integer,
  visitor_id integer,
  trust integer not null,
  may_create integer not null,
  is_joint integer not null,    -- it names several identifiers that count: see claim
  is_withdrawn integer not null default 0,
  channel text not null,
  how text not null,
  by text not null,
  conversation_id integer,
  evidence blob,                -- null: the columns say all of it
  decision blob not null,
  primary key (workspace_id, key)
) strict, without rowid;
create index hint_anchor on hint (workspace_id, anchor_id, is_joint, trust, may_create, at) -- the first of each class
  where anchor_id is not null;
create index hint_visitor on hint (workspace_id, visitor_id, at) where visitor_id is not null;
create index hint_pair on hint (workspace_id, anchor_id, visitor_id) -- which cookies came with an anchor
  where anchor_id is not null and visitor_id is not null and not is_withdrawn;

-- What a hint says of identifiers beside its anchor: a link, or a note (only typed, or a role mailbox).
create table claim (
  workspace_id integer not null,
  identifier_id integer not null,
  at integer not null,
  key text not null,            -- of its hint
  anchor_id integer not null,
  trust integer not null,
  is_link integer not null,
  is_withdrawn integer not null default 0,
  primary key (workspace_id, identifier_id, at, key)
) strict, without rowid;
create index claim_anchor on claim (workspace_id, anchor_id, at);
create index claim_hint on claim (workspace_id, key);

create table ruling (
  workspace_id integer not null,
  id text not null,
  kind text not null,
  a_id integer not null,
  b_id integer not null,
  at integer not null,
  by text not null,
  reason text not null,
  is_withdrawn integer not null default 0,
  primary key (workspace_id, id)
) strict, without rowid;
create index ruling_a on ruling (workspace_id, a_id);
create index ruling_b on ruling (workspace_id, b_id);

create table withdrawal (
  workspace_id integer not null,
  id integer not null,
  target text not null,
  is_ruling integer not null,
  at integer not null,
  by text not null,
  is_undone integer not null,
  primary key (workspace_id, id)
) strict, without rowid;

create table trait (
  workspace_id integer not null,
  identifier_id integer not null,
  id integer not null,
  name text not null,
  value text not null,
  trust integer not null,
  at integer not null,
  key text not null,            -- of its hint
  primary key (workspace_id, identifier_id, id)
) strict, without rowid;

create table consent (
  workspace_id integer not null,
  identifier_id integer not null,
  id integer not null,
  purpose text not null,
  state text not null,
  at integer not null,
  key text not null,            -- of its hint
  trust integer not null,
  by text not null,
  place text not null,
  wording text not null,
  wording_version text not null,
  primary key (workspace_id, identifier_id, id)
) strict, without rowid;

create table membership (
  workspace_id integer not null,
  contact_id integer not null,
  id integer not null,
  list text not null,
  state text not null,
  at integer not null,
  how text not null,
  by text not null,
  primary key (workspace_id, contact_id, id)
) strict, without rowid;

-- Filed by an identifier, or a cookie while nobody is named; set once, never moved.
create table conversation (
  workspace_id integer not null,
  id integer not null,
  channel text not null,
  thread text not null,
  subject text not null,
  identifier_id integer,
  visitor_id integer,
  filed_id integer,             -- identifier_id, else visitor_id: what lists are read by
  opened_at integer not null,
  opened_by text not null,
  last_at integer not null,
  trust integer,
  status text not null,
  messages integer not null,
  unread integer not null,
  assignee text not null,
  primary key (workspace_id, id)
) strict, without rowid;
create index conversation_thread on conversation (workspace_id, channel, thread);
create index conversation_filed on conversation (workspace_id, filed_id, opened_at) where filed_id is not null;
create index conversation_opened on conversation (workspace_id, opened_at);

-- In the order of arrival, and not by conversation: a message of anybody then ends up on the last page, and what is
-- written all over the file are twelve bytes of an index.
create table message (
  workspace_id integer not null,
  id integer not null,
  conversation_id integer not null,
  channel text not null,
  external_id text not null,
  direction text not null,
  at integer not null,
  text text not null,
  html text not null,
  attachments blob not null,
  status text not null,
  primary key (workspace_id, id)
) strict, without rowid;
create index message_conversation on message (workspace_id, conversation_id, id);
create unique index message_external on message (workspace_id, channel, external_id);

create table outbox (
  workspace_id integer not null,
  id integer not null,
  type text not null,
  version integer not null,
  at integer not null,
  payload blob not null,
  primary key (workspace_id, id)
) strict, without rowid;

-- How far a long work has come, written with what it did: it goes on from there after a crash.
create table checkpoint (
  workspace_id integer not null,
  name text not null,
  position text not null,
  primary key (workspace_id, name)
) strict, without rowid;

-- What the planner shall believe of a grown file. Without figures it takes the primary key, whose first column is the
-- workspace, for as selective as an index that names five columns, and reads the whole workspace.
analyze;
insert into sqlite_stat1 (tbl, idx, stat) values
  ('identifier', 'identifier', '10000000 10000000 1'),
  ('identifier', 'identifier_key', '10000000 10000000 300000 300000 2 1'),
  ('identifier', 'identifier_contact', '10000000 10000000 2'),
  ('contact', 'contact', '10000000 10000000 1'),
  ('contact', 'contact_root', '10000000 10000000 2'),
  ('hint', 'hint', '10000000 10000000 1'),
  ('hint', 'hint_anchor', '10000000 10000000 10 9 8 8 1 1'),
  ('hint', 'hint_visitor', '10000000 10000000 10 1'),
  ('hint', 'hint_pair', '10000000 10000000 10 5 1'),
  ('claim', 'claim', '10000000 10000000 5 1 1'),
  ('claim', 'claim_anchor', '10000000 10000000 5 1'),
  ('claim', 'claim_hint', '10000000 10000000 2'),
  ('ruling', 'ruling', '10000000 10000000 1'),
  ('ruling', 'ruling_a', '10000000 10000000 2'),
  ('ruling', 'ruling_b', '10000000 10000000 2'),
  ('trait', 'trait', '10000000 10000000 5 1'),
  ('consent', 'consent', '10000000 10000000 5 1'),
  ('membership', 'membership', '10000000 10000000 5 1'),
  ('conversation', 'conversation', '10000000 10000000 1'),
  ('conversation', 'conversation_thread', '10000000 10000000 300000 2'),
  ('conversation', 'conversation_filed', '10000000 10000000 3 1'),
  ('conversation', 'conversation_opened', '10000000 10000000 1'),
  ('message', 'message', '10000000 10000000 1'),
  ('message', 'message_conversation', '10000000 10000000 10 1'),
  ('message', 'message_external', '10000000 10000000 300000 1'),
  ('outbox', 'outbox', '10000000 10000000 1');
analyze sqlite_schema;
