-- What the source itself said of an empty sync, and partitions found by their window.
alter table ops.syncs add column nothing_new boolean not null default false;

comment on column ops.syncs.nothing_new is
    'A live sync read nothing because the source said that there is nothing newer: the stream is fresh all the same.';

create index syncs_by_window on ops.syncs (source, stream, window_start desc, started_at desc)
where window_start is not null;
