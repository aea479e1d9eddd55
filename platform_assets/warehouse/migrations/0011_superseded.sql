-- A record in quarantine is out of date when the source has said it, its key or its window anew.
alter table ops.quarantine drop constraint quarantine_status_check;
alter table ops.quarantine add constraint quarantine_status_check
    check (status in ('held', 'replayed', 'discarded', 'superseded'));
alter table ops.quarantine add column read_by uuid references ops.syncs (sync_id);

comment on column ops.quarantine.read_by is 'The sync that read the record from the source, where sync_id is a replay.';
comment on column ops.quarantine.payload_sha256 is
    'Of the payload before secrets were masked in it; a record that a replay put back keeps it.';

create index quarantine_held_payload on ops.quarantine (source, stream, payload_sha256) where status = 'held';
