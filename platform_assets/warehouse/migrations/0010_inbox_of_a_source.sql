-- A quiet source beside a busy one is read, counted and pruned without looking at the other's deliveries.
create index webhook_inbox_source on ops.webhook_inbox (source, sequence);
