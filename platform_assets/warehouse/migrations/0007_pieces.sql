-- Raw records of streams that share one position, kept with it in one transaction until each stream has loaded its own:
-- docs/decisions/0007-shared-states.md.
create table ops.pieces (
    piece bigint generated always as identity primary key,
    source text not null,
    stream text not null,
    body bytea not null,
    kept_at timestamptz not null default now()
);
create index pieces_by_stream on ops.pieces (source, stream, piece);
comment on table ops.pieces is 'Raw records, one JSON object a line, that the position of stream _shared covers and their '
    'stream has not loaded yet.';
comment on column ops.pieces.piece is 'A stream has loaded all up to state.connector.piece of its own position.';
