{#-
    A view is replaced in place, so the views on top of it stay and nobody meets a missing relation.
    dbt's own materialization drops the old view with cascade, which takes those along.
    Only when a column was renamed, retyped, removed or moved must the old view go, with what depends on it.
-#}
{% materialization view, adapter='postgres' %}
    {%- set existing = load_cached_relation(this) -%}
    {%- set target_relation = this.incorporate(type='view') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- if existing is not none and not can_replace_view(existing, sql) -%}
        {{ drop_relation_if_exists(existing) }}
    {%- endif -%}

    {% call statement('main') -%}
        create or replace view {{ target_relation }} as (
            {{ sql }}
        );
    {%- endcall %}

    {% do persist_docs(target_relation, model) %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}


{#- Whether PostgreSQL accepts `create or replace view`: the present columns are the first of the new ones. The new view
    is made under another name, in this transaction, and asked for its columns: nothing else says them in one tongue. -#}
{% macro can_replace_view(existing, sql) %}
    {%- if not existing.is_view -%}{{ return(false) }}{%- endif -%}
    {%- set trial = make_intermediate_relation(existing) -%}
    {% call statement('trial') -%}
        create or replace view {{ trial }} as (
            {{ sql }}
        );
    {%- endcall %}
    {%- set coming = adapter.get_columns_in_relation(trial) -%}
    {% call statement('drop_trial') -%}
        drop view {{ trial }};
    {%- endcall %}
    {%- set present = adapter.get_columns_in_relation(existing) -%}
    {%- if present | length > coming | length -%}{{ return(false) }}{%- endif -%}
    {%- for column in present -%}
        {%- set other = coming[loop.index0] -%}
        {%- if column.name != other.name or column.data_type != other.data_type -%}{{ return(false) }}{%- endif -%}
    {%- endfor -%}
    {{ return(true) }}
{% endmacro %}
