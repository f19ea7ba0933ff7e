-- Where the bot automation of a conversation stands, and what more there is to a message (null: nothing).
alter table conversation add column bot text not null default '';
alter table message add column detail jsonb;

-- Texts by kind and key, for what belongs to no conversation: the sessions of browsers, who is on duty.
create table memo (
  workspace_id bigint not null,
  kind text collate "C" not null,
  key text collate "C" not null,
  text text not null,
  at bigint not null,
  primary key (workspace_id, kind, key)
);
create index memo_at on memo (workspace_id, kind, at);
