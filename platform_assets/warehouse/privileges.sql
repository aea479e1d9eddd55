-- Who may do what in the warehouse. Runs as the administrator at every bootstrap; each statement may run again.

-- public: nothing
do $$
begin
    execute format('revoke all on database %I from public', current_database());
    execute format(
        'grant connect, temporary on database %I to headwater_loader, headwater_transformer', current_database()
    );
    execute format('grant connect on database %I to headwater_reader', current_database());
    -- raw_<source> schemas are the loader's own
    execute format('grant create on database %I to headwater_loader', current_database());
end
$$;

do $$
begin
    revoke all on schema public from public;
exception when insufficient_privilege then
    -- an administrator that does not own the database; a plain server of 15+ lets nobody create there anyway
    raise warning 'schema public still belongs to another role: its privileges were left alone';
end
$$;

-- schemas
create schema if not exists staging authorization headwater_transformer;
create schema if not exists intermediate authorization headwater_transformer;
create schema if not exists marts authorization headwater_transformer;
-- marts that are being built and tested, and those served before: only the transformer looks in there
create schema if not exists marts__next authorization headwater_transformer;
create schema if not exists marts__last authorization headwater_transformer;
grant usage on schema staging, intermediate, marts to headwater_reader;

-- raw: what the loader makes, the transformer reads; the reader does not
alter default privileges for role headwater_loader grant usage on schemas to headwater_transformer;
alter default privileges for role headwater_loader grant select on tables to headwater_transformer;

-- models: what the transformer makes in its own schemas, the reader reads
alter default privileges for role headwater_transformer in schema staging grant select on tables to headwater_reader;
alter default privileges for role headwater_transformer in schema intermediate grant select on tables to headwater_reader;
alter default privileges for role headwater_transformer in schema marts grant select on tables to headwater_reader;
-- what is built there will be served
alter default privileges for role headwater_transformer in schema marts__next grant select on tables to headwater_reader;
grant select on all tables in schema staging, intermediate, marts to headwater_reader;

-- functions are nobody's until granted
alter default privileges in schema ops revoke execute on functions from public;

-- ops: rows for the loader, no DDL; history is written once
revoke all on schema ops from public;
grant usage on schema ops to headwater_loader, headwater_transformer, headwater_reader;
grant select on all tables in schema ops to headwater_loader;
grant insert, update on ops.leases, ops.syncs, ops.schema_versions, ops.quarantine, ops.rate_pools, ops.usage
    to headwater_loader;
grant insert on ops.stream_state, ops.webhook_inbox, ops.pieces to headwater_loader;
grant delete on ops.leases, ops.quarantine, ops.rate_pools, ops.webhook_inbox, ops.pieces to headwater_loader;
grant insert, update, delete on ops.tokens to headwater_loader;
grant insert, update on ops.backfills, ops.backfill_windows, ops.backfill_marks to headwater_loader;
grant select on ops.syncs, ops.schema_versions, ops.usage, ops.backfills, ops.backfill_windows
    to headwater_transformer, headwater_reader;
