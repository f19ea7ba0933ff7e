-- What is still to go, a row for each outbound message. Of a conversation one may go, the next when that has ended.
create table delivery (
  workspace_id integer not null,
  message_id integer not null,
  conversation_id integer not null,
  channel text not null,
  due_at integer not null,
  put_off_at integer not null,
  owner text not null,
  is_under_way integer not null,
  awaits_echo integer not null,
  tries integer not null,
  waited_s real not null,
  parts_done integer not null,
  is_next integer not null default 0,
  primary key (workspace_id, message_id)
) strict, without rowid;
create index delivery_conversation on delivery (workspace_id, conversation_id, message_id);
create index delivery_due on delivery (workspace_id, channel, due_at) where is_next and owner = '';
create index delivery_owner on delivery (workspace_id, owner) where owner <> '';

-- What else a platform calls a message of ours, or a part of it.
create table alias (
  workspace_id integer not null,
  channel text not null,
  external_id text not null,
  conversation_id integer not null,
  message_id integer not null,
  part integer not null,
  primary key (workspace_id, channel, external_id)
) strict, without rowid;

-- Those that a report about all of a thread can still move.
create index message_moving on message (workspace_id, conversation_id, status, id)
  where direction = 'outbound' and status in ('sent', 'delivered');

insert into sqlite_stat1 (tbl, idx, stat) values
  ('delivery', 'delivery', '100000 100000 1'),
  ('delivery', 'delivery_conversation', '100000 100000 10 1'),
  ('delivery', 'delivery_due', '10000 10000 1000 1'),
  ('delivery', 'delivery_owner', '100 100 10'),
  ('alias', 'alias', '10000000 10000000 300000 1'),
  ('message', 'message_moving', '1000000 1000000 10 9 1');
analyze sqlite_schema;
