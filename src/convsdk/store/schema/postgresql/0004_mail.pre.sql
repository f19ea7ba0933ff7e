-- Who else the messages of a conversation were written to, as JSON (empty: nobody).
alter table conversation add column participants text not null default '';
create index conversation_review on conversation (workspace_id, opened_at) where status = 'review';
