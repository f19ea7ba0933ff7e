-- Where the bot automation of a conversation stands, and what more there is to a message (null: nothing).
alter table conversation add column bot text not null default '';
alter table message add column detail blob;

-- Texts by kind and key, for what belongs to no conversation: the sessions of browsers, who is on duty.
create table memo (
  workspace_id integer not null,
  kind text not null,
  key text not null,
  text text not null,
  at integer not null,
  primary key (workspace_id, kind, key)
) strict, without rowid;
create index memo_at on memo (workspace_id, kind, at);
