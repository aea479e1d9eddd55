-- Puts a freshly loaded table in the place of a raw table, under the views that read it.

create function ops.swap_table(schema_name text, current_table text, next_table text) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- one attempt to lock waits less than deadlock_timeout (1 s), so a reader is never chosen as a deadlock's victim
set lock_timeout = '200ms'
as $function$
declare
    patience constant interval := interval '60 seconds';
    started constant timestamptz := clock_timestamp();
    place constant text := format('%I.%I', schema_name, current_table);
    current_id oid;
    next_id oid;
    old_name text;
    seen oid[];
    locked oid[];
    dependent record;
    found_name text;
    explanation text;
    code text;
    granted record;
    view_names text[] := '{}';
    statements text[] := '{}';
begin
    if schema_name !~ '^raw_[a-z0-9_]+$' then
        raise exception 'swap_table: % is not a raw_<source> schema', quote_ident(schema_name)
            using errcode = 'insufficient_privilege', hint = 'Only raw tables are swapped.';
    end if;

    loop
        current_id := to_regclass(place);
        next_id := to_regclass(format('%I.%I', schema_name, next_table));
        foreach found_name in array array[current_table, next_table] loop
            if not exists (
                select from pg_class
                where oid = to_regclass(format('%I.%I', schema_name, found_name))
                    and relkind = 'r'
                    and relowner = 'headwater_loader'::regrole
            ) then
                raise exception 'swap_table: %.% is not an ordinary table of headwater_loader',
                    quote_ident(schema_name), quote_ident(found_name)
                    using errcode = 'wrong_object_type', hint = 'Load both tables as the loader before swapping them.';
            end if;
        end loop;
        if current_id = next_id then
            raise exception 'swap_table: % cannot take its own place', place using errcode = 'invalid_parameter_value';
        end if;

        select coalesce(array_agg(view_id order by view_id), '{}') into seen
        from (
            select distinct pg_rewrite.ev_class as view_id
            from pg_depend
            join pg_rewrite on pg_rewrite.oid = pg_depend.objid
            where pg_depend.classid = 'pg_rewrite'::regclass
                and pg_depend.refclassid = 'pg_class'::regclass
                and pg_depend.refobjid = current_id
                and pg_rewrite.ev_class <> current_id
        ) as views;

        begin
            -- views before the table, as a reader locks them
            for dependent in
                select
                    pg_class.relkind,
                    format('%I.%I', pg_namespace.nspname, pg_class.relname) as name,
                    pg_get_userbyid(pg_class.relowner) as owner
                from pg_class
                join pg_namespace on pg_namespace.oid = pg_class.relnamespace
                where pg_class.oid = any (seen)
                order by pg_class.oid
            loop
                if dependent.relkind <> 'v' then
                    raise exception 'swap_table: % is read by %, which is not a plain view', place, dependent.name
                        using errcode = 'dependent_objects_still_exist',
                            hint = 'Make it a view, or a table that is built from one.';
                end if;
                -- changes nothing and locks the view alone; `lock table` asks its owner's rights on the table, too
                execute format('alter view %s owner to %I', dependent.name, dependent.owner);
            end loop;
            execute format('lock table only %s in access exclusive mode', place);
            execute format('lock table only %I.%I in access exclusive mode', schema_name, next_table);

            -- a view that came meanwhile would be missed
            select coalesce(array_agg(view_id order by view_id), '{}') into locked
            from (
                select distinct pg_rewrite.ev_class as view_id
                from pg_depend
                join pg_rewrite on pg_rewrite.oid = pg_depend.objid
                where pg_depend.classid = 'pg_rewrite'::regclass
                    and pg_depend.refclassid = 'pg_class'::regclass
                    and pg_depend.refobjid = current_id
                    and pg_rewrite.ev_class <> current_id
            ) as views;
            if locked <> seen or to_regclass(place) is distinct from current_id then
                raise lock_not_available;
            end if;
            exit;
        exception when lock_not_available or undefined_table then
            -- the locks of this attempt are free again here
            if clock_timestamp() > started + patience then
                raise exception 'swap_table: % was in use for % s', place, extract(epoch from patience)::integer
                    using errcode = 'lock_not_available',
                        hint = 'End the long query that reads it (select * from pg_stat_activity), then sync again.';
            end if;
            perform pg_sleep(0.02 + random() * 0.05);
        end;
    end loop;

    -- what would be lost with the old table without a word
    select string_agg(what, ', ') into explanation
    from (
        select 'trigger ' || tgname as what from pg_trigger where tgrelid = current_id and not tgisinternal
        union all
        select 'policy ' || polname from pg_policy where polrelid = current_id
        union all
        select 'publication ' || pubname
        from pg_publication_rel
        join pg_publication on pg_publication.oid = prpubid
        where prrelid = current_id
    ) as attached;
    if explanation is not null then
        raise exception 'swap_table: % carries % that a new table would not have', place, explanation
            using errcode = 'dependent_objects_still_exist', hint = 'Drop it, or put it on a model instead.';
    end if;

    -- who may read the old table may read the new one
    for granted in
        select grantee, privilege_type, is_grantable
        from pg_class, aclexplode(relacl)
        where oid = current_id and grantee <> relowner
    loop
        execute format(
            'grant %s on %I.%I to %s%s', granted.privilege_type, schema_name, next_table,
            case when granted.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(granted.grantee)) end,
            case when granted.is_grantable then ' with grant option' else '' end
        );
    end loop;

    -- definitions name every relation in full here, because search_path holds no schema of theirs
    for dependent in
        select
            format('%I.%I', pg_namespace.nspname, pg_class.relname) as name,
            coalesce(' with (' || array_to_string(pg_class.reloptions, ', ') || ')', '') as options,
            pg_get_viewdef(pg_class.oid) as definition
        from pg_class
        join pg_namespace on pg_namespace.oid = pg_class.relnamespace
        where pg_class.oid = any (seen)
        order by pg_class.oid
    loop
        view_names := view_names || dependent.name;
        statements := statements
            || format('create or replace view %s%s as %s', dependent.name, dependent.options, dependent.definition);
    end loop;

    old_name := 'swapped_out_' || current_id;
    execute format('alter table %s rename to %I', place, old_name);
    execute format('alter table %I.%I rename to %I', schema_name, next_table, current_table);

    -- in the order of their making, so that each keeps its owner, its privileges and what reads it
    for position in 1 .. cardinality(statements) loop
        begin
            execute statements[position];
        exception when others then
            get stacked diagnostics explanation = message_text, code = returned_sqlstate;
            raise exception 'swap_table: % does not fit the new %: %', view_names[position], place, explanation
                using errcode = code, hint = 'Change or drop the view first, or load columns that fit it.';
        end;
    end loop;

    begin
        execute format('drop table %I.%I restrict', schema_name, old_name);
    exception when dependent_objects_still_exist then
        get stacked diagnostics explanation = pg_exception_detail;
        explanation := replace(explanation, old_name, current_table);
        raise exception 'swap_table: % cannot be swapped: %', place, explanation
            using errcode = 'dependent_objects_still_exist', hint = 'Drop what depends on it, or put it on a view.';
    end;
end
$function$;

comment on function ops.swap_table is
    'Puts next_table in the place of current_table in the caller''s transaction: a query of the table, or of a plain view '
    'on it, sees the old rows until commit and the new ones after it. A repeatable-read transaction that began before the '
    'load sees the new table empty, as after truncate.';

revoke all on function ops.swap_table(text, text, text) from public;
grant execute on function ops.swap_table(text, text, text) to headwater_loader;
