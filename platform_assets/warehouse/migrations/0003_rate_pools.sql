-- What a pool allows, so that its free requests can be shown, and until when a live sync has the right of way.
alter table ops.rate_pools
    add column requests integer check (requests > 0),
    add column per_seconds double precision check (per_seconds > 0),
    add column live_until timestamptz,
    add column breaker_pause_seconds double precision;

comment on column ops.rate_pools.refilled_at is
    'The moment that tokens are counted for; in the future while the source has asked for a pause.';
comment on column ops.rate_pools.live_until is 'Backfills take nothing before this moment.';
