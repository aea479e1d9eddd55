-- Puts freshly built marts in the place of the served ones, or the kept ones back, under the views that read them.

create function ops.exchange_marts(coming text, going text, names text[]) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- one attempt to lock waits less than deadlock_timeout (1 s), so a reader is never chosen as a deadlock's victim
set lock_timeout = '200ms'
as $function$
declare
    served constant text := 'marts';
    patience constant interval := interval '60 seconds';
    started constant timestamptz := clock_timestamp();
    wanted text[];
    found_name text;
    served_ids oid[];
    dropped_ids oid[];
    dependent_ids oid[];
    member record;
    statements text[] := '{}';
begin
    if (coming, going) not in (('marts__next', 'marts__last'), ('marts__last', 'marts__next')) then
        raise exception 'exchange_marts: % cannot take the place of marts', quote_ident(coming)
            using errcode = 'insufficient_privilege', hint = 'marts__next is published, marts__last is rolled back to.';
    end if;
    select array_agg(distinct name order by name) into wanted from unnest(names) as name;

    loop
        foreach found_name in array wanted loop
            if to_regclass(format('%I.%I', coming, found_name)) is null then
                raise exception 'exchange_marts: %.% does not exist', quote_ident(coming), quote_ident(found_name)
                    using errcode = 'undefined_table', hint = 'Build the mart first.';
            end if;
        end loop;
        select coalesce(array_agg(oid), '{}') into served_ids
        from pg_class where relnamespace = served::regnamespace and relname = any (wanted) and relkind in ('r', 'v');
        select coalesce(array_agg(oid), '{}') into dropped_ids
        from pg_class where relnamespace = going::regnamespace and relname = any (wanted) and relkind in ('r', 'v');

        -- views outside the exchange: they follow the name, not the table that had it
        select coalesce(array_agg(distinct pg_rewrite.ev_class), '{}') into dependent_ids
        from pg_depend
        join pg_rewrite on pg_rewrite.oid = pg_depend.objid
        where pg_depend.classid = 'pg_rewrite'::regclass
            and pg_depend.refclassid = 'pg_class'::regclass
            and pg_depend.refobjid = any (served_ids)
            and pg_rewrite.ev_class <> all (served_ids || dropped_ids);

        begin
            -- views before tables, as a reader locks them
            for member in
                select relkind, oid::regclass::text as name, pg_get_userbyid(relowner) as owner
                from pg_class
                where oid = any (dependent_ids || served_ids || dropped_ids)
                    or relnamespace = coming::regnamespace and relname = any (wanted) and relkind in ('r', 'v')
                order by relkind desc, oid
            loop
                if member.relkind = 'v' then
                    -- changes nothing and locks the view alone; `lock table` would lock what it reads, too
                    execute format('alter view %s owner to %I', member.name, member.owner);
                elsif member.relkind = 'r' then
                    execute format('lock table only %s in access exclusive mode', member.name);
                else
                    raise exception 'exchange_marts: % reads a mart and is not a plain view', member.name
                        using errcode = 'dependent_objects_still_exist',
                            hint = 'Make it a view, or a model that is built from the mart.';
                end if;
            end loop;
            exit;
        exception when lock_not_available or undefined_table then
            -- the locks of this attempt are free again here
            if clock_timestamp() > started + patience then
                raise exception 'exchange_marts: a mart was in use for % s', extract(epoch from patience)::integer
                    using errcode = 'lock_not_available',
                        hint = 'End the long query that reads it (select * from pg_stat_activity), then build again.';
            end if;
            perform pg_sleep(0.02 + random() * 0.05);
        end;
    end loop;

    -- definitions name every relation in full here, because search_path holds no schema of theirs
    select coalesce(array_agg(
        format(
            'create or replace view %s%s as %s', pg_class.oid::regclass,
            coalesce(' with (' || array_to_string(pg_class.reloptions, ', ') || ')', ''), pg_get_viewdef(pg_class.oid)
        )
        order by pg_class.oid
    ), '{}') into statements
    from pg_class where oid = any (dependent_ids);

    -- what the exchange before kept; a view on it elsewhere would go with it without a word
    for member in
        with recursive reading as (
            select unnest(dropped_ids) as id
            union
            select pg_rewrite.ev_class
            from reading
            join pg_depend on pg_depend.refobjid = reading.id and pg_depend.refclassid = 'pg_class'::regclass
            join pg_rewrite on pg_rewrite.oid = pg_depend.objid and pg_depend.classid = 'pg_rewrite'::regclass
        )
        select pg_class.oid::regclass::text as name
        from reading
        join pg_class on pg_class.oid = reading.id
        where relnamespace not in (going::regnamespace, coming::regnamespace)
    loop
        raise exception 'exchange_marts: % reads a version of a mart in % that is to go', member.name, going
            using errcode = 'dependent_objects_still_exist', hint = 'Let it read schema marts.';
    end loop;
    for member in
        select oid::regclass::text as name, relkind from pg_class where oid = any (dropped_ids) order by relkind desc, oid
    loop
        -- an earlier one may have taken it along
        execute format(
            'drop %s if exists %s cascade', case member.relkind when 'v' then 'view' else 'table' end, member.name
        );
    end loop;

    foreach found_name in array wanted loop
        if exists (
            select from pg_class
            where oid = any (served_ids) and relname = found_name
        ) then
            perform ops.copy_privileges(
                format('%I.%I', served, found_name)::regclass, format('%I.%I', coming, found_name)::regclass
            );
            execute format('alter table %I.%I set schema %I', served, found_name, going);
        end if;
        execute format('alter table %I.%I set schema %I', coming, found_name, served);
    end loop;

    for position in 1 .. cardinality(statements) loop
        execute statements[position];
    end loop;
end
$function$;

comment on function ops.exchange_marts is
    'In the caller''s transaction: marts.<name> moves to going, coming.<name> moves to marts, for every name; plain views '
    'that read marts.<name> read the new one. A reader sees all old ones until commit and all new ones after it.';

create function ops.copy_privileges(of_relation regclass, to_relation regclass) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
declare
    held record;
begin
    for held in
        select distinct grantee from pg_class, aclexplode(relacl) where oid = to_relation and grantee <> relowner
    loop
        execute format(
            'revoke all on %s from %s', to_relation,
            case when held.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(held.grantee)) end
        );
    end loop;
    for held in
        select grantee, privilege_type, is_grantable
        from pg_class, aclexplode(relacl)
        where oid = of_relation and grantee <> relowner
    loop
        execute format(
            'grant %s on %s to %s%s', held.privilege_type, to_relation,
            case when held.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(held.grantee)) end,
            case when held.is_grantable then ' with grant option' else '' end
        );
    end loop;
end
$function$;

comment on function ops.copy_privileges is 'Whoever may do something with the one may do it with the other, and nobody else.';

revoke all on function ops.exchange_marts(text, text, text[]) from public;
revoke all on function ops.copy_privileges(regclass, regclass) from public;
grant execute on function ops.exchange_marts(text, text, text[]) to headwater_transformer;
