-- What is still to go, a row for each outbound message. Of a conversation one may go, the next when that has ended.
create table delivery (
  workspace_id bigint not null,
  message_id bigint not null,
  conversation_id bigint not null,
  channel text collate "C" not null,
  due_at bigint not null,
  put_off_at bigint not null,
  owner text collate "C" not null,
  is_under_way boolean not null,
  awaits_echo boolean not null,
  tries integer not null,
  waited_s double precision not null,
  parts_done integer not null,
  is_next boolean not null default false,
  primary key (workspace_id, message_id)
);
create index delivery_conversation on delivery (workspace_id, conversation_id, message_id);
create index delivery_due on delivery (workspace_id, channel, due_at) where is_next and owner = '';
create index delivery_owner on delivery (workspace_id, owner) where owner <> '';

-- What else a platform calls a message of ours, or a part of it.
create table alias (
  workspace_id bigint not null,
  channel text collate "C" not null,
  external_id text collate "C" not null,
  conversation_id bigint not null,
  message_id bigint not null,
  part integer not null,
  primary key (workspace_id, channel, external_id)
);

-- Those that a report about all of a thread can still move.
create index message_moving on message (workspace_id, conversation_id, status, id)
  where direction = 'outbound' and status in ('sent', 'delivered');
