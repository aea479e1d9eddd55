{#-
    After an incremental build: remove the rows whose key the source no longer has (deleted there, or soft-deleted).
    source: the relation with all present rows; key: the columns that identify a row in both.
-#}
{% macro delete_gone_rows(source, key) %}
    {%- if is_incremental() -%}
        delete from {{ this }} as built
        where not exists (
            select 1
            from {{ source }} as present
            where {% for column in key %}present.{{ column }} = built.{{ column }}{{ ' and ' if not loop.last }}{% endfor %}
        )
    {%- endif -%}
{% endmacro %}
