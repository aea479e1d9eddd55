-- What each version promised beside its columns, and columns that an operator keeps out whatever the source file says.
alter table ops.schema_versions add column contract jsonb not null default '{}';

comment on column ops.schema_versions.contract is
    'Of the source file at that time: {"key": [names], "not_null": [names], "accepted": {name: [values]}}.';

create table ops.column_rules (
    rule_id bigint generated always as identity primary key,
    source text not null,
    stream text not null,
    column_name text not null,
    rule text not null default 'block' check (rule = 'block'),
    reason text not null,
    actor text not null,
    decided_at timestamptz not null default now(),
    lifted_at timestamptz,
    lifted_by text
);
create unique index column_rules_in_force on ops.column_rules (source, stream, column_name) where lifted_at is null;

comment on table ops.column_rules is 'Decided by an operator, in force from the next sync until lifted.';

grant select, insert, update on ops.column_rules to headwater_loader;
